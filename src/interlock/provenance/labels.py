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
    `POINTED`: somewhere in a result of a read that the user named what to read for. `CHOSEN`: the field of the row that a
    choice of the session's plan comes to.
    """

    USER = 1
    TRUSTED = 2
    FIELD = 4
    LISTED = 8
    TEXT = 16
    ASSERTED = 32
    SPAN = 64
    PLACE = 128
    POINTED = 256
    CHOSEN = 512


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one argument. `item` numbers the context item it was found in, 0 for none.

    `active` names the kinds of active parts found in it (`active.active_parts`), for content arguments. `pointed`: its
    origin is doubtful, and all that is doubtful in it stands in something that the user named.
    """

    origin: Origin
    item: int = 0
    active: tuple[str, ...] = ()
    pointed: bool = False


def worst(found: list[Provenance]) -> Provenance:
    """The worst of several, for arguments with several values. Of none: nothing is there that could have come from anywhere."""
    made = max(found, key=lambda item: item.origin.rank, default=Provenance(origin=Origin.USER))
    doubtful = [item for item in found if item.origin.is_doubtful]
    return msgspec.structs.replace(made, pointed=bool(doubtful) and all(item.pointed for item in doubtful))
