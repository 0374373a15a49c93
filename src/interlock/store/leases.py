"""Leases in the database: renewed by their holders, looked at by whoever waits for a kill, closed when they have run out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import asyncpg
import msgspec

from interlock.store.database import COMMAND_TIMEOUT_S, CONNECT_TIMEOUT_S, UNAVAILABLE, Database
from interlock.store.errors import StoreUnavailableError
from interlock.store.queries import load

RENEW_TIMEOUT_S: Final = 1.0
CHANNEL: Final = "interlock_control"


class Renewal(msgspec.Struct, frozen=True, kw_only=True):
    """What a renewal brought back. `stops` and `postures` are told when the epoch is not the one that was known, else None."""

    epoch: int
    incarnation: str
    settled: bool
    stops: Mapping[str, int] | None
    postures: Mapping[str, str] | None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A notification of a control change. `whole` says that this is all that its epoch stands for."""

    epoch: int = 0
    scope: str = ""
    halted: bool = False
    whole: bool = False


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A process whose lease may still be held; `acked_epoch` is the control epoch it has acted on."""

    process_id: str
    environment: str
    renewals: int
    acked_epoch: int
    unsent: tuple[str, ...]


class EndedClaim(msgspec.Struct, frozen=True, kw_only=True):
    """Where a claim stands; `code` is the refusal code it was settled with, empty for none."""

    claim_id: str
    state: str
    code: str


class LeaseLine:
    """A connection of its own for one process's lease, so that no other work stands before a renewal in a queue.

    Belongs to the event loop of the thread that uses it; `on_told` is called there.

    Every method raises `StoreUnavailableError`; then call `reset` and try again.
    """

    def __init__(self, database: Database, process_id: str, on_told: Callable[[Told], None]) -> None:
        self._url = database.url
        self._password = database.password
        self._process_id = process_id
        self._on_told = on_told
        self._sql = load()
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def renew(self, incarnation: str, known: int, unsent: Sequence[str]) -> Renewal | None:
        """Renew, acknowledging everything up to the epoch `known`; None when the process is not registered."""
        try:
            connection = self._connection or await self._open()
            row = await connection.fetchrow(
                self._sql["renew_lease"], self._process_id, incarnation, known, list(unsent), timeout=RENEW_TIMEOUT_S
            )
        except (*UNAVAILABLE, asyncpg.PostgresError) as error:
            raise StoreUnavailableError(f"the lease was not renewed ({type(error).__name__})") from error
        if row is None:
            return None
        return Renewal(
            epoch=row["control"],
            incarnation=row["incarnation"],
            settled=row["settled"],
            stops=None if row["stops"] is None else msgspec.json.decode(row["stops"], type=dict[str, int]),
            postures=None if row["postures"] is None else msgspec.json.decode(row["postures"], type=dict[str, str]),
        )

    def reset(self) -> None:
        """Give the connection up; the next renewal opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def settle(self, incarnation: str) -> None:
        """Note that a whole lease has passed in this life of the database."""
        try:
            connection = self._connection or await self._open()
            await connection.execute(self._sql["settle_incarnation"], incarnation, timeout=RENEW_TIMEOUT_S)
        except (*UNAVAILABLE, asyncpg.PostgresError) as error:
            raise StoreUnavailableError(f"the database's new life was not settled ({type(error).__name__})") from error

    async def _open(self) -> asyncpg.Connection[asyncpg.Record]:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            self._url, password=self._password, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S
        )
        try:
            await asyncio.wait_for(connection.add_listener(CHANNEL, self._heard), CONNECT_TIMEOUT_S)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        return connection

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        try:
            told = msgspec.json.decode(str(payload), type=Told)
        except msgspec.MsgspecError:
            told = Told()  # whatever it was, asking will tell
        self._on_told(told)


class Leases:
    """Leases as whoever waits for them sees them. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def holders(self) -> tuple[Holder, ...]:
        """Every process whose lease may still be held."""
        return tuple(
            Holder(
                process_id=row["process_id"],
                environment=row["environment"],
                renewals=row["renewals"],
                acked_epoch=row["acked_control"],
                unsent=tuple(row["unsent"]),
            )
            for row in await self._database.rows("leases")
        )

    async def close(self, holder: Holder) -> None:
        """Note that a lease has run out. Only for whoever has seen its `renewals` stand still for longer than a lease."""
        await self._database.rows("close_lease", holder.process_id, holder.renewals)

    async def ended(self, claim_ids: Sequence[str]) -> dict[str, EndedClaim]:
        """Where some claims stand."""
        rows = await self._database.rows("claims_ended", list(claim_ids))
        return {row["claim_id"]: EndedClaim(claim_id=row["claim_id"], state=row["state"], code=row["code"]) for row in rows}
