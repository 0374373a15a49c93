"""One process of Interlock, wired: database, keys, release, gate, and the work that goes on in the background."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from interlock.app.answers import Answers
from interlock.app.breakers import BreakerKeeper
from interlock.app.chores import begin_chores
from interlock.app.containment import Containment
from interlock.app.desk import Desk
from interlock.app.detectors.shelf import Detectors
from interlock.app.doubts import PeoplesDoubts
from interlock.app.figures import ProcessFigures
from interlock.app.leases import LeaseKeeper
from interlock.app.leaving import LeaveRules, Leaving, drained
from interlock.app.logins import LoginDesk
from interlock.app.marking import KEEP_DAYS, MARK_KEY, Marking
from interlock.app.outside_logins import OutsideLogins
from interlock.app.pause import pause_guard
from interlock.app.plane import Plane
from interlock.app.restoring import PeoplesRestores
from interlock.app.risk import RiskWatch
from interlock.app.shelf import StoredReleases
from interlock.app.sources import Entropy, SystemClock, SystemIds, dice
from interlock.app.standings import LoadedStandings
from interlock.app.tools import Tools
from interlock.app.upstream_watch import UpstreamWatch
from interlock.app.ways_in import WaysIn, prepare_ways_in
from interlock.core.risk import RiskRules
from interlock.gateway.contexts import Contexts
from interlock.gateway.gate import Gate
from interlock.gateway.governed import Governing
from interlock.gateway.histories import Histories
from interlock.gateway.lease import Lease
from interlock.gateway.plans import Plans
from interlock.gateway.sealing import Seals
from interlock.gateway.spreading import Spreading
from interlock.gateway.stability import Stability
from interlock.identity.exchange import People
from interlock.identity.keys import KeyRing
from interlock.identity.login.directory import DirectoryFile
from interlock.identity.outside import Outside
from interlock.identity.refusals import RefusalCounter
from interlock.ledger.drafts import draft
from interlock.ledger.events import ClaimOrphaned
from interlock.ledger.heads import sign_heads
from interlock.policy.errors import UnusableReleaseError
from interlock.release.errors import ReleaseError
from interlock.risk.injection import InjectionRules
from interlock.store.answers import KeptAnswers
from interlock.store.approvals import Approvals
from interlock.store.breakers import BreakerRows
from interlock.store.budgets import Budgets
from interlock.store.context import ContextItems
from interlock.store.controls import Controls
from interlock.store.database import CLOSE_WITHIN_S, Database, open_database
from interlock.store.doubts import Doubts
from interlock.store.errors import StoreError
from interlock.store.history import PastCalls
from interlock.store.labels import LabelRows
from interlock.store.leases import LeaseLine, Leases
from interlock.store.live import LiveRows
from interlock.store.passwords import Password
from interlock.store.plans import PlanRows
from interlock.store.postures import Postures, ScopePostures
from interlock.store.processes import ClaimWatch, Processes
from interlock.store.releases import Proposals
from interlock.store.revocations import Revocations
from interlock.store.risk import RiskRows
from interlock.store.room import check_room
from interlock.store.sessions import Sessions
from interlock.store.tools import ToolRecords
from interlock.store.traces import RefusalCount, Traces
from interlock.store.writer import Writer
from interlock.telemetry.calls import CallTelemetry
from interlock.tools.directory import Connectors
from interlock.tools.python import PythonTools

_log = logging.getLogger(__name__)

HEADS_KEY: Final = "heads"
WITNESS: Final = "heads.jsonl"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one process is told at its start. `release_files` are put in force when none is; in development, when another is.

    `directory` is whom the built-in issuer logs in; without it, or when that issuer is not trusted, it logs in nobody.
    `mark` is the folder of marks, one in the state folder when not given.
    """

    state: Path
    database_url: str
    environment: str
    variables: Mapping[str, str] = {}
    release_files: Mapping[str, str] | None = None
    trust_dev_issuer: bool = True
    directory: Path | None = None
    public_url: str = ""
    mark: Path | None = None
    keep_marks_days: int = KEEP_DAYS
    leaving: LeaveRules = LeaveRules()
    database_password: Password | None = None


class ReleaseInForceError(Exception):
    """Outside development, a start does not replace the release that people have put in force."""


class System:
    """A running process. Made by `running`."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        python: PythonTools | None,
        connectors: Callable[[SystemClock], Connectors] | None = None,
    ) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.ids = SystemIds()
        self.leaving = Leaving(settings.leaving, self.clock)
        self.unsettled: tuple[str, ...] = ()
        self.process_id = self.ids.new("prc")
        self.keys = KeyRing(settings.state / "keys")
        self.database = database
        self.controls = Controls(database)
        self.approvals = Approvals(database)
        self.processes = Processes(database)
        self.budgets = Budgets(database)
        self.doubts = Doubts(database, environment=settings.environment, process_id=self.process_id)
        self.traces = Traces(database)
        self.refusals = RefusalCounter(self.clock)
        self.writer = Writer(database, process_id=self.process_id)
        self.watch = ClaimWatch(database, self.clock)
        self.lease = Lease(self.clock)
        self.guard = pause_guard(lambda: self.lease.until_s)
        self.leases = Leases(database)
        line = LeaseLine(database, self.process_id, lambda told: self.keeper.told(told))  # noqa: PLW0108  # made below
        self.keeper = LeaseKeeper(lease=self.lease, line=line, leases=self.leases, clock=self.clock)
        ours = partial(Connectors, environment=settings.environment, python=python)
        self.connectors = ours(clock=self.clock) if connectors is None else connectors(self.clock)
        self._shelf = StoredReleases(self.controls, settings.variables)
        self._sessions = Sessions(database)
        self._standings = LoadedStandings(self._sessions)
        self._breaker_rows = BreakerRows(database, settings.environment)
        self._tool_records = ToolRecords(database, settings.environment)
        self._keep_marks()
        self._know_sessions()
        self._open_gate()
        self._watch_tools()
        self.outside = Outside(environment=settings.environment, clock=self.clock)
        ways_in = prepare_ways_in(
            database,
            environment=settings.environment,
            keys=self.keys,
            trust_dev_issuer=settings.trust_dev_issuer,
            outside=self.outside,
            sessions=self._sessions,
            joined=self.spreading.joined,
            clock=self.clock,
            ids=self.ids,
        )
        self.plane = self._plane(ways_in)
        if settings.trust_dev_issuer and settings.directory is not None:
            self._log_in_here(ways_in, settings.directory)

    def _keep_marks(self) -> None:
        """Marks outside the database, by which one that was restored is noticed; claims and settlements go by them."""
        self.marking = Marking(
            self.database,
            self.writer,
            folder=self.settings.mark or self.settings.state / "mark",
            witness=self.settings.state / WITNESS,
            secrets=self.keys.all_private_bytes(MARK_KEY),
            process_id=self.process_id,
            environment=self.settings.environment,
            session_of=self._sessions.get,
            lease=self.lease,
            clock=self.clock,
            keep_days=self.settings.keep_marks_days,
        )
        self.desk = self.marking.desk

    def _know_sessions(self) -> None:
        """What is known of a session beside its row: its context, its plan, its past, and how worried to be about it."""
        self.detectors = Detectors()
        self._postures = Postures(self.database, self.marking.note_now)
        self.risk = RiskWatch(
            rows=RiskRows(self.database, self.settings.environment),
            postures=self._postures,
            rules=lambda: RiskRules() if self._shelf.latest is None else self._shelf.latest.risk,
            detectors=(InjectionRules(),),
            slow=self.detectors.of,
            clock=self.clock,
            ids=self.ids,
        )
        self.spreading = Spreading(LabelRows(self.database), self._standings, self.ids)
        self.contexts = Contexts(ContextItems(self.database), self.risk, self.spreading)
        self.governing = Governing(self._shelf, self.connectors)
        self.plans = Plans(PlanRows(self.database), self._standings, self.governing, self.ids)
        self.histories = Histories(PastCalls(self.database), self.clock)
        self.marking.on_restored = (self.contexts.forget, self.plans.forget, self.histories.forget)

    def _open_gate(self) -> None:
        """The one gate, and what measures it."""
        self.stability = Stability(clock=self.clock, dice=dice)
        self.telemetry = CallTelemetry(self.clock, Entropy())
        self.figures = ProcessFigures(
            self.database, self.settings.environment, self.telemetry, self._shelf, clock=self.clock, of=self
        )
        self.gate = Gate(
            desk=self.desk,
            doubts=self.doubts,
            session_of=self._sessions.get,
            standings=self._standings,
            settlements=self.watch,
            approvals=self.approvals,
            contexts=self.contexts,
            watch=self.risk,
            plans=self.plans,
            histories=self.histories,
            governing=self.governing,
            connectors=self.connectors,
            lease=self.lease,
            guard=self.guard,
            stability=self.stability,
            telemetry=self.telemetry,
            seals=Seals(self.keys.private_bytes("session")[1]),
            clock=self.clock,
            ids=self.ids,
        )

    def _watch_tools(self) -> None:
        """Tools that change what they offer, and tools that fail."""
        self.upstreams = UpstreamWatch(
            records=self._tool_records,
            controls=self.controls,
            governing=self.governing,
            connectors=self.connectors,
            gate=self.gate,
            ids=self.ids,
            process_id=self.process_id,
        )
        self.breakers = BreakerKeeper(
            stability=self.stability,
            rows=self._breaker_rows,
            controls=self.controls,
            environment=self.settings.environment,
            process_id=self.process_id,
            ids=self.ids,
        )

    def _plane(self, ways_in: WaysIn) -> Plane:
        """All that the server offers beside calls."""
        return Plane(
            tools=lambda admin: Tools(records=self._tool_records, watch=self.upstreams, admin=admin, ids=self.ids),
            controls=self.controls,
            answers=Answers(KeptAnswers(self.database), self.process_id),
            containment=Containment(controls=self.controls, leases=self.leases, clock=self.clock, noted=self.marking.note_now),
            leases=self.leases,
            desk=lambda admin: Desk(
                database=self.database,
                governing=self.governing,
                contexts=self.contexts,
                plans=self.plans,
                histories=self.histories,
                admin=admin,
                environment=self.settings.environment,
                clock=self.clock,
                ids=self.ids,
            ),
            outside_logins=lambda admin: OutsideLogins(
                store=ways_in.logins,
                outside=self.outside,
                tokens=ways_in.persons,
                keys=self.keys,
                admin=admin,
                refusals=self.refusals,
                environment=self.settings.environment,
                clock=self.clock,
                ids=self.ids,
            ),
            approvals=self.approvals,
            proposals=Proposals(self.database),
            postures=self._postures,
            live=LiveRows(self.database),
            scope_postures=ScopePostures(self.database, self.marking.note_now),
            processes=self.processes,
            sessions=self._sessions,
            shelf=self._shelf,
            keys=self.keys,
            tokens=ways_in.tokens,
            exchange=ways_in.exchange,
            handing_down=ways_in.handing_down,
            budgets=self.budgets,
            breakers=self._breaker_rows,
            doubts=lambda admin: PeoplesDoubts(self.doubts, self.desk, admin, self.ids),
            restores=lambda admin: PeoplesRestores(self.marking.restorations, admin, self.ids),
            environment=self.settings.environment,
            people=People(ways_in.proofs, self.outside, ways_in.persons),
            refusals=self.refusals,
            revocations=Revocations(self.database, self.settings.environment, self.marking.note_now),
            delegated=ways_in.delegated,
            public_url=self.settings.public_url,
            variables=self.settings.variables,
            clock=self.clock,
            ids=self.ids,
            load_now=self.heartbeat,
            holds_lease=self.lease.is_valid,
            room=partial(check_room, self.database),
            leaving=self.leaving,
            noted=self.marking.note_now,
        )

    def _log_in_here(self, ways_in: WaysIn, directory: Path) -> None:
        """The built-in issuer logs people in, those of the directory."""
        self.plane.doors.logs_in_here = True
        self.plane.logins = LoginDesk(
            store=ways_in.logins,
            sessions=self._sessions,
            directory=DirectoryFile(directory),
            keys=self.keys,
            proofs=ways_in.proofs,
            exchange=ways_in.exchange,
            admin=self.plane.admin,
            environment=self.settings.environment,
            clock=self.clock,
            ids=self.ids,
        )

    async def start(self) -> None:
        """Register, put the given release in force if it is not, and get it ready. Raises when the process cannot serve."""
        await self.marking.open()
        await self.processes.register(self.process_id, self.settings.environment)
        self.writer.start()
        self.risk.start()
        await self.keeper.start()
        files = self.settings.release_files
        if files is not None:
            from interlock.release.load import digest_of  # noqa: PLC0415  # keeps the parser out of processes that need none

            _, digest = await self.controls.epochs()
            if digest != digest_of(files):
                if digest and not self.settings.trust_dev_issuer:
                    raise ReleaseInForceError(
                        f"another release is in force ({digest}); start without --release, and put yours forward with "
                        "`interlock release propose`"
                    )
                await self.plane.releases.put_in_force(dict(files), by="interlock up")
        await self.heartbeat()
        await self.detectors.prepare(self.risk.rules())
        await self.upstreams.first_look()

    async def heartbeat(self) -> None:
        """Say that we are alive, with the release we are ready to decide by; orphaned claims become in doubt."""
        epochs, digest = await self.controls.epochs()
        loaded = 0
        if digest:
            try:
                await self.governing.in_force(digest, epochs.release)
                loaded = epochs.release
                await self._shelf.load(digest)  # whoever asked for another meanwhile has not made that the latest for long
            except (StoreError, ReleaseError, UnusableReleaseError) as error:
                # Alive, and unable to decide: calls are refused one by one, and what was claimed before still settles.
                about = {"event": "release.unusable", "release": digest}
                _log.error("the release in force cannot be loaded: %s", error, extra=about)  # it says it all
            except Exception:  # noqa: BLE001  # whatever breaks there, others must not take our claims for nobody's
                about = {"event": "release.unusable", "release": digest}
                _log.exception("the release in force cannot be loaded", extra=about)
        await self.processes.heartbeat(self.process_id, loaded)
        orphaned = draft(ClaimOrphaned(reason="its process is gone or its time is over"), ids=self.ids)
        for call_id in await self.processes.orphan(orphaned):
            _log.warning("in doubt: %s", call_id, extra={"event": "call.in_doubt", "call_id": call_id})

    async def reconcile(self) -> int:
        """Look into the calls in doubt that are due; gives how many. Without a release in force nobody knows how."""
        epochs, digest = await self.controls.epochs()
        governed = await self.governing.in_force(digest, epochs.release) if digest else None
        return await self.gate.reconciler.round(governed)

    async def flush_refusals(self) -> None:
        """Store what was counted; what cannot be stored is counted again."""
        counts = self.refusals.take()
        if not counts:
            return
        environment = self.settings.environment
        rows = [
            RefusalCount(minute_s=item.minute_s, environment=environment, code=item.code, hint=item.hint, count=item.count)
            for item in counts
        ]
        try:
            await self.traces.count_refusals(rows)
        except StoreError:
            self.refusals.give_back(counts)

    async def sign_heads(self) -> int:
        """Sign the heads of the chains that moved; gives how many.

        Raises `StoreUnavailableError`, and `OSError` when it is the witness that could not be written.
        """
        key_id, private = self.keys.private_bytes(HEADS_KEY)
        return await sign_heads(self.database.pool(), key_id, private, self.settings.state / WITNESS, self.clock.wall_us())

    async def leave(self, chores: Sequence[asyncio.Task[None]]) -> None:
        """Finish what is under way, settle, sign, leave; within the time that the settings give.

        Until the last call has settled the chores go on: without heartbeats others would take its claim for nobody's. What is
        then still not settled is in `unsettled`.
        """
        self.leaving.begin(at_once=True)
        try:
            async with asyncio.timeout(self.leaving.left_s()):
                self.unsettled = await drained(self.gate.calls, self.leaving)
                with contextlib.suppress(StoreError):  # what it does not settle now is in doubt
                    await self.gate.given_up.round()
                for chore in chores:
                    chore.cancel()
                await asyncio.gather(*chores, return_exceptions=True)
                await self.stop()
        except TimeoutError:
            about = {"event": "process.left_open"}
            _log.error("not all was put in order in the time there was to leave; is the database there?", extra=about)
        finally:
            for chore in chores:
                chore.cancel()
            self.unsettled = tuple(dict.fromkeys((*self.unsettled, *self.gate.calls.unsettled(self.leaving.began_s()))))

    async def stop(self) -> None:
        """Let go of everything, settle what is queued, sign, and say goodbye."""
        self.lease.surrender()
        await self.keeper.stop()
        await self.plane.live.close()
        await self.risk.close()
        await self.detectors.close()
        await self.watch.close()
        await self.writer.close()
        self.marking.close()
        await self.connectors.aclose()
        if self.guard is not None:
            self.guard.close()
        for last in (self.flush_refusals, self.sign_heads, partial(self.processes.leave, self.process_id)):
            try:
                await last()
            except (StoreError, OSError) as error:
                _log.warning("on leaving: %s", error, extra={"event": "process.left_open"})


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    *,
    python: PythonTools | None = None,
    connectors: Callable[[SystemClock], Connectors] | None = None,
) -> AsyncIterator[System]:
    """A process from start to stop. Raises `StoreError`, `ReleaseError` or `IdentityError` when it cannot start.

    `connectors` makes what stands for the tools, in a dry world.
    """
    close_s = CLOSE_WITHIN_S
    database = await open_database(settings.database_url, password=settings.database_password)
    try:
        system = System(settings, database, python, connectors)
        try:
            await system.start()
        except BaseException:
            await system.keeper.stop()  # else its thread would go on
            raise
        chores = begin_chores(system)
        try:
            yield system
        finally:
            await system.leave(chores)
            close_s = max(1.0, system.leaving.left_s())
    finally:
        await database.close(close_s)
