"""Sessions as rows: opened with their first event, refreshed, revoked, and where their lineage stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from interlock.core.claim import Epochs, LineageState
from interlock.core.event import EventDraft
from interlock.core.plan import Plan, PlannedOperation
from interlock.core.terms import Posture
from interlock.core.who import AttributeValue, Lineage, Parent, Session
from interlock.store.database import Database


class StoredStanding(msgspec.Struct, frozen=True, kw_only=True):
    """Where a lineage stands: what a decision must be made on."""

    epochs: Epochs
    release_digest: str
    state: LineageState


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A session as people see it, with the posture of its lineage. One that is not `live` has expired or was ended.

    `plan` is what was sealed before anything untrusted was read; empty when nothing was.
    """

    session_id: str
    lineage_id: str
    tenant: str
    environment: str
    agent: str
    user: str
    task: str
    roles: tuple[str, ...]
    posture: Posture
    tainted: bool
    opened_at_us: int
    expires_at_us: int
    live: bool
    plan: tuple[PlannedOperation, ...] = ()


_MADE: Final = frozenset({"user", "roles", "posture", "plan"})


class Sessions:
    """Reads and writes sessions. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, session: Session, event: EventDraft) -> bool:
        """Store a new session and its first event; its lineage is made when it is new. False when its proofs were revoked."""
        row = await self._database.row(
            "open_session",
            *_columns(session),
            event.kind,
            event.body,
            event.salt,
            event.commitment,
            session.user_told_at_us,
            session.agent_told_at_us,
        )
        return row is not None and bool(row[0])

    async def of_grant(self, grant: bytes, session: Session, opened: EventDraft, refreshed: EventDraft) -> Session | None:
        """The live session of a grant, or this one opened for it; None when it was revoked, or its proofs were.

        A session that is found goes on until its newest token ends, with the roles and attributes that this token tells.
        """
        events = (opened, refreshed)
        row = await self._database.row(
            "session_of_grant",
            grant,
            *_columns(session),
            session.user_told_at_us,
            session.agent_told_at_us,
            [event.kind for event in events],
            [event.body for event in events],
            [event.salt for event in events],
            [event.commitment for event in events],
        )
        if row is None:
            return None
        return msgspec.structs.replace(session, session_id=row["session_id"], expires_at_us=row["expires_at_us"])

    async def get(self, session_id: str) -> Session | None:
        """A live session; None when it is unknown, revoked or over."""
        row = await self._database.row("session", session_id)
        if row is None:
            return None
        attributes = msgspec.json.decode(row["attributes"], type=dict[str, AttributeValue])
        return Session(
            session_id=row["session_id"],
            lineage=Lineage(tenant=row["tenant"], environment=row["environment"], agent=row["agent"], user=row["user_id"]),
            task=row["task"],
            roles=tuple(row["roles"]),
            attributes=attributes,
            expires_at_us=row["expires_at_us"],
            opened_at_us=row["opened_at_us"],
            parents=tuple(
                Parent(session_id=session_id, agent=agent, max_calls=calls)
                for session_id, agent, calls in zip(row["parents"], row["parent_agents"], row["parent_calls"], strict=True)
            ),
            run=row["run"],
            operations=None if row["operations"] is None else tuple(row["operations"]),
            max_calls=row["max_calls"],
        )

    async def latest(self, lineage: Lineage) -> Session | None:
        """The newest live session of a lineage, or None."""
        row = await self._database.row("latest_session", lineage.id)
        return None if row is None else await self.get(row["session_id"])

    async def tenant(self, session_id: str) -> str:
        """The tenant of a session, live or not; empty when there never was such a session."""
        row = await self._database.row("session_tenant", session_id)
        return "" if row is None else str(row["tenant"])

    async def hand_down(self, session: Session, *, most: int, opened: EventDraft, told: EventDraft) -> str:
        """Open a session below its first parent, with an event in each chain: `opened`, `ended` or `too_many`."""
        row = await self._database.row(
            "open_sub_session",
            session.session_id,
            session.parents[0].session_id,
            session.lineage.id,
            session.lineage.agent,
            list(session.roles),
            msgspec.json.encode(session.attributes).decode(),
            float(session.expires_at_us),
            session.run,
            None if session.operations is None else list(session.operations),
            session.max_calls,
            [parent.max_calls for parent in session.parents],
            most,
            *map(list, zip(*((event.kind, event.body, event.salt, event.commitment) for event in (opened, told)), strict=True)),
            session.lineage.environment,
            session.agent_told_at_us,
        )
        return "ended" if row is None else str(row[0])

    async def refresh(self, session: Session, event: EventDraft) -> bool:
        """Let a live session go on; False, and nothing changed, when it is not live any more or its proofs were revoked."""
        row = await self._database.row(
            "refresh_session",
            session.session_id,
            float(session.expires_at_us),
            event.kind,
            event.body,
            event.salt,
            event.commitment,
            session.user_told_at_us,
            session.agent_told_at_us,
        )
        return row is not None and bool(row[0])

    async def revoke(self, session_id: str) -> bool:
        """End a session now; no claim of it commits after this has answered."""
        row = await self._database.row("revoke_session", session_id)
        return row is not None and bool(row[0])

    async def load(self, session: Session) -> StoredStanding | None:
        """Where the session's lineage stands; None when the session has ended."""
        row = await self._database.row("standing", session.session_id, session.lineage.id)
        if row is None:
            return None
        return StoredStanding(
            epochs=Epochs(control=row["control"], release=row["release"], revocation=row["revocation"]),
            release_digest=row["release_digest"],
            state=LineageState(
                facts_version=row["facts_version"],
                posture=Posture(row["posture"]),
                tainted=row["tainted"],
                confidentiality=row["confidentiality"],
                history_version=row["history_version"],
                tainted_by=row["tainted_by"],
                confidential_by=row["confidential_by"],
            ),
        )

    async def over(self, scopes: Mapping[str, tuple[str, Sequence[str]]]) -> frozenset[str]:
        """Which of these sessions may do nothing any more: each by its id, with its lineage and the scopes that stop it."""
        pairs = [(session_id, scope) for session_id, (_, named) in scopes.items() for scope in named]
        rows = await self._database.rows(
            "sessions_over",
            list(scopes),
            [lineage for lineage, _ in scopes.values()],
            [session_id for session_id, _ in pairs],
            [scope for _, scope in pairs],
        )
        return frozenset(row["session_id"] for row in rows)

    async def listed(
        self,
        *,
        tenant: str = "",
        user: str = "",
        agent: str = "",
        task: str = "",
        session_id: str = "",
        state: str = "",
        after: tuple[int, str] = (2**62, ""),
        limit: int = 1,
    ) -> tuple[SessionRow, ...]:
        """Sessions, newest first; an empty filter matches everything, `state` is `live`, `ended` or empty.

        `after` is the opening time (microseconds) and the id of the last one seen.
        """
        rows = await self._database.rows("sessions", tenant, user, agent, task, session_id, state, *after, limit)
        return tuple(
            SessionRow(
                **{name: row[name] for name in SessionRow.__struct_fields__ if name not in _MADE},
                user=row["user_id"],
                roles=tuple(row["roles"]),
                posture=Posture(row["posture"]),
                plan=() if row["plan"] is None else msgspec.json.decode(row["plan"], type=Plan).operations,
            )
            for row in rows
        )


def _columns(session: Session) -> tuple[Any, ...]:
    """A session as the functions that open one take it, but for its proofs and events."""
    lineage = session.lineage
    return (
        session.session_id,
        lineage.id,
        lineage.tenant,
        lineage.environment,
        lineage.agent,
        lineage.user,
        session.task,
        list(session.roles),
        msgspec.json.encode(session.attributes).decode(),
        float(session.expires_at_us),
    )
