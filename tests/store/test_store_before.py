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
    assert BEFORE["migration"] == RELEASED <= migrations()[-1].number
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


def columns(*names, of=()):
    """Columns as the version before wrote them: arrays in Postgres's own syntax."""

    def written(value):
        match value:
            case None:
                return "NULL"
            case str():
                return json.dumps(value, ensure_ascii=False)
            case bytes():
                return f'"\\\\x{value.hex()}"'
            case _:
                return str(value)

    return ["{" + ",".join(written(row[name]) for row in of) + "}" for name in names]


class VersionBefore:
    """The claim desk of the version before: its own statement, with the arguments that its writer sent."""

    def __init__(self, pool):
        self._pool = pool

    async def _send(self, wanted, compared, request, *, plain, outcome=None):
        claims = wanted["kind"] == "claim"
        events = request.events if claims else ()
        told = [{"request": 0, "kind": event.kind, "call": event.call_id} for event in events]
        budgets = [
            {"n": number, "a": c.account, "h": "", "i": c.about, "c": c.limit, "w": c.window_s, "m": c.amount, "l": c.lifted}
            for number, c in enumerate(request.charges if claims else (), 1)
        ]
        asked = [{**budget, "wanted": 0 if budget["l"] else budget["m"]} for budget in budgets]
        charged = [{"request": 0, **budget} for budget in budgets]
        epochs = (request.epochs.control, request.epochs.release, request.epochs.revocation) if claims else (None, None, None)
        rows = await self._pool.fetch(
            BEFORE["statements"]["commit_requests"]["sql"],
            *("prc_before", json.dumps([{"n": 0, **wanted}])),
            *columns("session", "lineage", of=[{"session": request.session_id, "lineage": request.lineage_id}]),
            [outcome],
            *columns("lineage", of=[{"lineage": request.lineage_id}]),
            *columns("scope", of=[{"scope": scope} for scope in (request.scopes if claims else ())]),
            *columns("claim", of=[] if claims else [compared]),
            *(False, plain, *epochs),
            *columns("what", "claim", "key", "facts", "tainted", "rank", "attempt", of=[compared]),
            *(compared["key"] is not None, bool(budgets)),
            *columns("a", "h", "i", "c", "w", "wanted", of=asked),
            *columns("request", "n", "m", "l", of=charged),
            *columns("request", "kind", "call", of=told),
            *([e.body for e in events], [e.salt for e in events], [e.commitment for e in events]),
            *(*["{}"] * 8, []),
        )
        (answer,) = rows
        # One answer for all says that every request is answered yes, and that there was nothing else to look at.
        return {**answer, "answer": "claimed" if claims else "settled"} if answer["answer"] == "plain" else dict(answer)

    async def claim(self, request, claim_id):
        key, labels = request.idempotency, request.worst_labels
        # It has decided on how things stand now.
        version = await self._pool.fetchval("SELECT facts_version FROM lineage WHERE lineage_id = $1", request.lineage_id)
        wanted = {
            "kind": "claim",
            "claim_id": claim_id,
            "call_id": f"call_{claim_id}",
            "operation": request.operation,
            "call_hash": request.call_hash,
            "release_digest": request.release_digest,
            "scopes": list(request.scopes),
            "control": request.epochs.control,
            "release": request.epochs.release,
            "revocation": request.epochs.revocation,
            "facts_version": version,
            "history_version": request.history_version,
            "tainted": labels.tainted,
            "confidentiality": labels.confidentiality,
            "settle_by_ms": request.settle_by_ms,
        }
        if key is not None:
            wanted |= {"key": key.key.hex(), "key_source": key.source, "key_window_s": key.window_s}
        if request.history is not None:
            wanted |= {"history": True, "remembered": request.history}
        for c in request.charges:
            kept = {"a": c.account, "h": "", "m": c.amount, "w": c.window_s}
            wanted.setdefault("holding" if c.window_s else "reserved", []).append(kept)
        compared = {
            "what": "claim",
            "claim": claim_id,
            "key": key and key.key,
            "facts": version,
            "tainted": labels.tainted,
            "rank": labels.confidentiality,
            "attempt": None,
        }
        plain = request.history is None and request.history_version is None
        return await self._send(wanted, compared, request, plain=plain)

    async def settle(self, request, claim_id):
        wanted = {"kind": "settle", "claim_id": claim_id, "attempt": 1, "state": "succeeded", "release_key": False}
        compared = {"what": "settle", "claim": claim_id, "attempt": 1} | dict.fromkeys(("key", "facts", "tainted", "rank"))
        outcome = '{"structured": {"n": 7}, "content": [], "is_error": false}'
        return await self._send(wanted, compared, request, plain=True, outcome=outcome)


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
