"""The database's disk runs full, for real: `make full-disk`. What is refused, what is executed, and how it comes back.

A small file system in memory holds an embedded Postgres with a gateway on it, each kind of call is made while there is room,
while there is none for its tables, while there is none for its log (Postgres then ends), and when there is room again. Then
every execution has its claim on record, and the ledger is verified. Last, `interlock up` is started where there is no room.

It mounts that file system, so it is run as root (in a container with the right to mount). `--json FILE` keeps the report.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from interlock.app.readiness import ROOM_AGAIN_LOOKS, ROOM_EVERY_S
from interlock.gateway.messages import Proposal, Refusal
from interlock.ledger.reader import verify_database
from interlock.store.embedded import server
from interlock.store.errors import StoreError
from tests.conftest import urls
from tests.failures.world import EFFECTS, World, world
from tests.support.once import make_once
from tests.support.patience import until
from tests.support.postgres import TestServer

ROOM: Final = "200m"
NO_ROOM: Final = "1m"
ROUNDS: Final = 3
ENDS_WITHIN_S: Final = 120.0
MAX_LOG_PIECES: Final = 40
READY_WITHIN_S: Final = (ROOM_AGAIN_LOOKS + 2) * ROOM_EVERY_S


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each kind of call while the disk was like this."""

    name: str
    told: dict[str, dict[str, int]]
    executed: dict[str, int]
    slowest_ms: int
    kill: str
    ready: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole drill."""

    phases: tuple[Phase, ...]
    well_again_ms: int
    events: int
    intact: bool
    up_without_room: str

    def wrong(self) -> list[str]:
        """What must not be; empty when all is well."""
        found = [] if self.intact else ["the ledger does not verify"]
        for phase in self.phases:
            full = phase.name.startswith("no room")
            if phase.ready == full:
                found.append(f"{phase.name}: `/readyz` says the contrary")
            if full and any(code == "done" for name, codes in phase.told.items() for code in codes if name != "read"):
                found.append(f"{phase.name}: a write was said to be done")
            if not full and any(set(codes) != {"done"} for codes in phase.told.values()):
                found.append(f"{phase.name}: {phase.told}")
            for effect, codes in phase.told.items():
                told = codes.get("done", 0) + codes.get("not_recorded", 0)
                # Of a reading that could not be recorded nothing is released; whether it ran does not matter.
                if effect != "read" and phase.executed.get(effect, 0) != told:
                    found.append(f"{phase.name}: {effect} was executed {phase.executed.get(effect, 0)} times, told {codes}")
        if "cannot be written: No space left on device" not in self.up_without_room or "File " in self.up_without_room:
            found.append("`interlock up` does not say that there is no room")
        return found


class Drill:
    """One gateway, and a database whose disk is filled and emptied."""

    def __init__(self, made: World, disk: Path, postgres: TestServer) -> None:
        self._made, self._disk, self._postgres = made, disk, postgres
        self._number = 0
        self.phases: list[Phase] = []

    async def open(self) -> None:
        """Begin while there is room."""
        self._session = await self._made.session()
        await self.phase("room")

    async def phase(self, name: str) -> None:
        """Each kind of call a few times, and a kill."""
        told: dict[str, Counter[str]] = {effect: Counter() for effect in EFFECTS}
        before, slowest_s = Counter(self._made.executed), 0.0
        for _ in range(ROUNDS):
            for effect in EFFECTS:
                began_s = time.monotonic()
                told[effect][await self._call(effect)] += 1
                slowest_s = max(slowest_s, time.monotonic() - began_s)
        executed = Counter(self._made.executed) - before
        self.phases.append(
            Phase(
                name=name,
                told={effect: dict(codes) for effect, codes in told.items()},
                executed=dict(executed),
                slowest_ms=int(slowest_s * 1000),
                kill=await self._killed(),
                ready=await self._ready_as(is_full=name.startswith("no room")),
            )
        )

    async def fill(self) -> None:
        """Until not one byte has room."""
        for block in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError), (self._disk / "filler").open("ab", buffering=0) as file:
                while file.write(b"\0" * block) == block:
                    pass

    async def fill_log(self) -> None:
        """Make Postgres want another piece of its log, for which there is none; it ends by that."""
        for _ in range(MAX_LOG_PIECES):
            try:
                await self._made.sql("SELECT txid_current(), pg_switch_wal()")
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                break
        await until(lambda: server.status_of(self._postgres.layout) is None)

    async def make_room(self) -> int:
        """Room again; gives how long it takes until a write is done, in milliseconds. Raises `TimeoutError`."""
        (self._disk / "filler").unlink()
        began_s = time.monotonic()
        await until(self._writes)
        return int((time.monotonic() - began_s) * 1000)

    async def _writes(self) -> bool:
        return await self._call("write") == "done"

    async def _call(self, effect: str) -> str:
        self._number += 1
        sent = msgspec.json.encode({"item": f"n{self._number}"})
        answer = await self._made.gate.call(self._session, Proposal(operation=f"act.{EFFECTS[effect]}", arguments=sent))
        return answer.code if isinstance(answer, Refusal) else "done"

    async def _ready_as(self, *, is_full: bool) -> bool:
        """What `/readyz` says, which may take it a few looks."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN_S):
                await until(self._unready if is_full else self._ready)
        return await self._ready()

    async def _ready(self) -> bool:
        try:
            await self._made.system.plane.ready()
        except StoreError:
            return False
        return True

    async def _unready(self) -> bool:
        return not await self._ready()

    async def _killed(self) -> str:
        try:
            await self._made.kill()
        except StoreError as error:
            return f"refused: {error}"
        return "answered"


async def drill(disk: Path) -> Report:
    """All phases on a disk that is nearly empty."""
    postgres = TestServer()
    try:
        found = urls(postgres, await postgres.clone())
        with tempfile.TemporaryDirectory(dir="/tmp") as state:
            async with world(found, postgres, Path(state)) as made:
                acting = Drill(made, disk, postgres)
                await acting.open()
                await acting.fill()
                await acting.phase("no room for the tables")
                await acting.fill_log()
                await acting.phase("no room for the log")
                again_ms = await acting.make_room()
                await acting.phase("room again")
                await made.accounted()
                await made.system.sign_heads()
                keys = made.system.keys.public_bytes("heads")
                report = await verify_database(found.auditor, keys, Path(state) / "heads.jsonl")
        return Report(
            phases=tuple(acting.phases),
            well_again_ms=again_ms,
            events=report.events,
            intact=report.intact,
            up_without_room=_up_without_room(),
        )
    finally:
        postgres.close()


def _up_without_room() -> str:
    """The last words of `interlock up` whose state folder lies where there is no room."""
    with mounted(NO_ROOM) as disk:
        with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass
        words = [sys.executable, "-m", "interlock", "up", "--state", str(disk / "state"), "--port", "0"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=ENDS_WITHIN_S)
        return f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}"


@contextlib.contextmanager
def mounted(size: str) -> Iterator[Path]:
    """A file system of its own, in memory."""
    place = Path(tempfile.mkdtemp(prefix="il-disk-", dir="/tmp"))
    place.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


def text(report: Report) -> str:
    """For people."""
    lines = []
    for phase in report.phases:
        lines.append(f"{phase.name} (slowest call {phase.slowest_ms} ms; a kill: {phase.kill}; ready: {phase.ready})")
        lines += [f"  {effect:12} {codes}" for effect, codes in phase.told.items()]
    lines += [
        f"well again {report.well_again_ms} ms after there was room",
        f"ledger: {report.events} events, {'intact' if report.intact else 'NOT INTACT'}",
        f"`interlock up` without room: {report.up_without_room}",
    ]
    return "\n".join(lines)


def main() -> int:
    """Exit code 1 when something was done that is not on record, told wrongly, or did not come back."""
    words = argparse.ArgumentParser(prog="make full-disk")
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    make_once()
    with mounted(ROOM) as disk:
        kept, tempfile.tempdir = tempfile.tempdir, str(disk)
        try:
            report = asyncio.run(drill(disk))
        finally:
            tempfile.tempdir = kept
    print(text(report))
    wrong: list[Any] = report.wrong()
    print("\n".join(f"WRONG: {line}" for line in wrong) or "nothing was executed that is not on record")
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
