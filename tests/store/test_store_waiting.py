"""What changes while a plain batch waits for a lock is seen by it, though it began before: nothing is claimed on how things stood."""

import asyncio
from unittest import mock

import asyncpg
import pytest

from interlock.core.budget import Charge
from interlock.core.claim import Claimed, Duplicate, Halted, OverBudget, SessionEnded, Settled, Stale
from interlock.ledger.drafts import draft
from interlock.ledger.events import CallProposed
from interlock.store import writer
from interlock.store.errors import StoreUnavailableError
from tests.store.test_store_claims import IDS, desk, digest
from tests.support.patience import until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
HELD = {
    "epoch": "SELECT FROM epoch WHERE id = 1 FOR NO KEY UPDATE",
    "lineage": "SELECT FROM lineage WHERE lineage_id = $1 FOR NO KEY UPDATE",
    "budget": "SELECT FROM budget WHERE account = 'b:' || $1 FOR NO KEY UPDATE",
    "chain": "SELECT FROM chain WHERE chain_id = $1 FOR NO KEY UPDATE",
}


class Blocked:
    """A desk whose next batch waits for a lock that another holds, who changes something before letting go."""

    def __init__(self, at, owner, session):
        self.at, self.owner, self.session = at, owner, session
        self.charge = Charge(
            budget="b", account=f"b:{session.lineage.id}", amount=1, limit=5, window_s=0, shared=False, about="s", lifted=False
        )

    def claim(self, **more):
        return self.at.claim(self.session, charges=(self.charge,), **more)

    async def while_waiting(self, what, held, *changes):
        watching = await asyncpg.connect(self.owner)
        holding = await asyncpg.connect(self.owner)
        about = {"lineage": [self.session.lineage.id], "budget": [self.session.lineage.id], "chain": [self.session.session_id]}
        try:
            async with holding.transaction():
                await holding.execute(HELD[held], *about.get(held, []))
                asked = asyncio.ensure_future(what)

                async def waits():
                    return await watching.fetchval(WAITING)

                await until(waits)
                for sql, *values in changes:
                    await holding.execute(sql, *values)
            return await asked
        finally:
            await holding.close()
            await watching.close()


@pytest.fixture
async def blocked(database_urls):
    async with desk(database_urls.app) as at:
        found = Blocked(at, database_urls.superuser, await at.session())
        first = await found.claim()
        assert isinstance(first, Claimed)
        found.first = first
        # From here on the short way is taken unless something is unusual.
        with mock.patch.object(writer, "plain_arguments", wraps=writer.plain_arguments) as short:
            found.short = short
            yield found
            assert short.called


async def test_a_plain_batch_that_waited_is_done_when_nothing_has_changed(blocked):
    with mock.patch.object(writer, "arguments", side_effect=AssertionError("the long way was taken")):
        for held in HELD:
            assert isinstance(await blocked.while_waiting(blocked.claim(), held), Claimed)


async def test_facts_that_change_meanwhile_make_a_claim_stale(blocked):
    change = "UPDATE lineage SET facts_version = facts_version + 1 WHERE lineage_id = $1", blocked.session.lineage.id
    assert isinstance(await blocked.while_waiting(blocked.claim(), "lineage", change), Stale)


@pytest.mark.parametrize("counter", ["control", "release", "revocation"])
async def test_a_change_of_controls_release_or_revocations_meanwhile_makes_a_claim_stale(blocked, counter):
    change = (f"UPDATE epoch SET {counter} = {counter} + 1",)
    assert isinstance(await blocked.while_waiting(blocked.claim(), "epoch", change), Stale)


@pytest.mark.parametrize("held", ["epoch", "lineage", "budget"])
@pytest.mark.parametrize("ended", ["revoked = true", "expires_at = clock_timestamp()"])
async def test_a_session_that_ends_meanwhile_claims_nothing(blocked, held, ended):
    change = f"UPDATE session SET {ended} WHERE session_id = $1", blocked.session.session_id
    assert isinstance(await blocked.while_waiting(blocked.claim(), held, change), SessionEnded)


@pytest.mark.parametrize("held", ["epoch", "lineage", "budget"])
async def test_a_halt_of_a_scope_meanwhile_stops_a_claim(blocked, held):
    # As the change of another table would be seen: the row alone, its epoch left as it is.
    changes = (
        ("SET session_replication_role = replica",),
        ("INSERT INTO control (scope, halted, reason, by_user) VALUES ('fleet', true, 'r', 'oki')",),
    )
    assert isinstance(await blocked.while_waiting(blocked.claim(), held, *changes), Halted)


async def test_a_posture_that_halts_a_lineage_meanwhile_stops_a_claim(blocked):
    change = "UPDATE lineage SET posture = 'halted' WHERE lineage_id = $1", blocked.session.lineage.id
    assert isinstance(await blocked.while_waiting(blocked.claim(), "lineage", change), Halted)


async def test_a_budget_that_is_used_up_meanwhile_has_no_room(blocked):
    change = "UPDATE budget SET spent = cap WHERE account = $1", blocked.charge.account
    assert isinstance(await blocked.while_waiting(blocked.claim(), "budget", change), OverBudget)


@pytest.mark.parametrize("held", ["epoch", "lineage", "budget"])
async def test_a_key_that_another_claims_meanwhile_is_not_claimed_again(blocked, held):
    claim = blocked.claim(key="once")
    change = (
        "INSERT INTO idempotency (key, claim_id, call_hash, source, expires_at) VALUES ($1, $2, 'h', 'caller', 'infinity')",
        digest("once"),
        blocked.first.claim_id,
    )
    answer = await blocked.while_waiting(claim, held, change)
    assert isinstance(answer, Duplicate)
    assert answer.claim_id == blocked.first.claim_id


async def test_a_claim_that_is_given_up_meanwhile_is_settled_as_it_stands_then(blocked):
    change = "UPDATE claim SET state = 'in_doubt' WHERE claim_id = $1", blocked.first.claim_id
    settle = blocked.at.settle(blocked.session, blocked.first)
    with mock.patch.object(writer, "arguments", wraps=writer.arguments) as each:
        assert isinstance(await blocked.while_waiting(settle, "lineage", change), Settled)
    assert each.called


async def test_events_that_others_append_meanwhile_are_followed_in_the_chain(blocked):
    event = draft(CallProposed(operation="a.b", arguments=None, arguments_digest="d", call_hash="h"), ids=IDS, call_id="")
    append = "SELECT append_events(ARRAY[$1], ARRAY[$2], ARRAY[''], ARRAY[$3], ARRAY[$4::bytea], ARRAY[$5::bytea])"
    change = append, blocked.session.session_id, event.kind, event.body, event.salt, event.commitment
    assert isinstance(await blocked.while_waiting(blocked.claim(), "chain", change), Claimed)
    owner = await asyncpg.connect(blocked.owner)
    rows = await owner.fetch(
        """SELECT e.seq, e.link = sha256(lag(e.link) OVER w || convert_to(concat_ws(E'\\n', 'interlock/event/1', e.chain_id, e.seq,
                  e.kind, e.at_us, e.call_id, ''), 'UTF8') || e.commitment) AS follows
           FROM event e WHERE e.chain_id = $1 WINDOW w AS (ORDER BY e.seq) ORDER BY e.seq""",
        blocked.session.session_id,
    )
    head = await owner.fetchval("SELECT head_seq FROM chain WHERE chain_id = $1", blocked.session.session_id)
    await owner.close()
    assert [row["seq"] for row in rows] == list(range(1, head + 1))
    assert all(row["follows"] for row in rows[1:])


async def test_nothing_is_claimed_or_settled_whose_events_have_no_chain_to_be_appended_to(blocked):
    owner = await asyncpg.connect(blocked.owner)
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("DELETE FROM chain WHERE chain_id = $1", blocked.session.session_id)
    with pytest.raises(StoreUnavailableError):
        await blocked.claim()
    with pytest.raises(StoreUnavailableError):
        await blocked.at.settle(blocked.session, blocked.first)
    states = await owner.fetch("SELECT claim_id, state FROM claim WHERE session_id = $1", blocked.session.session_id)
    await owner.close()
    assert [tuple(row) for row in states] == [(blocked.first.claim_id, "claimed")]
