"""The chain of agents in a session token: the nested `act` of RFC 8693, and what each handed down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from interlock.core.who import Parent, Session


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """The claim `interlock_chain` of a session that was handed down."""

    parents: tuple[Parent, ...] = ()
    run: str = ""
    operations: tuple[str, ...] | None = None
    max_calls: int = 0


def claims_of(session: Session) -> dict[str, Any]:
    """What a token says of the chain: the acting agent outermost, those that it acts for inside (RFC 8693, section 4.1)."""
    actor: dict[str, Any] = {}
    for agent in [*reversed([parent.agent for parent in session.parents]), session.lineage.agent]:
        actor = {"sub": agent, "act": actor} if actor else {"sub": agent}
    if not session.parents:
        return {"act": actor}
    chain = Chain(parents=session.parents, run=session.run, operations=session.operations, max_calls=session.max_calls)
    return {"act": actor, "interlock_chain": msgspec.to_builtins(chain)}


def chain_of(claims: Mapping[str, Any]) -> Chain:
    """The chain a checked session token tells of. Raises `ValueError` when it is not what it must be."""
    try:
        chain = msgspec.convert(claims.get("interlock_chain", {}), Chain)
    except msgspec.ValidationError as error:
        raise ValueError("the chain of agents cannot be read") from error
    inside = claims.get("act")
    agents: list[Any] = []
    while isinstance(inside, dict) and len(agents) <= len(chain.parents):
        agents.append(inside.get("sub"))
        inside = inside.get("act")
    if inside is not None or agents[1:] != [parent.agent for parent in chain.parents]:
        # INVARIANT: a token never tells of more or other agents than the session it stands for.
        raise ValueError("the chain of agents does not match the actor")
    return chain
