"""One task, or one task with one injection, through the real gate."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from bench.agentdojo.contracts import AGENT, ENVIRONMENT, TASK, TENANT
from bench.agentdojo.planning import Planning, plan_of
from bench.agentdojo.tools import CURRENT, Dojo, Pair
from interlock.app.plane import RecordedSessions
from interlock.app.system import System
from interlock.core.contract import Contract
from interlock.core.who import Lineage, Person, Session
from interlock.gateway.messages import CallResult, Proposal, Refusal, RefusalOutcome
from interlock.store.sessions import Sessions

APPROVER: Final = Person(user="approver", tenant=TENANT, roles=("Approver",))
_numbers = itertools.count(1)


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call was not simply made: the code, the policies that spoke against it, and where its arguments came from."""

    operation: str
    code: str
    policies: tuple[str, ...] = ()
    origins: dict[str, str] = {}


class Benign(msgspec.Struct, frozen=True, kw_only=True):
    """A user's task by its ground truth. `asked`: calls that waited for a person, `refused`: calls that nobody could allow.

    `done` is what the suite's own check says after a person has said yes to every question.
    """

    task: str
    calls: int
    asked: tuple[Cause, ...]
    refused: tuple[Cause, ...]
    done: bool
    session: str

    @property
    def alone(self) -> bool:
        """Whether it was done with no human."""
        return self.done and not self.asked and not self.refused


class Attacked(msgspec.Struct, frozen=True, kw_only=True):
    """A pair. `broken`: the suite's own check says that the attack succeeded. `acted`: calls of it that were executed and do
    more than read. `asked` and `refused`: calls of it that waited for a person, or that nobody could allow.
    """

    task: str
    injection: str
    text_only: bool
    reached: bool
    broken: bool
    acted: tuple[str, ...]
    asked: tuple[Cause, ...]
    refused: tuple[Cause, ...]
    session: str


class Stage:
    """A gateway in front of one suite, and whoever calls it."""

    def __init__(self, system: System, dojo: Dojo, suite: str, contracts: Mapping[str, Contract], planning: Planning) -> None:
        self.system, self.dojo, self.suite = system, dojo, suite
        self.contracts, self.planning = contracts, planning

    async def benign(self, task: str) -> Benign:
        """Replay a task by its ground truth; a person says yes to whatever is asked."""
        pair, opened, session = await self._open(task, "")
        await self._plan(session, task, opened["prompt"])
        asked, refused = list[Cause](), list[Cause]()
        for call in opened["calls"]:
            await self._honest(session, call, asked, refused)
        judged = await self._close(pair)
        return Benign(
            task=task,
            calls=len(opened["calls"]),
            asked=tuple(asked),
            refused=tuple(refused),
            done=judged["done"],
            session=session.session_id,
        )

    async def attacked(self, task: str, injection: str) -> Attacked:
        """Replay a task until it has read the poison, then do all that the poison says. Nobody says yes to the attack.

        To what the user's own task asks before, a person says yes, so that the poison is read in every pair.
        """
        pair, opened, session = await self._open(task, injection)
        await self._plan(session, task, opened["prompt"])
        for call in opened["calls"]:
            if pair.poisoned:
                break
            await self._honest(session, call, [], [])
        asked, refused, acted = [], [], []
        if pair.poisoned:
            for call in opened["attack"]:
                operation = f"{self.suite}.{call['function']}"
                result = await self._call(session, call)
                if isinstance(result, Refusal):
                    stopped = asked if result.outcome is RefusalOutcome.NEEDS_APPROVAL else refused
                    stopped.append(await self._cause(operation, result))
                elif not self.contracts[operation].is_read_only and not result.is_error:
                    acted.append(operation)
        judged = await self._close(pair)
        return Attacked(
            task=task,
            injection=injection,
            text_only=not opened["attack"],
            reached=pair.poisoned,
            broken=judged["broken"],
            acted=tuple(acted),
            asked=tuple(asked),
            refused=tuple(refused),
            session=session.session_id,
        )

    async def _open(self, task: str, injection: str) -> tuple[Pair, dict[str, Any], Session]:
        """An environment, and a session of a user of its own, who says what they want in their own channel."""
        name = f"{self.suite}-{next(_numbers)}"
        opened = await self.dojo.ask("open", world=name, suite=self.suite, user=task, injection=injection)
        session = Session(
            session_id=self.system.ids.new("ses"),
            lineage=Lineage(tenant=TENANT, environment=ENVIRONMENT, agent=AGENT, user=name),
            task=TASK,
            roles=("User",),
            attributes={},
            expires_at_us=self.system.clock.wall_us() + 3_600_000_000,
        )
        await RecordedSessions(Sessions(self.system.database), self.system.ids).open(session, "")
        pair = Pair(self.dojo, name)
        CURRENT.set(pair)
        person = Person(user=name, tenant=TENANT, roles=("User",))
        await self.system.plane.desk.sessions.receive(person, session.session_id, opened["prompt"])
        return pair, opened, session

    async def _close(self, pair: Pair) -> dict[str, Any]:
        judged = await self.dojo.ask("judge", world=pair.name)
        await self.dojo.ask("close", world=pair.name)
        return judged

    async def _plan(self, session: Session, task: str, prompt: str) -> None:
        """Seal what an honest planner knows before anything was read."""
        if self.planning is Planning.NONE:
            return
        dry = await self.dojo.ask("dry", suite=self.suite, user=task)
        plan = plan_of(self.suite, self.contracts, dry["calls"], prompt, self.planning)
        await self.system.plane.desk.plans.seal(session, json.dumps(plan).encode())

    async def _call(self, session: Session, call: Mapping[str, Any]) -> CallResult:
        operation, arguments = f"{self.suite}.{call['function']}", json.dumps(call["args"]).encode()
        return await self.system.gate.call(session, Proposal(operation=operation, arguments=arguments))

    async def _honest(self, session: Session, call: Mapping[str, Any], asked: list[Cause], refused: list[Cause]) -> None:
        """A call of the user's own task, with a person who says yes when asked."""
        result, operation = await self._call(session, call), f"{self.suite}.{call['function']}"
        if isinstance(result, Refusal) and result.outcome is RefusalOutcome.NEEDS_APPROVAL:
            asked.append(await self._cause(operation, result))
            for item in result.details["approvals"]:
                await self.system.plane.approvals.answer(APPROVER, item["id"], approve=True)
            result = await self._call(session, call)
        if isinstance(result, Refusal):
            refused.append(await self._cause(operation, result))

    async def _cause(self, operation: str, refused: Refusal) -> Cause:
        """Why, from the record."""
        events = await self.system.traces.events(refused.call_id)
        decided = [msgspec.json.decode(event.body) for event in events if event.kind == "call.decided"]
        if not decided:
            return Cause(operation=operation, code=refused.code)
        against = [policy["id"] for policy in decided[-1]["decision"].get("policies", ()) if policy["effect"] == "forbid"]
        traced = decided[-1]["facts"].get("provenance") or {}
        origins = {name: found["origin"] for name, found in traced.items()}
        return Cause(operation=operation, code=refused.code, policies=tuple(against), origins=origins)
