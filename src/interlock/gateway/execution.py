"""Between claim and settle: the only place where a permit is spent and a tool is called."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec

from interlock.core.claim import NotSettled, Settled, SettleRequest
from interlock.core.context import Item
from interlock.core.event import EventDraft
from interlock.core.ports import Clock, Ids
from interlock.core.trace_context import TRACEPARENT
from interlock.gateway.calls import is_ended
from interlock.gateway.lease import Lease, NotStartedError
from interlock.gateway.ports import ClaimDesk, DoubtDesk
from interlock.gateway.released import RawOutput, Released
from interlock.gateway.telemetry import NOT_TRACED, followed, passed
from interlock.gateway.upshot import Filter, Upshot, upshot
from interlock.gateway.work import Work
from interlock.ledger.drafts import draft
from interlock.ledger.events import ClaimConflict
from interlock.policy.errors import PermitError
from interlock.tools.directory import Connectors, connection_key
from interlock.tools.port import Fence, Invocation, PauseGuard, ToolAnswer, ToolFailure, ToolResult

_log = logging.getLogger(__name__)

TakenUp: TypeAlias = Callable[[Released], Awaitable[Item | None]]
MoreEvents: TypeAlias = Callable[[RawOutput | None], list[EventDraft]]


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a claimed call ended: the state that was settled, and what may be released. `code` is empty on success.

    `answered` is whether the tool answered; None when this says nothing about the tool. `unsent`: it never reached it.
    """

    state: str
    released: Released
    code: str = ""
    settled: Settled | NotSettled
    answered: bool | None = None
    unsent: bool = False


class Executor:
    """Spends the permit, calls the tool, settles. Nothing is returned before the settlement has committed."""

    def __init__(
        self,
        *,
        desk: ClaimDesk,
        doubts: DoubtDesk,
        lease: Lease,
        connectors: Connectors,
        guard: PauseGuard | None,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._desk = desk
        self._doubts = doubts
        self._lease = lease
        self._guard = guard
        self._connectors = connectors
        self._clock = clock
        self._ids = ids

    async def run(
        self, work: Work, filtered: Filter, more_events: MoreEvents | None = None, taken_up: TakenUp | None = None
    ) -> Ending:
        """Make the call and settle it. Raises `StoreUnavailableError` when the outcome could not be recorded.

        `filtered` turns the raw output into what may be released; `more_events` may add events that depend on the output;
        `taken_up` tells what enters the agent's context, in the transaction that settles. Nothing is released without both.
        """
        began_s = self._clock.monotonic_s()
        result, stopped = await self._invoke(work)
        took_us = int((self._clock.monotonic_s() - began_s) * 1e6)
        found = upshot(work, result, stopped, filtered)
        body = found.settled(work, took_us=took_us, began_s=began_s)
        events = [draft(body, ids=self._ids, call_id=work.call_id)]
        if more_events is not None:
            events += more_events(found.raw)
        item, not_taken_up = await _taken_up(taken_up, found.released)
        settled = await self._desk.settle(
            SettleRequest(
                claim_id=work.claimed.claim_id,
                session_id=work.session.session_id,
                lineage_id=work.session.lineage.id,
                attempt=work.claimed.attempt,
                state=found.state,
                outcome=found.outcome,
                release_key=found.unsent,
                spent=dict.fromkeys(work.timed, -(-took_us // 1000)),
                labels=work.labels,
                events=tuple(events),
                enters=item,
                work=work.of_work,
            )
        )
        if not_taken_up is not None:
            raise not_taken_up
        if isinstance(settled, NotSettled):
            await self._late(work, found, settled.claim_state)
        return Ending(
            state=found.state,
            released=found.released,
            code=found.told,
            settled=settled,
            answered=found.answered,
            unsent=found.unsent,
        )

    async def _late(self, work: Work, found: Upshot, stands: str) -> None:
        """Somebody else has spoken about the claim since. What agrees with it, or says nothing, is quiet."""
        if found.state in {"in_doubt", stands}:
            return
        body = ClaimConflict(
            claim_id=work.claimed.claim_id,
            operation=work.contract.operation,
            attempt=work.claimed.attempt,
            stands=stands,
            said=found.state,
            detail=found.detail[:500],
        )
        what = f"attempt {body.attempt} said {found.state} when it stood as {stands}"
        about = {"event": "claim.conflict", "claim_id": body.claim_id, "operation": body.operation, "call_id": work.call_id}
        _log.error("two answers about one claim: %s", what, extra=about)
        await self._doubts.conflict(body.claim_id, what, draft(body, ids=self._ids, call_id=work.call_id))

    async def _invoke(self, work: Work) -> tuple[ToolResult, NotStartedError | None]:
        """The tool's answer; when the call was stopped before its first byte, also what stopped it."""
        if not work.calls_the_tool:
            return self._without_the_tool(work)
        connector = self._connectors.get(work.contract.tool)
        if connector is None:
            return ToolFailure(sent=False, code="unreachable", detail="no source for this tool in this environment"), None
        tool = self._connectors.tool(work.contract.tool)
        stopped: list[NotStartedError] = []
        lease, permit, task, cancelled = self._lease, work.permit, asyncio.current_task(), False

        def spend() -> None:
            try:
                lease.check(permit)
                try:
                    permit.spend(call_hash=work.call_hash, now_monotonic_s=self._clock.monotonic_s())
                except PermitError:
                    lease.check(permit)  # revoked by the keeper's thread, for what it has learnt since the line above
                    raise
            except NotStartedError as error:
                stopped.append(error)
                raise
            lease.drop(permit)

        def stop() -> None:
            # The permit was still unspent and is used up by now: whatever the connector waits for, it is not the tool.
            nonlocal cancelled
            cancelled = True
            stopped.append(NotStartedError("halted", "stopped before the first byte"))
            if task is not None:
                task.cancel()

        path = followed()
        sent = None if path is None else path.handing_on()
        invocation = Invocation(
            key=connection_key(tool, work.session),
            upstream_name=work.contract.upstream_name,
            arguments=work.arguments,
            timeout_ms=work.contract.timeout_ms,
            before_first_byte=spend,
            pause_guard=lease.section(self._guard),
            fence=lambda: Fence(epoch=lease.epoch, deadline_ms=self._clock.wall_us() // 1000 + int(lease.remaining_s() * 1000)),
            idempotency_key="" if work.contract.is_read_only else work.claimed.claim_id,
            trace_meta=NOT_TRACED if sent is None else {TRACEPARENT: sent.text},
            kind=work.contract.kind,
            completes=work.contract.completes,
            line=work.line,
            more=work.more,
        )
        result: ToolResult
        began_s = self._clock.monotonic_s()
        try:
            lease.hold(permit, stop)
            result = await connector.invoke(invocation)
        except NotStartedError as error:
            stopped.append(error)
            result = ToolFailure(sent=False, code="cancelled", detail=str(error))
        except asyncio.CancelledError:
            if not cancelled and is_ended():
                raise
            if cancelled:
                result = ToolFailure(sent=False, code="cancelled", detail="stopped before the first byte")
            else:
                result = ToolFailure(sent=not permit.revoked, code="protocol", detail="connector defect: CancelledError")
        except Exception as error:  # noqa: BLE001  # a connector's defect must not leave a claim open or look like success
            result = ToolFailure(sent=not permit.revoked, code="protocol", detail=f"connector defect: {type(error).__name__}")
        finally:
            lease.drop(permit)
        now_s, operation = self._clock.monotonic_s(), work.contract.operation
        passed("invoke", began_s, now_s, operation=operation, sent=sent, failed=_failed(result), kind=work.contract.kind)
        if cancelled and task is not None:
            task.uncancel()
        unsent = isinstance(result, ToolFailure) and not result.sent
        return result, stopped[0] if stopped and unsent else None

    def _without_the_tool(self, work: Work) -> tuple[ToolResult, NotStartedError | None]:
        """An answer of before leaves only where the call itself might start: with a lease, and stopped by nobody."""
        try:
            self._lease.check(work.permit)
            work.permit.spend(call_hash=work.call_hash, now_monotonic_s=self._clock.monotonic_s())
        except NotStartedError as error:
            return ToolFailure(sent=False, code="cancelled", detail=str(error)), error
        except Exception as error:  # noqa: BLE001  # whatever a permit does not allow is not released
            return ToolFailure(sent=False, code="refused", detail=type(error).__name__), None
        if work.earlier is None:
            return ToolFailure(sent=False, code="refused", detail="the tool is unstable"), None
        return ToolAnswer(), None


async def _taken_up(take: TakenUp | None, released: Released) -> tuple[Item | None, Exception | None]:
    """What enters the context, or what kept it from being told: the call has happened and is settled nevertheless."""
    if take is None:
        return None, None
    try:
        return await take(released), None
    except Exception as error:  # noqa: BLE001  # raised again when the call is settled, so that nothing of it is released
        return None, error


def _failed(result: ToolResult) -> str:
    """What kind of failure the tool's answer is, for telemetry; empty when it is none."""
    if isinstance(result, ToolFailure):
        return result.code
    return "tool_error" if result.is_error else ""
