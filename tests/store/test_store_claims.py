"""The transactions that carry the guarantees, attacked from several connections."""

import asyncio
import hashlib
import os
from contextlib import asynccontextmanager

import asyncpg
import msgspec
import pytest

from interlock.app.sources import SystemIds
from interlock.core.claim import (
    Claimed,
    ClaimRequest,
    Duplicate,
    Epochs,
    Halted,
    Idempotency,
    KeyReused,
    Labels,
    NotSettled,
    OverRate,
    Recorded,
    RecordRequest,
    SessionEnded,
    Settled,
    SettleRequest,
    Stale,
)
from interlock.core.decision import Rate
from interlock.core.who import Lineage, Session
from interlock.ledger.drafts import draft
from interlock.ledger.events import CallProposed, ClaimOrphaned, ControlChanged, SessionOpened
from interlock.store.controls import Controls
from interlock.store.database import open_database
from interlock.store.errors import StoreUnavailableError
from interlock.store.processes import ClaimWatch, Processes
from interlock.store.sessions import Sessions
from interlock.store.writer import Writer
from tests.support.patience import PATIENCE_S, until

IDS = SystemIds()
ZERO = Epochs(control=0, release=0, revocation=0)


def event(call_id="", text="{}"):
    return draft(
        CallProposed(operation="a.b", arguments=msgspec.Raw(text.encode()), arguments_digest="d", call_hash="h"),
        ids=IDS,
        call_id=call_id,
    )


class Desk:
    """One process: its own pool and writer."""

    def __init__(self, database, writer):
        self.database, self.writer = database, writer
        self.sessions, self.controls = Sessions(database), Controls(database)

    async def session(self, user="ana"):
        lineage = Lineage(tenant="acme", environment="prod", agent="bot", user=user)
        session = Session(
            session_id=IDS.new("ses"), lineage=lineage, task="t", roles=(), attributes={}, expires_at_us=4 * 10**15
        )
        opened = SessionOpened(
            session_id=session.session_id,
            tenant="acme",
            environment="prod",
            agent="bot",
            user=user,
            task="t",
            roles=(),
            attributes={},
            expires_at_us=0,
        )
        await self.sessions.open(session, draft(opened, ids=IDS))
        return session

    def request(self, session, *, key=None, window_s=600, call_hash="h", **more):
        call_id = IDS.new("call")
        fields = {
            "claim_id": IDS.new("clm"),
            "call_id": call_id,
            "session_id": session.session_id,
            "lineage_id": session.lineage.id,
            "operation": "a.b",
            "call_hash": call_hash,
            "release_digest": "r",
            "epochs": ZERO,
            "facts_version": 1,
            "scopes": ("fleet", "tenant:acme", "operation:a.b"),
            "idempotency": None if key is None else Idempotency(key=digest(key), source="caller", window_s=window_s),
            "settle_by_ms": 60_000,
            "events": (event(call_id), event(call_id)),
        }
        return ClaimRequest(**{**fields, **more})

    async def claim(self, session, **more):
        return await self.writer.claim(self.request(session, **more))

    async def settle(self, session, claimed, state="succeeded", **more):
        fields = {
            "claim_id": claimed.claim_id,
            "session_id": session.session_id,
            "lineage_id": session.lineage.id,
            "attempt": claimed.attempt,
            "state": state,
            "outcome": '{"x":1}',
            "events": (event(),),
        }
        return await self.writer.settle(SettleRequest(**{**fields, **more}))

    async def control(self, scope, *, halted):
        body = ControlChanged(scope=scope, halted=halted, reason="r", by="oki")
        return await self.controls.change(scope=scope, halted=halted, reason="r", by="oki", event=draft(body, ids=IDS))


def digest(key):
    return hashlib.sha256(key.encode()).digest()


@asynccontextmanager
async def desk(url, name="p1"):
    database = await open_database(url, max_connections=3)
    writer = Writer(database, process_id=name)
    await Processes(database).register(name, "prod")
    writer.start()
    try:
        yield Desk(database, writer)
    finally:
        await writer.close()
        await database.close()


@pytest.fixture
async def one(database_urls):
    async with desk(database_urls.app) as made:
        yield made


@pytest.fixture
async def four(database_urls):
    async with (
        desk(database_urls.app, "p1") as a,
        desk(database_urls.app, "p2") as b,
        desk(database_urls.app, "p3") as c,
        desk(database_urls.app, "p4") as d,
    ):
        yield (a, b, c, d)


async def test_four_processes_claim_each_key_exactly_once(four):
    sessions = [await four[0].session(user) for user in ("ana", "ben")]

    async def try_one(n):
        session = sessions[n % 2]
        return await four[n % 4].claim(session, key=f"{session.lineage.user}-{n // 8 % 50}")

    answers = await asyncio.gather(*[try_one(n) for n in range(800)])
    assert sum(isinstance(answer, Claimed) for answer in answers) == 100
    assert sum(isinstance(answer, Duplicate) for answer in answers) == 700


async def test_chains_are_numbered_without_gaps_and_linked_under_concurrency(four, database_urls):
    session = await four[0].session()
    await asyncio.gather(*[four[n % 4].claim(session) for n in range(200)])
    connection = await asyncpg.connect(database_urls.auditor)
    rows = await connection.fetch("SELECT * FROM event WHERE chain_id = $1 ORDER BY seq", session.session_id)
    await connection.close()
    link = bytes(32)
    for number, row in enumerate(rows, start=1):
        header = f"interlock/event/1\n{row['chain_id']}\n{number}\n{row['kind']}\n{row['at_us']}\n{row['call_id']}\n".encode()
        link = hashlib.sha256(link + header + row["commitment"]).digest()
        assert row["link"] == link
    assert len(rows) == 401


async def test_no_claim_commits_after_a_kill_has_answered(four, database_urls):
    session = await four[0].session()
    killed = asyncio.Event()

    async def keep_claiming(side):
        late = []
        while True:
            was_killed = killed.is_set()
            answer = await side.claim(session)
            if was_killed:
                late.append(answer)
                if len(late) == 5:
                    return late

    claiming = [asyncio.create_task(keep_claiming(side)) for side in four for _ in range(8)]
    await asyncio.sleep(0)
    answer = await four[1].control("operation:a.b", halted=True)
    killed.set()
    connection = await asyncpg.connect(database_urls.auditor)
    count = "SELECT count(*) FROM claim"
    at_answer = await connection.fetchval(count)
    late = [answer for answers in await asyncio.gather(*claiming) for answer in answers]
    assert await connection.fetchval(count) == at_answer
    assert all(isinstance(answer, Halted) for answer in late)
    assert len(answer.in_flight) == at_answer
    await connection.close()


async def test_a_kill_and_resume_between_decision_and_claim_is_seen(one):
    session = await one.session()
    undecided = one.request(session)
    await one.control("fleet", halted=True)
    await one.control("fleet", halted=False)
    answer = await one.writer.claim(undecided)
    assert isinstance(answer, Stale)
    assert answer.epochs.control == 2


async def test_a_kill_of_a_scope_nobody_ever_named_stops_a_claim_made_before_its_row_existed(one):
    session = await one.session()
    request = one.request(session, scopes=("fleet", "agent:never-seen"))
    await one.control("agent:never-seen", halted=True)
    assert isinstance(await one.writer.claim(request), Halted)


async def test_a_claim_that_raises_the_labels_makes_later_ones_in_the_batch_decide_again(one):
    session = await one.session()
    raising = {"worst_labels": Labels(confidentiality=3, tainted=True)}
    first, second = await asyncio.gather(one.claim(session, **raising), one.claim(session))
    assert isinstance(first, Claimed)
    assert (first.state.tainted, first.state.confidentiality) == (True, 3)
    assert isinstance(second, Stale)
    assert second.state == first.state


async def test_claims_that_change_nothing_that_others_read_run_side_by_side(one):
    session = await one.session()
    answers = await asyncio.gather(*[one.claim(session) for _ in range(50)])
    assert all(isinstance(answer, Claimed) for answer in answers)


async def test_the_second_of_two_same_calls_in_one_batch_is_a_duplicate(one):
    session = await one.session()
    first, second, other = await asyncio.gather(
        one.claim(session, key="k"), one.claim(session, key="k"), one.claim(session, key="k", call_hash="other")
    )
    assert isinstance(first, Claimed)
    assert isinstance(second, Duplicate)
    assert second.claim_id == first.claim_id
    assert isinstance(other, KeyReused)


async def test_a_settled_match_gives_its_outcome_and_an_old_one_counts_no_more(one, database_urls):
    session = await one.session()
    first = await one.claim(session, key="k")
    await one.settle(session, first)
    again = await one.claim(session, key="k")
    assert (again.claim_state, again.outcome) == ("succeeded", '{"x":1}')
    await age_claims(database_urls)
    assert isinstance(await one.claim(session, key="k"), Claimed)


async def age_claims(database_urls):
    connection = await asyncpg.connect(database_urls.owner)
    await connection.execute("UPDATE claim SET claimed_at = claimed_at - interval '1 day'")
    await connection.close()


async def test_raw_outcomes_are_forgotten_once_no_repeated_call_can_ask_for_them(one, database_urls):
    session = await one.session()
    for key, settled in (("old", True), ("doubtful", False), ("new", True)):
        claimed = await one.claim(session, key=key, window_s=1_000 if key == "new" else 0)
        if settled:
            await one.settle(session, claimed)
    assert await Processes(one.database).forget_outcomes() == 1
    connection = await asyncpg.connect(database_urls.auditor)
    assert await connection.fetchval("SELECT count(*) FROM claim WHERE outcome IS NOT NULL") == 1
    assert await connection.fetchval("SELECT count(*) FROM idempotency") == 2
    await connection.close()


async def test_an_unsettled_match_counts_however_old_it_is(one, database_urls):
    session = await one.session()
    await one.claim(session, key="k")
    await age_claims(database_urls)
    assert isinstance(await one.claim(session, key="k"), Duplicate)


async def test_a_call_that_was_never_sent_frees_its_key(one):
    session = await one.session()
    first = await one.claim(session, key="k")
    await one.settle(session, first, "failed", release_key=True, outcome=None)
    assert isinstance(await one.claim(session, key="k"), Claimed)


async def test_only_the_matching_attempt_settles_and_only_once(one):
    session = await one.session()
    claimed = await one.claim(session)
    wrong = msgspec.structs.replace(claimed, attempt=2)
    assert isinstance(await one.settle(session, wrong), NotSettled)
    assert isinstance(await one.settle(session, claimed), Settled)
    assert isinstance(await one.settle(session, claimed), Settled)
    assert isinstance(await one.settle(session, claimed, "failed"), NotSettled)


async def test_the_same_request_sent_again_is_answered_the_same_and_written_once(one, database_urls):
    session = await one.session()
    request = one.request(session, key="k")
    first, again = await one.writer.claim(request), await one.writer.claim(request)
    assert first.claim_id == again.claim_id
    connection = await asyncpg.connect(database_urls.auditor)
    assert await connection.fetchval("SELECT count(*) FROM claim") == 1
    assert await connection.fetchval("SELECT count(*) FROM event WHERE chain_id = $1", session.session_id) == 3
    await connection.close()


async def test_a_claim_that_somebody_else_has_taken_up_is_not_given_to_who_asked_for_it_first(one, database_urls):
    request = one.request(await one.session())
    await one.writer.claim(request)
    connection = await asyncpg.connect(database_urls.superuser)
    await connection.execute("UPDATE claim SET attempt = 2, process_id = 'p2'")
    await connection.close()
    # As it is sent again when the answer was lost: this process would settle what the other is doing.
    with pytest.raises(StoreUnavailableError, match="taken it up"):
        await one.writer.claim(request)


async def test_one_bad_row_harms_nobody_else_in_its_batch(one):
    session = await one.session()
    bad = msgspec.structs.replace(event(), body="\x00")
    good = [one.claim(session) for _ in range(10)]
    answers = await asyncio.gather(*good, one.claim(session, events=(bad,)), return_exceptions=True)
    assert all(isinstance(answer, Claimed) for answer in answers[:10])
    assert isinstance(answers[10], StoreUnavailableError)


async def test_a_rate_counts_the_batch_and_the_window(one):
    session = await one.session()
    rate = {"rates": (Rate(limit=3, window_s=60),)}
    answers = await asyncio.gather(*[one.claim(session, **rate) for _ in range(5)])
    assert [type(answer) for answer in answers] == [Claimed] * 3 + [OverRate] * 2
    assert 0 < answers[4].retry_after_ms <= 60_000


async def test_an_unknown_or_foreign_session_claims_nothing(one):
    session = await one.session()
    foreign = await one.session("ben")
    assert isinstance(await one.claim(session, session_id="ses_none"), SessionEnded)
    assert isinstance(await one.claim(session, lineage_id=foreign.lineage.id), SessionEnded)


async def test_a_revoked_session_claims_nothing_but_its_claims_still_settle(one):
    session = await one.session()
    claimed = await one.claim(session)
    await one.sessions.revoke(session.session_id)
    assert isinstance(await one.claim(session), SessionEnded)
    assert isinstance(await one.settle(session, claimed), Settled)


async def test_a_denial_made_on_old_facts_is_not_recorded(one):
    session = await one.session()
    await one.control("fleet", halted=True)
    record = RecordRequest(
        call_id="c",
        session_id=session.session_id,
        lineage_id=session.lineage.id,
        epochs=ZERO,
        facts_version=1,
        events=(event("c"),),
    )
    assert isinstance(await one.writer.record(record), Stale)
    assert isinstance(await one.writer.record(msgspec.structs.replace(record, epochs=None)), Recorded)


async def test_a_cancelled_caller_does_not_disturb_the_others(one):
    session = await one.session()
    tasks = [asyncio.create_task(one.claim(session)) for _ in range(20)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(answer, Claimed) for answer in answers) == 19


async def test_nobody_waits_for_a_writer_that_was_ended(one, monkeypatch):
    session, sent = await one.session(), asyncio.Event()

    async def for_ever(requests):
        sent.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(one.writer, "_send_until_answered", for_ever)
    first = asyncio.create_task(one.claim(session))
    await sent.wait()
    second = asyncio.create_task(one.claim(session))
    await until(lambda: one.writer.waiting == 1)
    one.writer._task.cancel()
    async with asyncio.timeout(PATIENCE_S):
        answers = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailableError] * 2
    with pytest.raises(StoreUnavailableError):
        await one.claim(session)


async def test_claims_of_a_process_that_is_gone_become_in_doubt_with_an_event(database_urls):
    async with desk(database_urls.app, "gone") as left, desk(database_urls.app, "stays") as stays:
        session = await left.session()
        claimed = await left.claim(session, key="k")
        await Processes(left.database).leave("gone")
        watch = ClaimWatch(stays.database, None)
        assert not await watch.wait(claimed.claim_id, 5_000)
        await watch.close()
        orphaned = draft(ClaimOrphaned(reason="gone"), ids=IDS)
        assert len(await Processes(stays.database).orphan(orphaned)) == 1
        assert (await stays.claim(session, key="k")).claim_state == "in_doubt"
        # The owner comes back with the truth: the same attempt may still say what happened.
        assert isinstance(await left.settle(session, claimed), Settled)


async def test_whoever_begins_to_wait_while_a_question_is_under_way_is_not_told_that_its_claim_is_lost(one):
    session = await one.session()
    first, second = await one.claim(session), await one.claim(session)
    watch = ClaimWatch(one.database, None)
    rows, late = one.database.rows, []

    async def asked_while_another_comes(name, *arguments):
        found = await rows(name, *arguments)
        if name == "claim_states" and not late:
            late.append(asyncio.create_task(watch.wait(second.claim_id, 10_000)))
            await asyncio.sleep(0)
        return found

    one.database.rows = asked_while_another_comes
    waiting = asyncio.create_task(watch.wait(first.claim_id, 10_000))
    while not late:
        await asyncio.sleep(0)
    await one.settle(session, first)
    await one.settle(session, second)
    assert await waiting
    assert await late[0]
    await watch.close()


async def test_without_a_server_the_writer_says_unavailable(database_urls, postgres):
    async with desk(database_urls.app) as one:
        session = await one.session()
        await postgres.execute(f"ALTER DATABASE {database_urls.name} WITH ALLOW_CONNECTIONS false")
        kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database_urls.name}'"
        await postgres.execute(kill)
        with pytest.raises(StoreUnavailableError):
            await one.claim(session)
        await postgres.execute(f"ALTER DATABASE {database_urls.name} WITH ALLOW_CONNECTIONS true")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE event SET kind = 'x'",
        "DELETE FROM event",
        "TRUNCATE event",
        "UPDATE event_body SET body = 'x'",
        "DELETE FROM signed_head",
        "UPDATE release SET files = 'x'",
    ],
)
async def test_neither_the_app_nor_the_auditor_nor_the_owner_edits_the_ledger(one, database_urls, sql):
    await one.session()
    for url in (database_urls.app, database_urls.auditor, database_urls.owner):
        if url == database_urls.owner and ("signed_head" in sql or "release" in sql):
            continue  # there is no row to refuse for
        connection = await asyncpg.connect(url)
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.RaiseError)):
            await connection.execute(sql)
        await connection.close()


async def test_the_auditor_only_reads(one, database_urls):
    connection = await asyncpg.connect(database_urls.auditor)
    for sql in ("INSERT INTO control VALUES ('fleet', false, '', '')", "SELECT revoke_session('x')"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(sql)
    await connection.close()


def test_salts_and_ids_do_not_repeat():
    made = {IDS.new("x") for _ in range(1000)} | {IDS.salt() for _ in range(1000)}
    assert len(made) == 2000
    assert len(os.urandom(1)) == 1
