"""What enters a context, in the form in which it is kept and compared."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that entered a context: `source` says what (`input`, `tickets.get`), `reference` which (a call or input id).

    `tokens` holds for each way in which something entered (a value of `provenance.labels.Standing`) its hashes, sorted, eight
    bytes each. `is_complete` is False when it held more tokens than are kept: what is not found may then have been in it.
    """

    source: str
    reference: str
    tokens: Mapping[int, bytes]
    is_complete: bool = True


class StoredItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item with its number in the lineage, from 1, and the session it entered in."""

    n: int
    session_id: str
    item: Item
