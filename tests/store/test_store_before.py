"""The version before runs on this version's schema: its SQL is prepared and gives what it gave, and its claims and ours see each other."""

import json

import asyncpg
import msgspec
import pytest

from interlock.gateway.messages import Returned
from interlock.store.migrate import RELEASED, migrations
from tests.store.before.record import RECORD, described
from tests.support.shop import FILES, OPERATOR, counter

BEFORE = json.loads(RECORD.read_text())


def test_what_is_recorded_is_of_the_version_before():
    assert BEFORE["migration"] == RELEASED < len(migrations())
    assert len(BEFORE["statements"]) > 100
    assert not [name for name, statement in BEFORE["statements"].items() if "complaint" in statement]


async def broken_on(url):
    """What of the version before does not run on a database as it did."""
    recorded = BEFORE["statements"]
    now = await described(url, {name: statement["sql"] for name, statement in recorded.items()})
    broken = {}
    for name, was in recorded.items():
        is_now = now[name]
        if "complaint" in is_now:
            broken[name] = is_now["complaint"]
        elif is_now["takes"] != was["takes"]:
            broken[name] = f"takes {is_now['takes']}"
        elif missing := {tuple(column) for column in was["gives"]} - {tuple(column) for column in is_now["gives"]}:
            broken[name] = f"gives no {missing}"
    return broken


async def test_every_statement_of_the_version_before_takes_and_gives_what_it_did(database_urls):
    """A function or column that is gone, another type, a parameter more: a rolling update would break on it."""
    assert await broken_on(database_urls.app) == {}


@pytest.mark.parametrize(
    "harm",
    [
        "ALTER TABLE claim RENAME COLUMN settle_by TO due",
        "ALTER TABLE session ALTER COLUMN task TYPE varchar(20)",
        "DROP FUNCTION ask_people(text, int, text, text, text, bytea, bytea)",
    ],
)
async def test_a_migration_that_would_break_it_is_caught(database_urls, harm):
    connection = await asyncpg.connect(database_urls.owner)
    await connection.execute(harm)
    await connection.close()
    assert await broken_on(database_urls.app)


class VersionBefore:
    """The claim desk of the version before: its own statement, with the arguments that its writer sent."""

    def __init__(self, pool):
        self._pool = pool

    async def _send(self, wanted, events, outcome=None):
        rows = await self._pool.fetch(
            BEFORE["statements"]["commit_batch"]["sql"],
            *("prc_before", json.dumps([{"n": 0, **wanted}]), [outcome]),
            *([0] * len(events), [e.kind for e in events], [e.call_id for e in events], [e.body for e in events]),
            *([e.salt for e in events], [e.commitment for e in events]),
            *([], [], [], [], [], [], [], [], []),
        )
        (answer,) = rows
        return dict(answer)

    async def claim(self, request, claim_id):
        key = request.idempotency
        # It has decided on how things stand now.
        version = await self._pool.fetchval("SELECT facts_version FROM lineage WHERE lineage_id = $1", request.lineage_id)
        wanted = {
            "kind": "claim",
            "claim_id": claim_id,
            "call_id": f"call_{claim_id}",
            "session_id": request.session_id,
            "lineage_id": request.lineage_id,
            "operation": request.operation,
            "call_hash": request.call_hash,
            "release_digest": request.release_digest,
            "scopes": list(request.scopes),
            "key": key and key.key.hex(),
            "key_source": key and key.source,
            "key_window_s": key and key.window_s,
            "rates": [],
            "control": request.epochs.control,
            "release": request.epochs.release,
            "revocation": request.epochs.revocation,
            "facts_version": version,
            "tainted": False,
            "confidentiality": 0,
            "settle_by_ms": request.settle_by_ms,
            "approvals": list(request.approvals),
            "approved_hash": request.approved_hash,
            "history": request.history,
            "history_version": request.history_version,
            "budgets": [
                {"a": c.account, "h": "", "c": c.limit, "m": c.amount, "w": c.window_s, "l": c.lifted, "i": c.about}
                for c in request.charges
            ],
        }
        return await self._send(wanted, request.events)

    async def settle(self, request, claim_id):
        wanted = {
            "kind": "settle",
            "claim_id": claim_id,
            "session_id": request.session_id,
            "lineage_id": request.lineage_id,
            "attempt": 1,
            "state": "succeeded",
            "release_key": False,
            "tainted": False,
            "confidentiality": 0,
        }
        return await self._send(wanted, (), '{"structured": {"n": 7}, "content": [], "is_error": false}')


async def test_gateways_of_both_versions_on_one_database_never_do_a_write_twice_and_a_kill_stops_both(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path) as made:
        before, asked = VersionBefore(made.system.database.pool()), []
        claim = made.system.writer.claim

        async def noted(request):
            asked.append(request)
            return await claim(request)

        made.system.writer.claim = noted
        session = await made.session()
        assert isinstance(await made.call(session, "pay", order_id="A1", amount="1.00"), Returned)
        ours = next(request for request in asked if request.idempotency is not None)

        # What we have done is a repetition to the version before.
        told = await before.claim(ours, "clm_again")
        assert (told["answer"], told["claim_id"], told["claim_state"]) == ("duplicate", ours.claim_id, "succeeded")

        # What the version before has in hand, and then done, is a repetition to us.
        other = {"order_id": "A3", "amount": "1.00"}
        theirs = await the_request(made, session, asked, other)
        told = await before.claim(theirs, "clm_theirs")
        assert told["answer"] == "claimed", told
        waiting = await made.call(session, "pay", **other)
        assert waiting.code in {"still_running", "in_doubt"}
        assert (await before.settle(theirs, "clm_theirs"))["answer"] == "settled"
        replayed = await made.call(session, "pay", **other)
        assert isinstance(replayed, Returned)
        assert replayed.meta["interlock/replayed"]
        assert made.shop.count("pay") == 1

        await made.system.plane.kill(OPERATOR, "tool:shop", "stop")
        assert (await before.claim(the_next(theirs), "clm_late"))["answer"] in {"halted", "stale"}


COUNTED = {
    **FILES,
    "budgets.yaml": 'paid: {sum: shop.pay.amount, per: lineage, within: 1h, limit: "100.00"}\n',
    "history.yaml": "notes: {count: shop.note, per: lineage, within: 1h, with_this: true}\n",
    "policies/guard/history.cedar": """
@id("two-notes")
@owner("security")
forbid (principal, action == Action::"shop.note", resource) when { context.history.notes > 2 };
""",
}


async def test_what_either_version_has_reserved_of_a_budget_the_other_does_not_give_again(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=COUNTED) as made:
        before, asked, session = VersionBefore(made.system.database.pool()), [], await made.session()
        theirs = await the_request(made, session, asked, {"order_id": "A1", "amount": "60.00"})
        assert (await before.claim(theirs, "clm_theirs"))["answer"] == "claimed"
        assert (await made.call(session, "pay", order_id="A2", amount="60.00")).code == "over_budget"
        assert (await before.settle(theirs, "clm_theirs"))["answer"] == "settled"
        assert (await made.call(session, "pay", order_id="A2", amount="60.00")).code == "over_budget"
        assert isinstance(await made.call(session, "pay", order_id="A3", amount="30.00"), Returned)
        more = await the_request(made, session, asked, {"order_id": "A4", "amount": "20.00"})
        assert (await before.claim(more, "clm_more"))["answer"] == "over_budget"


async def test_what_either_version_did_is_in_the_past_that_the_other_decides_on(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=COUNTED) as made:
        before, asked, session = VersionBefore(made.system.database.pool()), [], await made.session()
        assert isinstance(await made.call(session, "note", text="one"), Returned)
        theirs = await the_request(made, session, asked, {"text": "two"}, "note")
        told = await before.claim(theirs, "clm_theirs")
        assert told["answer"] == "claimed"
        # It counts while it is under way, and in what is decided on what was known before it.
        assert (await before.claim(theirs, "clm_late"))["answer"] == "stale"
        assert (await made.call(session, "note", text="three")).code == "forbidden"
        assert (await before.settle(theirs, "clm_theirs"))["answer"] == "settled"
        assert (await made.call(session, "note", text="three")).code == "forbidden"


async def test_both_versions_settle_what_the_other_has_claimed_and_append_to_one_chain(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=COUNTED) as made:
        before, asked, session = VersionBefore(made.system.database.pool()), [], await made.session()
        desk, settled = made.system.writer, []
        settle = desk.settle

        async def by_the_other(request):
            settled.append((await before.settle(request, request.claim_id))["answer"])
            return await settle(request)

        desk.settle = by_the_other
        assert isinstance(await made.call(session, "pay", order_id="A1", amount="1.00"), Returned)
        assert settled == ["settled"]
        desk.settle = settle
        theirs = await the_request(made, session, asked, {"order_id": "A2", "amount": "1.00"})
        assert (await before.claim(theirs, "clm_theirs"))["answer"] == "claimed"
        assert isinstance(await made.call(session, "stock", item="tea"), Returned)
        sequence = await made.system.database.pool().fetch(
            "SELECT seq FROM event WHERE chain_id = $1 ORDER BY seq", session.session_id
        )
        assert [row["seq"] for row in sequence] == list(range(1, len(sequence) + 1))


async def the_request(made, session, asked, arguments, operation="pay"):
    """What we would ask for a call, with nothing claimed."""

    async def refused(request):
        asked.append(request)
        raise OSError

    desk, made.system.writer.claim = made.system.writer.claim, refused
    try:
        await made.call(session, operation, **arguments)
    finally:
        made.system.writer.claim = desk
    return asked[-1]


def the_next(request):
    """The same for another key."""
    key = msgspec.structs.replace(request.idempotency, key=bytes(32))
    return msgspec.structs.replace(request, idempotency=key)
