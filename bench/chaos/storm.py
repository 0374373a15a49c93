"""Load, and somebody who breaks things."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import asyncpg

from bench.chaos.bank import Bank
from bench.chaos.gateway import POINTS
from bench.chaos.remote import Remote

GATEWAYS: Final = 3
CALLERS: Final = 4
TELL_EVERY_S: Final = 30.0


class Storm:
    """Callers that repeat what is not settled, and somebody who breaks things."""

    def __init__(self, lease: Any, folder: Path, bank: Bank, seed: int) -> None:
        self._lease, self._folder, self._bank = lease, folder, bank
        self._random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.told: set[str] = set()
        self.answers: Counter[str] = Counter()
        self.calls = self.starts = 0
        self._over = False
        self._remotes: list[Remote] = []

    async def rage(self, seconds: float) -> None:
        """Load and faults for so long; at the end every gateway is killed."""
        for _ in range(GATEWAYS):
            self._remotes.append(await self._new())
        callers = [asyncio.create_task(self._caller(number)) for number in range(CALLERS * GATEWAYS)]
        began_s = told_s = time.monotonic()
        try:
            while time.monotonic() < began_s + seconds:
                await asyncio.sleep(self._random.uniform(0.2, 1.2))
                await self._break_something()
                if time.monotonic() > told_s + TELL_EVERY_S:
                    told_s = time.monotonic()
                    self._say_how_far((told_s - began_s) / 60, seconds / 60)
        finally:
            self._over = True
            for remote in self._remotes:
                await remote.end()
            await asyncio.gather(*callers)

    def _say_how_far(self, minutes: float, of_minutes: float) -> None:
        done, faults = self.answers["done"], self.faults.total()
        so_far = f"{self.calls} calls, {done} done, {faults} faults, {self.starts} gateways started"
        print(f"{minutes:.1f} of {of_minutes:.1f} minutes: {so_far}", file=sys.stderr, flush=True)

    async def _new(self) -> Remote:
        self.starts += 1
        return await Remote.start(self._lease.running.app_url, self._folder / "state", self._bank.url)

    async def _caller(self, number: int) -> None:
        mind, order_number = random.Random(number), 0
        while not self._over:
            order_number += 1
            order, operation = f"o{number}-{order_number}", mind.choice(("pay", "once"))
            for _ in range(6):
                if self._over:
                    return
                self.calls += 1
                answer = await mind.choice(self._remotes).call(operation, order)
                self.answers[answer["code"] or "done" if answer else "gateway died"] += 1
                if answer is not None and answer["done"]:
                    self.told.add(order)
                    break
                await asyncio.sleep(mind.uniform(0.05, 0.8))

    async def _break_something(self) -> None:
        place = self._random.randrange(GATEWAYS)
        remote = self._remotes[place]
        kind = self._random.choice(("point", "point", "point", "pause", "backends", "database", "kill"))
        match kind:
            case "point":
                point = self._random.choice(POINTS)
                number = self._random.choice((signal.SIGKILL, signal.SIGSTOP))
                self.faults[f"{number.name} at: {point}"] += 1
                remote.say(f"arm {point} {int(number)}")
                await asyncio.sleep(0.5)
                await self._wake_or_replace(place, self._random.uniform(0.1, 3.0) if number == signal.SIGSTOP else 0.0)
            case "pause" | "kill":
                number = signal.SIGSTOP if kind == "pause" else signal.SIGKILL
                self.faults[f"{number.name} anywhere"] += 1
                with contextlib.suppress(ProcessLookupError):
                    remote.process.send_signal(number)
                await self._wake_or_replace(place, self._random.uniform(0.1, 3.0) if kind == "pause" else 0.0)
            case _:
                await self._hurt_database(kill=kind == "database")

    async def _wake_or_replace(self, place: int, pause_s: float) -> None:
        remote = self._remotes[place]
        await asyncio.sleep(pause_s)
        with contextlib.suppress(ProcessLookupError):
            remote.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.1)
        if remote.process.returncode is not None:
            await remote.end()
            self._remotes[place] = await self._new()

    async def _hurt_database(self, *, kill: bool) -> None:
        """Cut every connection of the gateways, or kill a backend: Postgres then restarts and recovers from its log."""
        self.faults["database killed, recovers from its log" if kill else "database connections cut"] += 1
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            owner = await asyncpg.connect(self._lease.layout.url("postgres"), timeout=5)
            try:
                found = await owner.fetch("SELECT pid FROM pg_stat_activity WHERE usename = 'interlock_app' ORDER BY pid")
                pids = [row["pid"] for row in found]
                if kill and pids:
                    os.kill(self._random.choice(pids), signal.SIGKILL)
                for pid in () if kill else pids:
                    await owner.execute("SELECT pg_terminate_backend($1)", pid)
            finally:
                await owner.close()
