"""The words of provenance: what enters a context, how far it may be believed, and what is said of an argument."""

from __future__ import annotations

from enum import IntFlag

import msgspec

from interlock.core.terms import Origin


class Standing(IntFlag):
    """How a value entered the context. A value may have entered in several ways; each is one bit.

    `USER`: the user said it in their own channel. `TRUSTED`: an output field that a reviewer trusts. `FIELD`: a whole field of
    an untrusted result. `LISTED`: such a field among several of a list. `TEXT`: somewhere inside free text that others may
    have written. `ASSERTED`: an agent says that it is so. `SPAN`: several words in a row of such a text, to know it again when
    somebody pastes it. `PLACE`: a whole field together with the operation and path that it stands at.
    """

    USER = 1
    TRUSTED = 2
    FIELD = 4
    LISTED = 8
    TEXT = 16
    ASSERTED = 32
    SPAN = 64
    PLACE = 128


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one argument. `item` numbers the context item it was found in, 0 for none.

    `active` names the active parts found in it (`link`, `image`, `recipient`, `command`), for content arguments.
    """

    origin: Origin
    item: int = 0
    active: tuple[str, ...] = ()


def worst(found: list[Provenance]) -> Provenance:
    """The worst of several, for arguments with several values. Of none: nothing is there that could have come from anywhere."""
    return max(found, key=lambda item: item.origin.rank, default=Provenance(origin=Origin.USER))
