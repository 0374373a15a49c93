"""What the processes tell each other about tools, a second late."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from interlock.store.database import Database


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """Calls of an operation that ended lately, and how many failed; `phase` is `closed`, `open` or `trying`."""

    operation: str
    calls: int
    failed: int
    phase: str = "closed"
    waits_ms: int = 0


class BreakerRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one process said about one operation, `age_ms` ago."""

    process_id: str
    operation: str
    calls: int
    failed: int
    phase: str
    waits_ms: int
    age_ms: int


class BreakerRows:
    """The rows of one environment. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database, environment: str) -> None:
        self._database = database
        self._environment = environment

    async def tell(self, process_id: str, counted: Sequence[Counted]) -> tuple[Counted, ...]:
        """Write down what this process has counted; gives the sums of all others."""
        rows = await self._database.rows(
            "tell_breakers",
            process_id,
            self._environment,
            [item.operation for item in counted],
            [item.calls for item in counted],
            [item.failed for item in counted],
            [item.phase for item in counted],
            [item.waits_ms for item in counted],
        )
        return tuple(Counted(operation=row["operation"], calls=row["calls"], failed=row["failed"]) for row in rows)

    async def all(self) -> tuple[BreakerRow, ...]:
        """What every live process says, the ones that let nothing through first."""
        return tuple(
            BreakerRow(**{name: row[name] for name in BreakerRow.__struct_fields__})
            for row in await self._database.rows("breakers", self._environment)
        )

    async def forget(self) -> None:
        """Forget what is over."""
        await self._database.rows("forget_breakers")
