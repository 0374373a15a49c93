"""Commands of those who hold the record: verify it, sign its heads. With `up` and `db` the only ones that open it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from interlock.cli.access import APP, AUDITOR, AsApp, AsAuditor
from interlock.cli.common import DEFAULT_STATE, Json, State
from interlock.cli.output import NO, OK, print_json
from interlock.cli.shown import Text
from interlock.store.database import open_database

if TYPE_CHECKING:
    from interlock.store.passwords import Password


def verify(
    *,
    state: State = DEFAULT_STATE,
    database: AsAuditor = AUDITOR,
    witness: Annotated[Path | None, Parameter(help="A copy of heads.jsonl; the state folder's when not given.")] = None,
    as_json: Json = False,
) -> int:
    """Check every chain, commitment and signed head. Exit code 1 when something is wrong."""
    from interlock.identity.keys import KeyRing  # noqa: PLC0415  # only here
    from interlock.ledger.reader import verify_database  # noqa: PLC0415

    keys = KeyRing(state / "keys").public_bytes("heads")
    file = witness or state / "heads.jsonl"
    report = database.answer(state, lambda url, password: verify_database(url, keys, file, password))
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


def checkpoint(*, state: State = DEFAULT_STATE, database: AsApp = APP, as_json: Json = False) -> int:
    """Sign the heads of all chains now. Needs the state folder that holds the signing key."""
    from interlock.app.sources import SystemClock  # noqa: PLC0415  # only here
    from interlock.identity.keys import KeyRing  # noqa: PLC0415
    from interlock.ledger.heads import sign_heads  # noqa: PLC0415

    key_id, private = KeyRing(state / "keys").private_bytes("heads")

    async def sign(url: str, password: Password | None) -> int:
        opened = await open_database(url, password=password)
        try:
            return await sign_heads(opened.pool(), key_id, private, state / "heads.jsonl", SystemClock().wall_us())
        finally:
            await opened.close()

    signed = database.answer(state, sign)
    if as_json:
        print_json({"signed": signed})
    else:
        print(f"signed {signed} heads" if signed else "nothing has moved since the last time")
    return OK


def _when(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
