"""The two runs: a gateway for each named point, and the storm."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.chaos.bank import Bank
from bench.chaos.gateway import POINTS
from bench.chaos.judgement import judged, undertake
from bench.chaos.remote import Remote
from bench.chaos.storm import Storm
from interlock.store.embedded import server as embedded
from interlock.store.migrate import migrate

PAUSED_S: Final = 2.5


async def at_every_point(lease: Any, folder: Path, *, seed: int) -> dict[str, Any]:
    """The short run: a gateway for each named point, killed there or paused beyond its lease, by the seed; then the judgement.

    Every call is repeated at another gateway while nobody knows what became of the first.
    """
    mind = random.Random(seed)
    plan = [(point, mind.choice((signal.SIGKILL, signal.SIGSTOP)), mind.choice(("pay", "once"))) for point in POINTS]
    told: set[str] = set()
    async with Bank(seed, loses=0.0).open() as bank:

        async def start() -> Remote:
            return await Remote.start(lease.running.app_url, folder / "state", bank.url)

        witness = await start()  # the first puts the release in force

        async def trial(point: str, number: int, operation: str) -> None:
            remote, order = await start(), point.replace(" ", "-")
            remote.say(f"arm {point} {int(number)}")
            first = asyncio.create_task(remote.call(operation, order))
            await asyncio.wait((first,), timeout=PAUSED_S)
            repeated = await witness.call(operation, order)
            with contextlib.suppress(ProcessLookupError):
                remote.process.send_signal(signal.SIGCONT)
            answer = await first
            told.update(order for said in (answer, repeated) if said is not None and said["done"])
            await remote.end()

        try:
            await asyncio.gather(*(trial(*words) for words in plan))
        finally:
            await witness.end()
        found = await undertake(lease, folder, bank)
        return {"plan": [(point, number.name, operation) for point, number, operation in plan], **judged(bank, told), **found}


async def chaos(lease: Any, folder: Path, *, seconds: float, seed: int) -> dict[str, Any]:
    """The long run. Gives everything that the table shows."""
    async with Bank(seed, loses=0.02).open() as bank:
        storm = Storm(lease, folder, bank, seed)
        began_s = time.monotonic()
        await storm.rage(seconds)
        raged_s = time.monotonic() - began_s
        found = await undertake(lease, folder, bank)
        faults = dict(sorted((storm.faults + bank.faults).items()))
        return {
            "seed": seed,
            "minutes": round(raged_s / 60, 1),
            "calls": storm.calls,
            "gateways started": storm.starts,
            **judged(bank, storm.told),
            **found,
            "faults": faults,
            "answers": dict(storm.answers.most_common()),
        }


@contextlib.contextmanager
def durable() -> Any:
    """A Postgres of one's own with fsync, and a folder for everything else, which stays when something is thrown."""
    folder = Path(tempfile.mkdtemp(prefix="interlock-chaos-"))
    lease = embedded.acquire(folder)
    try:
        asyncio.run(migrate(lease.running.owner_url))
        yield lease, folder
    finally:
        lease.release()
    for made in (lease.layout.cluster, folder):
        shutil.rmtree(made, ignore_errors=True)
