"""The gate under everything that may happen to it, in any order, against a small model of what must hold.

Two gateways on one real database. Sessions of two users call; calls are repeated, at both gateways at once, with keys and
without; gateways crash between claim and settlement; connections are cut; scopes are stopped and let go on; releases are
put in force and taken back; people approve, deny and withdraw; postures are raised; work is handed on to another agent, and
sessions end with all below them; the tool says more than can be kept. The model knows no policy: it knows what was executed
and what everybody was told.

INVARIANT, after every step: no effect happens twice for one key; nothing starts in a scope after its kill has answered;
nobody is told `none` of what was executed, nor `done` of what was not; what needed a person had one; no posture is lowered
by anything but a person; all the work of a session together is no more than its budget. INVARIANT, at the end: each execution has its claim, each claim its event and its end, and the
ledger verifies.
"""

import asyncio
import contextlib
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from interlock.app.administration import NotPermittedError
from interlock.app.postures import PostureConflictError
from interlock.app.releases import ReleaseConflictError
from interlock.approvals.errors import ApprovalError
from interlock.core.terms import Posture
from interlock.core.who import Person
from interlock.gateway.messages import Effected, Refusal, Returned
from interlock.store.errors import StoreUnavailableError
from tests.fuzz.till import ATTEMPT, CAPPED, OPEN, TREE_LIMIT
from tests.fuzz.world import tried
from tests.support.patience import until
from tests.support.shop import OPERATOR

USERS = ("ana", "ben")
LEADS = ("lea", "ana")
SCOPES = ("fleet", "tool:shop", "agent:bot", "tenant:acme", "operation:shop.pay", "operation:shop.note")
RELEASES = {"as it was": OPEN, "capped": CAPPED}
FEW = 12
"""Calls before anybody worries: a lineage that only reads has little left to get wrong."""
ORDER = list(Posture)
WRITES = ("pay", "note", "hurried", "refund")
ONCE = ("pay", "refund")
AMOUNTS = ("20.00", "70.00")
EITHER = st.sampled_from("ab")
FATES = ("", "", "", "", "dies before", "dies after", "cut after", "says too much")


def who_is(session):
    """One agent acting for one user: what keys are known to."""
    agent = session.lineage.agent
    return session.lineage.user if agent == "bot" else f"{session.lineage.user} by {agent}"


class GateMachine(RuleBasedStateMachine):
    """Subclass it with a `world`."""

    world = None
    sessions = Bundle("sessions")
    made = Bundle("made")

    def __init__(self):
        super().__init__()
        self.run = self.world.run
        self.run(self.world.as_new())
        self.till = self.world.till
        self.first = len(self.till.executed)
        self.told, self.granted, self.worst, self.roots = {}, Counter(), {}, {}
        # What preconditions look at follows from the steps alone, whatever became of them.
        self.stops, self.calls = [], 0

    def named(self, user):
        """People of this example alone, so that examples do not meet each other's calls."""
        return f"{user}-{self.world.examples}"

    @property
    def executed(self):
        return self.till.executed[self.first :]

    def teardown(self):
        self.run(self.world.judge())

    # -- what happens ----------------------------------------------------------------------------------------------------

    @initialize(target=sessions)
    def first_session(self):
        return self.opened("ana", "a")

    @rule(target=sessions, user=st.sampled_from(USERS), at=EITHER)
    def session(self, user, at):
        return self.opened(user, at)

    @rule(target=sessions, above=sessions, at=EITHER)
    def handed_down(self, above, at):
        """Work goes on in a session of another agent below; where none may be opened, in the one above."""
        found = []

        async def opening():
            found.append(await self.world.below(at, above))

        return found[0] if self.run(tried(opening())) and found[0] is not None else above

    @precondition(lambda self: self.calls > FEW)
    @rule(session=sessions, at=EITHER)
    def session_ends(self, session, at):
        async def ending():
            database = (await self.world.alive(at)).system.database
            await database.rows("revoke_session", session.session_id)
            self.world.ended.add(session.session_id)

        self.run(tried(ending()))

    def opened(self, user, at):
        found = []

        async def opening():
            found.append(await (await self.world.alive(at)).session(self.named(user)))

        self.run(until(lambda: tried(opening())))
        return found[-1]

    @rule(
        target=made,
        session=sessions,
        at=st.sampled_from(("a", "b", "ab")),
        what=st.sampled_from((*WRITES, "stock")),
        order=st.sampled_from(("A1", "B1", "C1")),
        amount=st.sampled_from(AMOUNTS),
        key=st.sampled_from(("", "", "k1", "k2")),
        befalls=st.sampled_from(FATES),
    )
    def call(self, session, at, what, order, amount, key, befalls):
        arguments = {
            "pay": {"order_id": order, "amount": amount},
            "refund": {"order_id": "A1", "amount": amount, "note": order},
            "note": {"text": order},
            "hurried": {"text": order},
            "stock": {"item": order},
        }[what]
        self.run(self.calling(session, at, what, arguments, key, befalls))
        return session, what, arguments, key

    @rule(
        session=sessions, at=st.sampled_from(("a", "b", "ab")), amount=st.sampled_from(AMOUNTS), befalls=st.sampled_from(FATES)
    )
    def pay(self, session, at, amount, befalls):
        self.run(self.calling(session, at, "pay", {"order_id": "A1", "amount": amount}, "", befalls))

    @rule(session=sessions, at=st.sampled_from(("a", "b", "ab")), lead=st.sampled_from(LEADS), befalls=st.sampled_from(FATES))
    def refund_with_a_lead(self, session, at, lead, befalls):
        """Asked for, answered, and asked for again."""
        given = {"order_id": "A1", "amount": "70.00", "note": "Z1"}
        self.run(self.calling(session, at, "refund", given, "", ""))
        self.answer_all(lead, "approve", "a")
        self.run(self.calling(session, at, "refund", given, "", befalls))

    @rule(call=made, at=st.sampled_from(("a", "b", "ab")))
    def again(self, call, at):
        session, what, arguments, key = call
        self.run(self.calling(session, at, what, arguments, key, ""))

    @rule(call=made, at=st.sampled_from(("a", "b", "ab")))
    def on_purpose(self, call, at):
        """Once more on purpose: a new call, which is itself done once."""
        session, what, arguments, _ = call
        of = next(
            (
                answer.call_id
                for who, name, given, answer in self.told.values()
                if (who, name, given) == (who_is(session), what, arguments)
            ),
            "",
        )
        self.run(self.calling(session, at, what, arguments, "", "", of))

    async def calling(self, session, at, what, arguments, key, befalls, repeat_of=""):
        self.calls += len(at)
        shops = [await self.world.alive(name) for name in at]
        started = []
        for name, shop in zip(at, shops, strict=True):
            attempt = self.next_attempt()
            if befalls and name == at[0]:
                self.till.befalls[attempt] = self.fate(befalls, name)
            started.append(asyncio.ensure_future(self.attempt(attempt, shop, session, what, arguments, key, repeat_of)))
        await asyncio.gather(*started)

    def next_attempt(self):
        self.world.attempts += 1
        return self.world.attempts

    async def attempt(self, attempt, shop, session, what, arguments, key, repeat_of=""):
        ATTEMPT.set((attempt, who_is(session), key, repeat_of))
        chain = (session.session_id, *(parent.session_id for parent in session.parents))
        # Only what had ended before this attempt began must not act for it.
        self.world.chains[attempt] = tuple(name for name in chain if name in self.world.ended)
        self.roots[attempt] = session.root
        answer = await shop.call(session, what, key=key, repeat_of=repeat_of, **arguments)
        self.till.befalls.pop(attempt, None)
        self.told[attempt] = (who_is(session), what, arguments, answer)

    def fate(self, befalls, name):
        gateway = self.world.gateways[name]
        if befalls == "cut after":
            return None, self.world.cut
        if befalls == "says too much":

            async def says():
                return self.till.says_too_much()

            return None, says

        async def dies():
            await gateway.die(self.world.sql)

        return (dies, None) if befalls == "dies before" else (None, dies)

    @rule()
    def cut(self):
        self.run(self.world.cut())

    @rule(at=EITHER)
    def crash(self, at):
        async def crashing():
            await self.world.alive(at)
            await self.world.gateways[at].die(self.world.sql)

        self.run(crashing())

    @precondition(lambda self: not self.stops)
    @rule(scope=st.sampled_from(SCOPES), at=EITHER)
    def kill(self, scope, at):
        self.stops.append(scope)

        async def killing():
            plane = await self.world.plane(at)
            with contextlib.suppress(StoreUnavailableError):
                await plane.kill(OPERATOR, scope, "the machine says so")
                self.world.halted.add(scope)

        self.run(killing())

    @precondition(lambda self: not self.stops)
    @rule(at=EITHER, session=sessions, scope=st.sampled_from(SCOPES))
    def kill_under_way(self, at, session, scope):
        """A kill among calls: some are claimed before it, and none begins after its answer."""
        self.stops.append(scope)

        async def racing():
            shops = [await self.world.alive(name) for name in "ab"]
            started = []
            for shop in (*shops, *shops):
                attempt = self.next_attempt()
                made = self.attempt(attempt, shop, session, "note", {"text": f"race {attempt}"}, f"race {attempt}")
                started.append(asyncio.ensure_future(made))
            with contextlib.suppress(StoreUnavailableError):
                await shops["ab".index(at)].system.plane.kill(OPERATOR, scope, "in the middle of it")
                self.world.halted.add(scope)
            await asyncio.gather(*started)

        self.run(racing())

    @precondition(lambda self: self.stops)
    @rule(at=EITHER)
    def resume(self, at):
        scope = self.stops.pop()

        async def resuming():
            plane = await self.world.plane(at)
            self.world.halted.discard(scope)  # from the moment that it is asked for, something may begin
            await until(lambda: tried(plane.resume(OPERATOR, scope, "enough")))

        self.run(resuming())

    @rule(release=st.sampled_from(sorted(RELEASES)), at=EITHER)
    def activate(self, release, at):
        async def activating():
            releases = (await self.world.plane(at)).releases
            with contextlib.suppress(StoreUnavailableError):
                await self.world.beating(releases.put_in_force(dict(RELEASES[release]), by="the machine"))

        self.run(activating())

    @rule(at=EITHER)
    def rollback(self, at):
        async def rolling():
            releases = (await self.world.plane(at)).releases
            with contextlib.suppress(StoreUnavailableError, ReleaseConflictError):
                await self.world.beating(releases.rollback(OPERATOR, "back"))

        self.run(rolling())

    @rule(lead=st.sampled_from(LEADS), how=st.sampled_from(("approve", "approve", "deny", "withdraw")), at=EITHER)
    def answer(self, lead, how, at):
        self.answer_all(lead, how, at)

    def answer_all(self, lead, how, at):
        """A lead answers what is open. Ana is one too, and never answers for herself."""
        person = Person(user=self.named(lead), tenant="acme", roles=("Lead",), told_at_us=1)

        async def answering():
            approvals = (await self.world.plane(at)).approvals
            for asked in await approvals.list(person):
                with contextlib.suppress(ApprovalError):
                    if how == "withdraw":
                        await approvals.withdraw(person, asked.approval_id)
                        continue
                    # Asked for is as good as given: an answer that was lost may have been recorded.
                    self.granted[asked.user] += how == "approve" and asked.user != person.user
                    await approvals.answer(person, asked.approval_id, approve=how == "approve")
                    assert asked.user != person.user, "nobody answers for themselves"

        self.run(tried(answering()))

    @precondition(lambda self: self.calls > FEW)
    @rule(session=sessions, to=st.sampled_from((Posture.GUARDED, Posture.READ_ONLY)), at=EITHER)
    def worry(self, session, to, at):
        async def worrying():
            postures = (await self.world.plane(at)).postures
            # A worry about the agent above may have raised this one further already; then this would lower it, which is for nobody.
            with contextlib.suppress(PostureConflictError, NotPermittedError):
                if ORDER.index(to) > ORDER.index(self.worst.get(session.lineage.id, Posture.NORMAL)):
                    await postures.set(OPERATOR, session.lineage.id, to, "a worry")
                    self.worst[session.lineage.id] = to

        self.run(tried(worrying()))

    # -- what must hold ---------------------------------------------------------------------------------------------------

    @invariant()
    def holds(self):
        assert not self.world.objections, self.world.objections
        self.no_effect_happens_twice()
        self.what_was_told_is_true()
        self.what_needed_a_person_had_one()
        self.no_session_does_more_than_its_budget()
        self.run(self.no_posture_is_lowered_by_itself())

    def no_effect_happens_twice(self):
        """One attempt acts at most once; of attempts that are the same call by key, or by arguments and purpose, one acts."""
        same = Counter(attempt for (attempt, *_), _, _ in self.executed)
        for (_, user, key, repeat_of), name, arguments in self.executed:
            if name not in WRITES:
                continue
            if key:
                same[user, name, key, repeat_of] += 1
            elif name in ONCE:
                meant = (arguments["order_id"], arguments["amount"])
                same[user, name, meant, repeat_of] += 1
        twice = {what: count for what, count in same.items() if count > 1}
        assert not twice, twice

    def what_was_told_is_true(self):
        acted = {attempt for (attempt, *_), _, _ in self.executed}
        by_anybody = {(who, name) for (_, who, *_), name, _ in self.executed}
        for attempt, (who, what, _, answer) in self.told.items():
            if what not in WRITES:
                continue
            if isinstance(answer, Returned):
                assert (attempt in acted) != ("interlock/replayed" in answer.meta), (attempt, answer)
            elif isinstance(answer, Refusal) and answer.effect is Effected.NONE:
                assert attempt not in acted, (attempt, answer)
            elif isinstance(answer, Refusal) and answer.effect is Effected.DONE:
                assert (who, what) in by_anybody, (attempt, answer)

    def what_needed_a_person_had_one(self):
        done = Counter(who for (_, who, *_), name, given in self.executed if name == "refund" and given["amount"] == "70.00")
        assert all(count <= self.granted[user] for user, count in done.items()), (done, self.granted)

    def no_session_does_more_than_its_budget(self):
        done = Counter(self.roots[attempt] for (attempt, *_), _, _ in self.executed)
        assert all(count <= TREE_LIMIT for count in done.values()), done

    async def no_posture_is_lowered_by_itself(self):
        rows = await self.world.sql.fetch(
            "SELECT lineage_id, posture FROM lineage WHERE lineage_id = ANY($1)", list(self.worst)
        )
        for row in rows:
            assert ORDER.index(Posture(row["posture"])) >= ORDER.index(self.worst[row["lineage_id"]]), dict(row)
