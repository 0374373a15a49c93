"""Commands of those who hold the record: verify it, sign its heads. With `up` and `db` the only ones that open it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from interlock.cli.common import DEFAULT_STATE, Json, State
from interlock.cli.output import NO, OK, UNREACHABLE, Failure, print_json
from interlock.cli.shown import Text
from interlock.store.database import open_database
from interlock.store.embedded import server
from interlock.store.errors import StoreError

DatabaseUrl = Annotated[
    str, Parameter(help="URL of the database as auditor; the embedded one when not given.", env_var="INTERLOCK_AUDITOR_URL")
]


def verify(
    *,
    state: State = DEFAULT_STATE,
    database_url: DatabaseUrl = "",
    witness: Annotated[Path | None, Parameter(help="A copy of heads.jsonl; the state folder's when not given.")] = None,
    as_json: Json = False,
) -> int:
    """Check every chain, commitment and signed head. Exit code 1 when something is wrong."""
    from interlock.identity.keys import KeyRing  # noqa: PLC0415  # only here
    from interlock.ledger.reader import verify_database  # noqa: PLC0415

    keys = KeyRing(state / "keys").public_bytes("heads")
    file = witness or state / "heads.jsonl"

    async def check(url: str) -> Any:
        return await verify_database(url, keys, file)

    try:
        report = _with_url(state, database_url, check)
    except (OSError, ValueError) as error:
        raise Failure(f"the ledger cannot be read: {error}", code=UNREACHABLE) from error
    if as_json:
        print_json(report.as_dict())
        return OK if report.intact else NO
    console = Console(soft_wrap=True)
    span = f", {_when(report.first_at_us)} to {_when(report.last_at_us)}" if report.events else ""
    console.print(f"checked {report.events} events in {report.chains} chains and {report.heads} signed heads{span}")
    for finding in report.findings:
        console.print(Text(f"WRONG  {finding.where}: {finding.what}", style="red"))
    console.print(Text("intact", style="green") if report.intact else Text("NOT INTACT", style="bold red"))
    for sentence in report.could_not_see():
        console.print(Text(f"not seen: {sentence}", style="yellow"))
    return OK if report.intact else NO


def checkpoint(*, state: State = DEFAULT_STATE, database_url: DatabaseUrl = "", as_json: Json = False) -> int:
    """Sign the heads of all chains now. Needs the state folder that holds the signing key."""
    from interlock.app.sources import SystemClock  # noqa: PLC0415  # only here
    from interlock.identity.keys import KeyRing  # noqa: PLC0415
    from interlock.ledger.heads import sign_heads  # noqa: PLC0415

    key_id, private = KeyRing(state / "keys").private_bytes("heads")

    async def sign(url: str) -> int:
        database = await open_database(url)
        try:
            return await sign_heads(database.pool(), key_id, private, state / "heads.jsonl", SystemClock().wall_us())
        finally:
            await database.close()

    signed = _with_url(state, database_url, sign, role="app")
    if as_json:
        print_json({"signed": signed})
    else:
        print(f"signed {signed} heads" if signed else "nothing has moved since the last time")
    return OK


def _with_url(state: Path, database_url: str, work: Callable[[str], Awaitable[Any]], *, role: str = "auditor") -> Any:
    async def run(url: str) -> Any:
        return await work(url)

    try:
        if database_url:
            return asyncio.run(run(database_url))
        lease = server.acquire(state)
        try:
            running = lease.running
            return asyncio.run(run(running.app_url if role == "app" else running.auditor_url))
        finally:
            lease.release()
    except StoreError as error:
        raise Failure(str(error), code=UNREACHABLE) from error


def _when(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
