"""Commands that read the record: traces as stories, and the verifier."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from interlock.cli.common import DEFAULT_STATE, Json, State
from interlock.cli.output import NO, OK, UNREACHABLE, Failure, print_json
from interlock.ledger.story import StoredEvent, tell
from interlock.store.database import open_database
from interlock.store.embedded import server
from interlock.store.errors import StoreError
from interlock.store.traces import Traces

DatabaseUrl = Annotated[
    str, Parameter(help="URL of the database as auditor; the embedded one when not given.", env_var="INTERLOCK_AUDITOR_URL")
]
_TONES: Final = {"plain": "", "good": "green", "bad": "red", "wait": "yellow", "doubt": "magenta"}


def list_traces(
    *,
    agent: str = "",
    user: str = "",
    session: str = "",
    operation: str = "",
    since: Annotated[str, Parameter(help="Only calls at or after this time, ISO 8601.")] = "",
    limit: int = 50,
    offset: int = 0,
    state: State = DEFAULT_STATE,
    database_url: DatabaseUrl = "",
    as_json: Json = False,
) -> int:
    """Recorded calls, newest first."""
    since_us = int(_time(since).timestamp() * 1e6) if since else 0

    async def read(traces: Traces) -> Any:
        return await traces.calls(
            agent=agent, user=user, session_id=session, operation=operation, since_us=since_us, limit=limit, offset=offset
        )

    rows = _with_traces(state, database_url, read)
    if as_json:
        print_json(rows)
        return OK
    table = Table("time", "call", "agent for user", "operation", "ended")
    for row in rows:
        proposed = json.loads(row.proposed) if row.proposed else {}
        when = datetime.fromtimestamp(row.at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
        who = f"{row.agent} for {row.user}"
        table.add_row(when, row.call_id, who, proposed.get("operation", "?"), _ended(row.ended))
    Console().print(table if rows else "no calls are recorded")
    return OK


def show(
    identifier: Annotated[str, Parameter(help="A call id, a session id, or `control`.")],
    *,
    state: State = DEFAULT_STATE,
    database_url: DatabaseUrl = "",
    as_json: Json = False,
) -> int:
    """One call or session as a story: asked, looked at, decided by which policy, done, returned."""

    async def read(traces: Traces) -> Any:
        return await traces.events(identifier)

    rows = _with_traces(state, database_url, read)
    if not rows:
        raise Failure(f"nothing is recorded under {identifier!r}", hint="`interlock trace list` shows what is")
    lines = tell(
        StoredEvent(chain_id=row.chain_id, seq=row.seq, kind=row.kind, at_us=row.at_us, call_id=row.call_id, body=row.body)
        for row in rows
    )
    if as_json:
        print_json([{"event": row, "told": line.text} for row, line in zip(rows, lines, strict=True)])
        return OK
    console = Console(soft_wrap=True)
    for line in lines:
        when = datetime.fromtimestamp(line.at_us / 1e6, UTC).strftime("%H:%M:%S.%f")[:-3]
        console.print(Text(f"{line.seq:>4}  {when}  "), Text(line.text, style=_TONES[line.tone]))
    return OK


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


def _with_traces(state: Path, database_url: str, read: Callable[[Traces], Awaitable[Any]]) -> Any:
    async def opened(url: str) -> Any:
        database = await open_database(url)
        try:
            return await read(Traces(database))
        finally:
            await database.close()

    return _with_url(state, database_url, opened)


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


def _ended(body: str | None) -> str:
    if body is None:
        return "under way"
    ended = json.loads(body)
    match ended["kind"]:
        case "call.settled":
            return str(ended["state"])
        case "call.refused":
            return f"{ended['outcome']}: {ended['code']}"
        case "call.replayed":
            return "replayed"
        case _:
            return "in doubt"


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Failure(f"{text!r} is no time; write it like 2027-01-31T12:00:00") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _when(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
