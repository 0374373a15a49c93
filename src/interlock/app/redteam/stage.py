"""Plays scripts in a dry world, through the one gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

import msgspec

from interlock.app.plane import RecordedSessions
from interlock.app.redteam.dry import World
from interlock.app.redteam.verdicts import Verdicts
from interlock.app.system import System
from interlock.core.canonical import JsonValue
from interlock.core.who import AttributeValue, Lineage, Person, Session
from interlock.gateway.messages import CallResult, Proposal, Refusal
from interlock.redteam.model import Attempt, Finding, Outcome, Principal, worst
from interlock.redteam.principals import VICTIM
from interlock.redteam.scripts import Attack, Claim, NextSession, Read, Say, Script, Try
from interlock.release.model import Release
from interlock.store.sessions import Sessions

HOUR_US: Final = 3_600_000_000


class Stage:
    """One dry process. Every attempt is of a lineage of its own, so that none can spoil another."""

    def __init__(self, system: System, world: World, verdicts: Verdicts, release: Release) -> None:
        self.system = system
        self.release = release
        self.world = world
        self.verdicts = verdicts
        self._users = 0
        self._sessions = RecordedSessions(Sessions(system.database), system.ids)

    async def play(self, attack: Attack) -> Finding:
        """Try every script of an attack."""
        attempts = tuple([attempt for script in attack.scripts for attempt in await self._script(attack, script)])
        return finding(attack, attempts)

    def user(self) -> str:
        """A user whom nobody has spoken of yet."""
        self._users += 1
        return f"redteam-{self._users:04d}"

    async def session(self, principal: Principal, user: str, roles: tuple[str, ...] | None = None) -> Session:
        """A session as the token exchange would open it."""
        session = Session(
            session_id=self.system.ids.new("ses"),
            lineage=Lineage(tenant=principal.tenant, environment=principal.environment, agent=principal.agent, user=user),
            task=principal.task,
            roles=principal.roles if roles is None else roles,
            attributes=principal.attributes,
            expires_at_us=self.system.clock.wall_us() + HOUR_US,
        )
        await self._sessions.open(session, (await self.system.controls.epochs())[1])
        return session

    async def say(self, session: Session, text: str) -> None:
        """The session's user says something by their own channel."""
        person = Person(user=session.lineage.user, tenant=session.lineage.tenant, roles=session.roles)
        await self.system.plane.desk.sessions.receive(person, session.session_id, text)

    async def call(
        self,
        session: Session,
        operation: str,
        arguments: Mapping[str, JsonValue],
        resource: Mapping[str, AttributeValue] | None,
        idempotency_key: str = "",
    ) -> tuple[CallResult, bytes]:
        """One call through the gate, with the object as it is to be found."""
        user = session.lineage.user
        self.world.asked = operation
        self.world.object = None if resource is None else {
            name: user if value == VICTIM else value for name, value in resource.items()
        }  # fmt: skip
        raw = msgspec.json.encode(arguments)
        return await self.system.gate.call(
            session, Proposal(operation=operation, arguments=raw, idempotency_key=idempotency_key)
        ), raw

    async def attempt(
        self, name: str, session: Session, operation: str, arguments: Mapping[str, JsonValue],
        resource: Mapping[str, AttributeValue] | None, idempotency_key: str = "",
    ) -> Attempt:  # fmt: skip
        """One call, judged."""
        result, raw = await self.call(session, operation, arguments, resource, idempotency_key=idempotency_key)
        return await self.judged(name, operation, raw, result)

    async def judged(self, name: str, operation: str, raw: bytes, result: CallResult) -> Attempt:
        """What a call's result means for the attack."""
        events = await self.system.traces.events(result.call_id)
        return self.verdicts.of(name, operation, raw, result, events)

    async def _script(self, attack: Attack, script: Script) -> list[Attempt]:
        """The attempts of a script that count: the worst of its tries, or the setup that failed."""
        user = self.user()
        session = await self.session(attack.principal, user, script.roles)
        tried: list[Attempt] = []
        for step in script.steps:
            match step:
                case Say(text=text):
                    await self.say(session, text)
                case Claim(text=text):
                    await self.system.plane.desk.sessions.hear(session, session.session_id, text)
                case NextSession():
                    session = await self.session(attack.principal, user, script.roles)
                case Read():
                    failed = await self._read(session, script, step)
                    if failed is not None:
                        return [failed]
                case Try():
                    tried.append(await self.attempt(script.name, session, step.operation, step.arguments, step.resource))
                case _:
                    assert_never(step)
        return [_summed(script, tried)]

    async def _read(self, session: Session, script: Script, step: Read) -> Attempt | None:
        """The step that brings hostile text in. When it is stopped the attack has ended there."""
        self.world.answers[step.operation] = (step.text, step.structured)
        result, raw = await self.call(session, step.operation, step.arguments, step.resource)
        if not isinstance(result, Refusal):
            return None
        return await self.judged(f"{script.name} (at {step.operation})", step.operation, raw, result)


def _summed(script: Script, tried: list[Attempt]) -> Attempt:
    """Several tries as one: open when more ran than are harmless."""
    ran = [attempt for attempt in tried if attempt.outcome is Outcome.OPEN]
    if len(tried) == 1:
        return tried[0]
    if len(ran) > script.harmless:
        return msgspec.structs.replace(ran[-1], detail=f"{len(ran)} of {len(tried)} ran")
    others = tuple(attempt for attempt in tried if attempt.outcome is not Outcome.OPEN)
    outcome = worst(others)
    told = next((attempt for attempt in others if attempt.outcome is outcome), tried[-1])
    return msgspec.structs.replace(told, detail=f"{len(ran)} of {len(tried)} ran; {told.detail}".removesuffix("; "))


def finding(attack: Attack, attempts: tuple[Attempt, ...]) -> Finding:
    """What became of an attack."""
    outcome = worst(attempts)
    return Finding(
        id=attack.id,
        family=attack.family,
        risk=attack.risk,
        title=attack.title,
        story=attack.story,
        agent=attack.principal.agent,
        environment=attack.principal.environment,
        operation=attack.operation,
        outcome=outcome,
        attempts=attempts,
        advice=attack.advice if outcome is Outcome.OPEN else "",
        note=attack.note,
    )
