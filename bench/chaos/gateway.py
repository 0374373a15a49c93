"""One gateway with the named points put into it, so that shipped code has none: `python -m bench.chaos.gateway URL STATE TOOL`.

`call ID OPERATION ORDER` on standard input makes a call; `arm POINT SIGNAL` sends this very process a signal when the next call
gets to that point.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.chaos.bank import files
from bench.sessions import opened
from interlock.app.system import Settings, running
from interlock.gateway.execution import Executor
from interlock.gateway.gate import Gate
from interlock.gateway.messages import Proposal, Returned
from interlock.policy.permit import Permit
from interlock.store.writer import Writer

POINTS: Final = ("decided", "claimed", "before first byte", "sent", "answered", "settling", "settled", "released")


def put_points(reach: Callable[[str], None]) -> None:
    """Put the named points into this process: `reach` is called at each."""

    def around(owner: Any, name: str, before: str, after: str) -> None:
        real: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def with_points(*words: Any, **more: Any) -> Any:
            if before:
                reach(before)
            answer = await real(*words, **more)
            if after:
                reach(after)
            return answer

        setattr(owner, name, with_points)

    around(Writer, "claim", "decided", "claimed")
    around(Executor, "_invoke", "", "answered")
    around(Writer, "settle", "settling", "settled")
    around(Gate, "_execute", "", "released")
    spend = Permit.spend

    def spend_with_points(self: Permit, **more: Any) -> None:
        reach("before first byte")
        spend(self, **more)
        reach("sent")

    setattr(Permit, "spend", spend_with_points)  # noqa: B010  # its type forbids it, rightly


async def gateway(url: str, state: Path, tool: str) -> None:
    """One gateway: `call ID OPERATION ORDER`, and `arm POINT SIGNAL` for the next call that gets there."""
    armed: list[tuple[str, int]] = []

    def reach(point: str) -> None:
        for name, number in list(armed):
            if name == point:
                armed.remove((name, number))
                os.kill(os.getpid(), number)

    put_points(reach)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    settings = Settings(state=state, database_url=url, environment="bench", release_files=files(tool))

    def tell(**what: Any) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    async with running(settings) as system:
        session = await opened(system, "ana")

        async def call(number: str, operation: str, order: str) -> None:
            proposal = Proposal(
                operation=f"bank.{operation}", arguments=json.dumps({"order": order}).encode(), idempotency_key=order
            )
            answer = await system.gate.call(session, proposal)
            done = isinstance(answer, Returned) or answer.code == "done_unseen"
            tell(id=number, done=done, code="" if isinstance(answer, Returned) else answer.code)

        tell(id="", process_id=system.process_id)
        calls = set()
        while line := (await lines.readline()).decode().split(maxsplit=1):
            words = line[1].strip()
            if line[0] == "arm":
                name, _, number = words.rpartition(" ")
                armed.append((name, int(number)))
            else:
                task = asyncio.create_task(call(*words.split()))
                calls.add(task)
                task.add_done_callback(calls.discard)


if __name__ == "__main__":
    uvloop.run(gateway(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
