"""Gathers what one decision depends on, and decides."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from interlock.core.canonical import JsonValue
from interlock.core.decision import Decision, Deny, Facts, ResourceFacts, Traced
from interlock.core.plan import NONE_PLANNED, Planned
from interlock.core.ports import Clock
from interlock.core.terms import Question
from interlock.gateway.contexts import Contexts
from interlock.gateway.governed import Governed
from interlock.gateway.histories import Histories, of_work
from interlock.gateway.internal import scopes_of
from interlock.gateway.lease import Lease
from interlock.gateway.plans import Plans, as_planned
from interlock.gateway.ports import Standing
from interlock.gateway.reading import ReadProposal
from interlock.gateway.refusals import StoppedError
from interlock.gateway.resources import Resources
from interlock.gateway.telemetry import passed
from interlock.gateway.under_way import Call


class Deciding:
    """Facts in their order: where things stand, what happened before, the plan, where the arguments came from, the object."""

    def __init__(
        self,
        *,
        lease: Lease,
        contexts: Contexts,
        plans: Plans,
        histories: Histories,
        resources: Resources,
        clock: Clock,
    ) -> None:
        self._lease = lease
        self._contexts = contexts
        self._plans = plans
        self._histories = histories
        self._resources = resources
        self._clock = clock

    async def on(self, call: Call, governed: Governed, read: ReadProposal, standing: Standing) -> tuple[Facts, Decision]:
        """The facts of one call and the decision on them. Raises `StoreUnavailableError`, and `StoppedError` for its object.

        Nothing is written in a database that was restored, be the same call known to it or not: `StoppedError` too.
        """
        began_s = self._clock.monotonic_s()
        try:
            return await self._on(call, governed, read, standing)
        finally:
            passed("decide", began_s, self._clock.monotonic_s())

    async def _on(self, call: Call, governed: Governed, read: ReadProposal, standing: Standing) -> tuple[Facts, Decision]:
        contract = read.contract
        if self._lease.is_restored and not contract.is_read_only:
            raise StoppedError("restored")
        state = self._lease.in_force(standing.state, scopes_of(call.session, contract))
        recalled = await self._histories.of(call.session, governed, read, standing.state)
        call.history_version = recalled.version
        call.work = of_work(call.session, governed, contract, recalled.work_version)
        plan: Planned | None = None
        as_it_says = NONE_PLANNED
        if governed.wants_plan(contract):
            plan, as_it_says = await self._plans.of(
                call.session, standing.state, contract, read.arguments, self._contexts.holding
            )
        call.contrary = plan is not None and plan.sealed and not plan.agrees
        traced: Mapping[str, Traced] | None = None
        if governed.wants_provenance(contract):
            traced = await self._contexts.trace(call.session, contract, read.arguments, tainted=standing.state.tainted)
            traced = as_planned(traced, as_it_says)

        sent: JsonValue = read.arguments if read.answers is None else [read.arguments, dict(read.answers)]
        canaries = governed.canaries.seen(sent)

        def facts_with(resource: ResourceFacts | None) -> Facts:
            facts = governed.facts(
                call.session,
                contract,
                read.raw,
                read.call_hash,
                read.entities,
                state,
                resource,
                traced,
                plan,
                recalled.facts,
                self._clock.wall_us(),
            )
            return msgspec.structs.replace(facts, canaries=canaries) if canaries else facts

        if contract.resource is None:
            facts = facts_with(None)
            return facts, governed.engine.decide(facts)
        # Objects are read only for agents that may run the operation at all, and never for a call that carries a planted
        # secret, so that a refusal reaches no tool.
        unread = facts_with(ResourceFacts(type=contract.resource.type, id=""))
        if canaries or not governed.engine.admits(unread):
            first = governed.engine.decide(unread)
            if isinstance(first, Deny) and (canaries or first.question in {Question.WHICH_TOOL, Question.MAY_THE_AGENT}):
                return unread, first
        resource = await self._resources.of(
            call.session,
            contract,
            governed.release.contracts,
            read.arguments,
            call.id,
            governed.release.digest,
            governed.release.budgets,
        )
        facts = facts_with(resource)
        return facts, governed.engine.decide(facts)
