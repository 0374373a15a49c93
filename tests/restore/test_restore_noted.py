"""What makes things stricter is in the mark before it is answered: a database that is set back in the next moment is as strict."""

import asyncio

import pytest

from interlock.core.terms import Posture
from interlock.store.errors import MarkError
from interlock.store.mark import Standing, parts_of, read_part
from tests.restore.test_restore_controls import ADMINISTERED, pay
from tests.restore.world import BOSS

RELEASED = {
    **ADMINISTERED,
    "release.yaml": ADMINISTERED["release.yaml"].replace("name: ", "name: narrower-"),
}


@pytest.fixture
async def made(bank):
    bank.files = ADMINISTERED
    async with bank.gateway() as found:
        await pay(found, await found.session(), "A1")
        # The chore would note it a second later.
        (chore,) = (task for task in asyncio.all_tasks() if task.get_name() == "mark")
        chore.cancel()
        yield found


def last(made, bank):
    secret, database_id = made.system.keys.private_bytes("mark")[1], made.system.marking.mark.database_id
    parts = (read_part(path, secret) for path in parts_of(bank.state / "mark", database_id))
    return [line for part in parts for line in part.lines if isinstance(line, Standing)][-1]


async def test_a_kill_is_in_the_mark_when_it_is_answered(made, bank):
    await made.system.plane.kill(BOSS, "tool:shop", "the books are wrong")
    assert [stop.scope for stop in last(made, bank).stops if stop.halted] == ["tool:shop"]


async def test_a_posture_of_a_lineage_is_in_the_mark_when_it_is_answered(made, bank):
    worried = await made.session(user="eve")
    await made.system.plane.postures.set(BOSS, worried.lineage.id, Posture.READ_ONLY, "odd calls")
    assert [(worry.lineage_id, worry.posture) for worry in last(made, bank).worries] == [(worried.lineage.id, "read_only")]


async def test_a_posture_of_a_scope_is_in_the_mark_when_it_is_answered(made, bank):
    await made.system.plane.scope_postures.set(BOSS, "agent:bot", Posture.HALTED, "looking into it")
    assert [(stop.scope, stop.posture) for stop in last(made, bank).stops] == [("agent:bot", "halted")]


@pytest.mark.parametrize("target", ["user:ana", "agent:bot"])
async def test_a_revocation_is_in_the_mark_when_it_is_answered(made, bank, target):
    await made.system.plane.revocations.revoke(BOSS, target, "left the company")
    assert [f"{revoked.target}:{revoked.name}" for revoked in last(made, bank).revoked] == [target]


async def test_a_release_is_in_the_mark_when_it_is_answered(made, bank):
    activated = await made.system.plane.releases.put_in_force(dict(RELEASED), by="the test")
    assert last(made, bank).release_digest == activated.digest


async def test_a_worry_of_machinery_is_in_the_mark_before_the_agent_reads_on(made, bank):
    session = await made.session(user="eve")
    await made.system.risk.sent_off(session, "call_1", "shop.pay", ("bait",))
    assert [worry.lineage_id for worry in last(made, bank).worries] == [session.lineage.id]


async def test_what_cannot_be_noted_stands_all_the_same_and_a_kill_says_so(made, monkeypatch):
    def full(*_, **__):
        raise MarkError("the disk is full")

    monkeypatch.setattr("interlock.store.mark.Mark.write", full)
    answer = await made.system.plane.kill(BOSS, "tool:shop", "the books are wrong")
    assert "not in the mark" in answer.note
    await made.system.plane.scope_postures.set(BOSS, "agent:bot", Posture.HALTED, "looking into it")
    await made.system.plane.revocations.revoke(BOSS, "user:ana", "left the company")
    assert (await pay(made, await made.session(user="ben"), "A2")).code == "halted"
