"""What one governed call costs, counted rather than timed: it says the same on a busy machine.

`python -m bench.cost [OPERATION CLIENTS]` drives one gateway and prints, per call, the processor time of the gateway and of
Postgres by role of its processes, log records, bytes and flushes, and commits.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil
import uvloop

from bench.governed import HOST, real_server, served
from bench.load import load, tools_call

SECONDS: Final = 6.0
WARM_UP_S: Final = 2.0

_WAL: Final = "SELECT wal_records, wal_fpi, wal_bytes FROM pg_stat_wal"
_IO: Final = "SELECT coalesce(sum(writes), 0), coalesce(sum(fsyncs), 0) FROM pg_stat_io WHERE object = 'wal'"
_DATABASE: Final = "SELECT sum(xact_commit), sum(blks_hit + blks_read) FROM pg_stat_database"


def cpu_ns(pid: int) -> int:
    """Processor time of all threads of a process, as the scheduler counted it."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            spent += int((task / "schedstat").read_text().split()[0])
        except (OSError, IndexError):
            continue
    return spent


def postgres_ns(postmaster: int) -> dict[str, int]:
    """Processor time by kind of Postgres process; backends of clients are one kind."""
    found: dict[str, int] = {}
    for child in psutil.Process(postmaster).children():
        try:
            title = " ".join(child.cmdline())
            kind = title.removeprefix("postgres: ").strip() if "interlock" not in title else "backends"
            found[kind] = found.get(kind, 0) + cpu_ns(child.pid)
        except (psutil.Error, OSError):
            continue
    return found


async def counters(connection: asyncpg.Connection[Any]) -> dict[str, float]:
    """What Postgres counts. Its statistics are flushed by each backend about once a second."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    wal, io, database = [await connection.fetchrow(sql) for sql in (_WAL, _IO, _DATABASE)]
    names = ("log records", "full page images", "log bytes", "log writes", "log flushes", "commits", "buffers")
    return dict(zip(names, map(float, (*wal, *io, *database)), strict=True))


async def counted(gateway: Mapping[str, Any], name: str, clients: int, seconds: float) -> dict[str, float]:
    """What one call of a running gateway costs."""
    number = iter(range(10**9))

    def request(client: int, _: int) -> bytes:
        arguments = b'{"n":%d}' % next(number)
        return tools_call(HOST, gateway["port"], gateway["tokens"][client % 32], name, arguments)

    def right(body: bytes) -> bool:
        return b'"isError":true' not in body and b'"error"' not in body

    await load(HOST, gateway["port"], request, clients=clients, seconds=WARM_UP_S, is_right=right)
    connection = await asyncpg.connect(gateway["superuser_url"])
    await asyncio.sleep(1.2)
    before, pg, own = await counters(connection), postgres_ns(gateway["postmaster"]), cpu_ns(gateway["pid"])
    result = await load(HOST, gateway["port"], request, clients=clients, seconds=seconds, warm_up_s=0, is_right=right)
    own, pg_now = cpu_ns(gateway["pid"]) - own, postgres_ns(gateway["postmaster"])
    await asyncio.sleep(1.2)
    after = await counters(connection)
    await connection.close()
    if result.wrong or set(result.statuses) != {"200"}:
        raise RuntimeError(f"{name}: {result.wrong} wrong answers, statuses {result.statuses}")
    calls = result.calls
    return {
        "calls/s": result.rps,
        "p50 ms": result.p50_ms,
        "gateway us": own / calls / 1000,
        "postgres us": sum(pg_now[kind] - pg.get(kind, 0) for kind in pg_now) / calls / 1000,
        **{f"  {kind} us": (pg_now[kind] - pg.get(kind, 0)) / calls / 1000 for kind in sorted(pg_now)},
        **{name: (after[name] - before[name]) / calls for name in after},
    }


def run(name: str = "local.ping", clients: int = 32, seconds: float = SECONDS) -> dict[str, float]:
    """Costs per call."""
    with real_server() as port, served(f"http://{HOST}:{port}/mcp") as gateway:
        return uvloop.run(counted(gateway, name, clients, seconds))


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["local.ping", "32"]
    print(json.dumps({key: round(value, 2) for key, value in run(chosen[0], int(chosen[1])).items()}, indent=1))
