"""Races around an approval, each in both orders: who comes first at the lineage's row is decided here, by a lock that is let go."""

import asyncio
import contextlib

import asyncpg
import pytest

from interlock.app.approvals import MAX_WAITING_EACH
from interlock.approvals.errors import NotOpenError
from interlock.core.who import Person
from interlock.gateway.messages import Refusal, Returned
from interlock.ledger.drafts import draft
from interlock.ledger.events import ReleaseActivated
from interlock.release.load import from_files
from tests.approvals.test_approvals_gate import age, approve, lead
from tests.support.shop import FILES, OPERATOR, Shop, counter

# `note` has neither a key nor an object that is looked up first: nothing but the approval stands between two claims.
ASKING = {
    **FILES,
    "release.yaml": FILES["release.yaml"].replace("kill:", "revoke: [Security], kill:"),
    "policies/guard/note.cedar": '@id("note-asks")\n@owner("security")\n@approval("refunds")\n'
    'forbid (principal, action == Action::"shop.note", resource);\n',
}
SECURITY = Person(user="sam", tenant="acme", roles=("Security",), told_at_us=1)
REQUESTER = Person(user="ana", tenant="acme", roles=("Staff",), told_at_us=1)


class Race:
    """Two processes with one approval between them, and the lock at which contenders line up."""

    def __init__(self, one, two, session, superuser_url):
        self.one, self.two, self.session, self.url = one, two, session, superuser_url

    async def asked(self, text="a"):
        answer = await self.one.call(self.session, "note", text=text)
        assert answer.code == "needs_approval"
        return answer.meta()["approvals"][0]["id"]

    async def call(self, shop=None, text="a"):
        return await (shop or self.one).call(self.session, "note", text=text)

    async def state(self, approval_id):
        return str((await self.one.system.approvals.get(approval_id)).state)

    async def another_release(self):
        """One statement that puts another release in force; all that takes time is done before."""
        controls, release = self.two.system.controls, from_files({**ASKING, "README.md": "changed"})
        _, previous = await controls.epochs()
        await controls.save_release(release.digest, release.name, dict(release.files))
        body = ReleaseActivated(name=release.name, digest=release.digest, previous=previous, by="test")
        event = draft(body, ids=self.two.system.ids)
        return controls.activate(release.digest, expected=previous, by="test", reason="race", event=event)

    @property
    def ran(self):
        return self.one.shop.count("note")

    async def in_order(self, *contenders):
        """Let each contender come as far as it can before the next one starts, hold all at the lineage, then let go."""
        # Two connections: what a transaction once saw of the others' activity stays as it was until it ends.
        connection, onlooker = await asyncpg.connect(self.url), await asyncpg.connect(self.url)
        try:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("SELECT FROM lineage WHERE lineage_id = $1 FOR UPDATE", self.session.lineage.id)
            tasks = []
            for contender in contenders:
                before = await self._held(onlooker)
                tasks.append(asyncio.ensure_future(contender))
                while not tasks[-1].done() and await self._held(onlooker) <= before:
                    await asyncio.sleep(0)
            await transaction.rollback()
        finally:
            await connection.close()
            await onlooker.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    async def _held(onlooker):
        # Processes also renew their leases meanwhile; those may wait for a moment and are no contenders.
        return await onlooker.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
            "AND query ~ '(commit_requests|request_approval|answer_approval|change_control|activate_release|revoke)'"
        )


@pytest.fixture
async def race(database_urls, tmp_path):
    shared = Shop()
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(counter(database_urls.app, tmp_path, shop=shared, files=ASKING))
        two = await stack.enter_async_context(counter(database_urls.app, tmp_path, shop=shared, files=ASKING))
        yield Race(one, two, await one.session(), database_urls.superuser)


def outcome(answer):
    if isinstance(answer, Refusal):
        return answer.code
    return "ran" if isinstance(answer, Returned) else type(answer).__name__


async def test_of_a_claim_and_a_withdrawal_the_first_wins(race):
    for order, expected in (("claim", ("ran", "NotOpenError", "used", 1)), ("withdraw", ("needs_approval", "ApprovalView", "withdrawn", 1))):  # fmt: skip
        approval_id = await race.asked()
        await approve(race.one, approval_id)
        call, withdrawal = race.call(), race.two.system.plane.approvals.withdraw(REQUESTER, approval_id)
        pair = (call, withdrawal) if order == "claim" else (withdrawal, call)
        found = await race.in_order(*pair)
        answer, withdrawn = found if order == "claim" else reversed(found)
        assert (outcome(answer), outcome(withdrawn), await race.state(approval_id), race.ran) == expected


@pytest.mark.parametrize("first", ["claim", "kill"])
async def test_of_a_claim_and_a_kill_the_first_wins(race, first):
    approval_id = await race.asked()
    await approve(race.one, approval_id)
    call, kill = race.call(), race.two.system.plane.kill(OPERATOR, "tool:shop", "race")
    found = await race.in_order(*((call, kill) if first == "claim" else (kill, call)))
    answer = found[0] if first == "claim" else found[1]
    if first == "claim":
        # It was claimed; the kill may still be known to the process before the first byte would leave, and then none does.
        assert (outcome(answer), race.ran) in {("ran", 1), ("halted", 0)}
        assert await race.state(approval_id) == "used"
    else:
        assert (outcome(answer), race.ran, await race.state(approval_id)) == ("halted", 0, "approved")


@pytest.mark.parametrize("first", ["claim", "revoke"])
async def test_of_a_claim_and_the_revocation_of_its_approver_the_first_wins(race, first):
    approval_id = await race.asked()
    await approve(race.one, approval_id, lead(told_at_us=1))
    call, revocation = race.call(), race.two.system.plane.revocations.revoke(SECURITY, "user:leo", "left")
    found = await race.in_order(*((call, revocation) if first == "claim" else (revocation, call)))
    answer = found[0] if first == "claim" else found[1]
    assert (outcome(answer), race.ran) == (("ran", 1) if first == "claim" else ("needs_approval", 0))
    assert await race.state(approval_id) == ("used" if first == "claim" else "withdrawn")


@pytest.mark.parametrize("first", ["yes", "revoke"])
async def test_a_yes_and_the_revocation_of_whoever_says_it_leave_nothing_to_run(race, first):
    approval_id = await race.asked()
    yes = race.one.system.plane.approvals.answer(lead(told_at_us=1), approval_id, approve=True)
    revocation = race.two.system.plane.revocations.revoke(SECURITY, "user:leo", "left")
    found = await race.in_order(*((yes, revocation) if first == "yes" else (revocation, yes)))
    given = found[0] if first == "yes" else found[1]
    assert outcome(given) == ("ApprovalView" if first == "yes" else "WrongApproverError")
    assert await race.state(approval_id) == ("withdrawn" if first == "yes" else "open")
    assert (outcome(await race.call()), race.ran) == ("needs_approval", 0)


@pytest.mark.parametrize("first", ["claim", "release"])
async def test_of_a_claim_and_another_release_the_first_wins(race, first):
    approval_id = await race.asked()
    await approve(race.one, approval_id)
    change = await race.another_release()
    call = race.call()
    found = await race.in_order(*((call, change) if first == "claim" else (change, call)))
    answer = found[0] if first == "claim" else found[1]
    assert (outcome(answer), race.ran) == (("ran", 1) if first == "claim" else ("needs_approval", 0))
    assert await race.state(approval_id) == ("used" if first == "claim" else "outdated")


@pytest.mark.parametrize("first", ["one", "two"])
async def test_of_two_processes_with_one_approval_the_first_runs(race, first):
    approval_id = await race.asked()
    await approve(race.one, approval_id)
    processes = (race.one, race.two) if first == "one" else (race.two, race.one)
    answers = await race.in_order(*(race.call(process) for process in processes))
    assert [outcome(answer) for answer in answers] == ["ran", "needs_approval"]
    assert race.ran == 1
    assert await race.state(approval_id) == "used"


async def test_an_approval_that_ends_while_its_claim_waits_lifts_nothing(race):
    approval_id = await race.asked()
    await approve(race.one, approval_id)
    answer, _ = await race.in_order(race.call(), age(race.one, approval_id))
    assert (outcome(answer), race.ran) == ("needs_approval", 0)


async def test_an_approver_who_loses_the_role_while_the_claim_waits_has_approved_nothing(race):
    approval_id = await race.asked()
    await approve(race.one, approval_id, lead(told_at_us=1))
    lost = race.two.system.plane.known.note(lead(roles=("Staff",), told_at_us=2))
    answer, _ = await race.in_order(race.call(), lost)
    assert (outcome(answer), race.ran) == ("needs_approval", 0)
    # In the other order the claim was made while the role was held, and stands.
    again = await race.asked("b")
    await approve(race.one, again, lead("lea", told_at_us=1))
    assert outcome(await race.call(text="b")) == "ran"
    await race.two.system.plane.known.note(lead("lea", roles=("Staff",), told_at_us=2))
    assert await race.state(again) == "used"


@pytest.mark.parametrize("first", ["yes", "no"])
async def test_of_a_yes_and_a_no_the_first_counts(race, first):
    approval_id = await race.asked()
    yes = race.one.system.plane.approvals.answer(lead("lea"), approval_id, approve=True)
    no = race.two.system.plane.approvals.answer(lead("leo"), approval_id, approve=False)
    won, lost = await race.in_order(*((yes, no) if first == "yes" else (no, yes)))
    assert won.state == ("approved" if first == "yes" else "denied")
    assert isinstance(lost, NotOpenError)
    assert outcome(await race.call()) == ("ran" if first == "yes" else "approval_denied")
    assert race.ran == (1 if first == "yes" else 0)


async def test_of_a_no_and_the_call_that_waits_for_the_yes_the_no_counts(race):
    approval_id = await race.asked()
    no = race.two.system.plane.approvals.answer(lead(), approval_id, approve=False)
    answer, _ = await race.in_order(race.call(), no)
    # The call came first: it found the request open and was told to wait. Nothing ran, and asked again it hears the no.
    assert outcome(answer) == "needs_approval"
    assert outcome(await race.call()) == "approval_denied"
    assert race.ran == 0


@pytest.mark.parametrize("first", ["yes", "end"])
@pytest.mark.parametrize("end", ["withdraw", "release", "expire", "revoke"])
async def test_a_yes_and_the_end_of_its_request_leave_nothing_to_run(race, first, end):
    approval_id = await race.asked()
    two, change = race.two.system, await race.another_release() if end == "release" else None
    yes = race.one.system.plane.approvals.answer(lead(), approval_id, approve=True)
    ends = {
        "withdraw": lambda: two.plane.approvals.withdraw(REQUESTER, approval_id),
        "release": lambda: change,
        "expire": lambda: age(race.two, approval_id),
        "revoke": lambda: two.database.rows("revoke_session", race.session.session_id),
    }
    rival = ends[end]()
    await race.in_order(*((yes, rival) if first == "yes" else (rival, yes)))
    if end == "expire" and first == "yes":
        # The time that passed was the asking's; the yes, given in time by the clock of the database, would have been refused.
        assert await race.state(approval_id) == "expired"
    assert outcome(await race.call()) in {"needs_approval", "session_ended"}
    assert race.ran == 0


async def test_a_yes_during_a_kill_waits_for_the_resume(race):
    approval_id = await race.asked()
    yes = race.one.system.plane.approvals.answer(lead(), approval_id, approve=True)
    given, _ = await race.in_order(yes, race.two.system.plane.kill(OPERATOR, "tool:shop", "race"))
    assert given.state == "approved"
    assert outcome(await race.call()) == "halted"
    await race.two.system.plane.resume(OPERATOR, "tool:shop", "over")
    assert outcome(await race.call()) == "ran"
    assert race.ran == 1


async def test_whoever_waits_for_an_answer_gets_it_and_nobody_waits_without_end(race):
    approval_id = await race.asked()
    approvals = race.one.system.plane.approvals
    waiting = [
        asyncio.create_task(approvals.of_session(race.session, approval_id, wait_ms=60_000)) for _ in range(MAX_WAITING_EACH)
    ]
    while approvals._waiting[race.session.lineage.id] < MAX_WAITING_EACH:
        await asyncio.sleep(0)
    # One more is told at once, and does not wait.
    assert await approvals.of_session(race.session, approval_id, wait_ms=60_000) == "open"
    await approve(race.two, approval_id)
    assert set(await asyncio.gather(*waiting)) == {"approved"}
    assert not approvals._waiting


async def test_many_calls_and_many_answers_at_once_run_as_often_as_was_approved(race):
    """Whatever the order: the tool's own count, the approvals that were used and the calls that were answered agree."""
    for number in range(12):
        before, text = race.ran, f"n{number}"
        approval_id = await race.asked(text)
        people = [
            race.one.system.plane.approvals.answer(lead("lea"), approval_id, approve=number % 3 != 0),
            race.two.system.plane.approvals.answer(lead("leo"), approval_id, approve=number % 2 == 0),
        ]
        if number % 2:
            people.append(race.two.system.plane.approvals.withdraw(REQUESTER, approval_id))
        calls = [race.call(process, text) for process in (race.one, race.two) for _ in range(3)]
        found = await asyncio.gather(*people, *calls, return_exceptions=True)
        later = await race.call(text=text)
        ran = sum(isinstance(answer, Returned) for answer in (*found, later))
        assert race.ran - before == ran <= 1
        assert (await race.state(approval_id) == "used") == (ran == 1)
        assert not [answer for answer in found if isinstance(answer, Exception) and not isinstance(answer, NotOpenError)]
