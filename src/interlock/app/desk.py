"""Everything that people and agents ask of the record, wired."""

from __future__ import annotations

from interlock.app.administration import AdminGate
from interlock.app.agents import PeoplesAgents
from interlock.app.decisions import Decisions
from interlock.app.fresh import FreshStarts
from interlock.app.sessions import PeoplesSessions
from interlock.app.sight import Sights
from interlock.app.traces import PeoplesTraces
from interlock.core.ports import Clock, Ids
from interlock.gateway.contexts import Contexts
from interlock.gateway.governed import Governing
from interlock.gateway.histories import Histories
from interlock.gateway.plans import Plans
from interlock.store.controls import Controls
from interlock.store.database import Database
from interlock.store.labels import LabelRows
from interlock.store.records import Records
from interlock.store.sessions import Sessions
from interlock.store.traces import Traces


class Desk:
    """Sessions and what is said in them, decisions without calls, traces, agents."""

    def __init__(
        self,
        *,
        database: Database,
        governing: Governing,
        contexts: Contexts,
        plans: Plans,
        histories: Histories,
        admin: AdminGate,
        environment: str,
        clock: Clock,
        ids: Ids,
    ) -> None:
        records, sessions, traces = Records(database), Sessions(database), Traces(database)
        self.sights = Sights(admin, records, ids)
        self.sessions = PeoplesSessions(sessions, records, self.sights, contexts, ids)
        self.plans = plans
        self.traces = PeoplesTraces(traces, sessions, self.sights, admin, clock)
        self.agents = PeoplesAgents(traces, admin)
        self.fresh = FreshStarts(LabelRows(database), environment, ids)
        self.decisions = Decisions(
            governing=governing,
            controls=Controls(database),
            sessions=sessions,
            records=records,
            plans=plans,
            histories=histories,
            admin=admin,
            environment=environment,
            clock=clock,
            ids=ids,
        )
