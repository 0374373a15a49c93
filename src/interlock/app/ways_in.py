"""How agents and people come in: how they prove who they are, and what they are given for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from interlock.app.plane import RecordedSessions
from interlock.app.sources import SystemClock, SystemIds
from interlock.core.who import Session
from interlock.identity.delegated import DelegatedSessions
from interlock.identity.dev_issuer import ISSUER, KEY
from interlock.identity.exchange import MAX_PROOF_LIFETIME_S, SessionTokens, TokenExchange
from interlock.identity.handing_down import HandingDown
from interlock.identity.keys import KeyRing
from interlock.identity.outside import Outside
from interlock.identity.persons import PersonTokens
from interlock.identity.tokens import Verifier
from interlock.store.database import Database
from interlock.store.logins import Logins
from interlock.store.sessions import Sessions


class WaysIn(msgspec.Struct, frozen=True, kw_only=True):
    """How agents and people come in."""

    tokens: SessionTokens
    proofs: Verifier
    persons: PersonTokens
    logins: Logins
    delegated: DelegatedSessions
    exchange: TokenExchange
    handing_down: HandingDown


def prepare_ways_in(
    database: Database,
    *,
    environment: str,
    keys: KeyRing,
    trust_dev_issuer: bool,
    outside: Outside,
    sessions: Sessions,
    joined: Callable[[Session], Awaitable[None]],
    clock: SystemClock,
    ids: SystemIds,
) -> WaysIn:
    """The ways in of one process. `joined` is told of each session that is opened below another."""
    tokens = SessionTokens(keys=keys, environment=environment, clock=clock, ids=ids)
    issuers = {ISSUER: keys.verifying(KEY)} if trust_dev_issuer else {}
    proofs = Verifier(
        keys=issuers,
        audience=f"interlock:{environment}",
        clock=clock,
        max_lifetime_s=MAX_PROOF_LIFETIME_S,
    )
    persons = PersonTokens(keys=keys, environment=environment, clock=clock, ids=ids)
    logins = Logins(database, environment)
    recorded = RecordedSessions(sessions, ids)
    delegated = DelegatedSessions(
        proofs=proofs,
        outside=outside,
        sessions=recorded,
        environment=environment,
        clock=clock,
        ids=ids,
    )
    exchange = TokenExchange(
        proofs=proofs,
        outside=outside,
        tokens=tokens,
        sessions=recorded,
        environment=environment,
        clock=clock,
        ids=ids,
    )
    handing_down = HandingDown(
        agent_of=exchange.agent_of,
        tokens=tokens,
        sessions=recorded,
        joined=joined,
        clock=clock,
        ids=ids,
    )
    return WaysIn(
        tokens=tokens,
        proofs=proofs,
        persons=persons,
        logins=logins,
        delegated=delegated,
        exchange=exchange,
        handing_down=handing_down,
    )
