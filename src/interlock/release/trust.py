"""Which output fields may be trusted: none that a governed operation can write, or an attacker launders text through it.

A ticket's title is read as a field; whoever may write tickets decides what it says. So a writing operation counts as one
that changes everything its tool's reads return, until its contract says what it changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from interlock.core.contract import Contract
from interlock.core.terms import Effect

EVERYTHING = "*"


def wrongly_trusted(contracts: Mapping[str, Contract]) -> Iterator[tuple[Contract, str]]:
    """The contracts whose `trusted` or `changes` cannot stand, each with what to do about it."""
    for contract in contracts.values():
        for named in contract.changes or {}:
            if named not in contracts:
                yield contract, f"{contract.operation}: changes names {named!r}, which is no operation here"
        for path in contract.trusted:
            writer = next((other for other in contracts.values() if _may_write(other, contract, path)), None)
            if writer is not None:
                yield contract, _advice(contract, path, writer)


def _advice(reader: Contract, path: str, writer: Contract) -> str:
    return (
        f"{reader.operation}: {path!r} is not to be trusted: {writer.operation} may write it. Leave it out, or say in "
        f"`changes` of {writer.operation} which output fields it writes, such as {{{reader.operation}: [name]}}"
    )


def _may_write(writer: Contract, reader: Contract, path: str) -> bool:
    # The gateway's own operations are not for agents, so no attacker reaches them.
    if writer.internal or not writer.effects & {Effect.WRITE, Effect.DESTRUCTIVE}:
        return False
    if writer.changes is None:
        return writer.tool == reader.tool
    return any(_overlap(path, changed) for changed in writer.changes.get(reader.operation, ()))


def _overlap(trusted: str, changed: str) -> bool:
    """Whether one path is the other or lies within it."""
    if EVERYTHING in (trusted, changed) or trusted == changed:
        return True
    return any(inner.startswith((f"{outer}.", f"{outer}[]")) for inner, outer in ((trusted, changed), (changed, trusted)))
