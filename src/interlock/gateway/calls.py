"""The calls under way: whom they are carried for, who still waits, and what becomes of them when the process leaves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from interlock.core.ports import Clock
from interlock.gateway.limits import MAX_CALLS_IN_FLIGHT
from interlock.gateway.messages import CallResult
from interlock.gateway.refusals import refusal
from interlock.gateway.under_way import Call


def is_ended() -> bool:
    """Whether the task at hand itself was asked to end, and not something that it waits for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class Calls:
    """Every call has a task of its own, which outlives whoever asked for it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: dict[asyncio.Task[CallResult], str] = {}
        self._waiting: set[asyncio.Future[CallResult]] = set()
        self._unrecorded: deque[tuple[str, float]] = deque(maxlen=MAX_CALLS_IN_FLIGHT)
        self._answers_at_once = False

    def __len__(self) -> int:
        """How many there are."""
        return len(self._tasks)

    async def carry(
        self,
        call: Call,
        through: Coroutine[Any, Any, CallResult],
        ended: Callable[[asyncio.Task[CallResult]], object],
    ) -> CallResult:
        """The call's answer. When the caller goes, a call that is not yet claimed is dropped, and one that is goes on."""
        waiting: asyncio.Future[CallResult] = asyncio.get_running_loop().create_future()

        def over(task: asyncio.Task[CallResult]) -> None:
            del self._tasks[task]
            # INVARIANT: whatever becomes of what is told of the call, its caller is answered; so that comes first.
            if waiting.done():
                pass  # the caller has gone
            elif task.cancelled():
                waiting.cancel()
            elif (error := task.exception()) is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result(task.result())
            ended(task)

        # As `asyncio.shield`, in half of its steps.
        task = asyncio.create_task(through)
        self._tasks[task] = call.id
        task.add_done_callback(over)
        self._waiting.add(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            call.abandoned = True
            caller = asyncio.current_task()
            if not self._answers_at_once or caller is None or caller.cancelling():
                raise
            return refusal(call.id, "still_running")
        finally:
            self._waiting.discard(waiting)

    def not_recorded(self, call: Call) -> None:
        """Note a call whose outcome could not be recorded."""
        self._unrecorded.append((call.id, self._clock.monotonic_s()))

    def answer_now(self) -> None:
        """Tell everybody who still waits that their call is under way; what is claimed goes on and settles."""
        self._answers_at_once = True
        for waiting in list(self._waiting):
            waiting.cancel()

    def unsettled(self, since_s: float) -> tuple[str, ...]:
        """The calls that have not ended, and those that ended since then and could not be recorded; by their ids."""
        unrecorded = (call_id for call_id, at_s in self._unrecorded if at_s >= since_s)
        return tuple(dict.fromkeys((*self._tasks.values(), *unrecorded)))

    async def drain(self) -> None:
        """Wait until every call under way has ended; callers stop sending first."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
