"""Races around an approval between two processes, judged by the tool's own count."""

import asyncio
import contextlib

import pytest

from interlock.app.approvals import MAX_WAITING_EACH
from interlock.approvals.errors import NotOpenError
from interlock.core.who import Person
from interlock.gateway.messages import Refusal, Returned
from tests.approvals.test_approvals_gate import approve, lead
from tests.support.shop import FILES, Shop, counter

# `note` has neither a key nor an object that is looked up first: nothing but the approval stands between two claims.
ASKING = {
    **FILES,
    "policies/guard/note.cedar": '@id("note-asks")\n@owner("security")\n@approval("refunds")\n'
    'forbid (principal, action == Action::"shop.note", resource);\n',
}
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

    @property
    def ran(self):
        return self.one.shop.count("note")


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
