"""The version before runs on this version's schema: its SQL is prepared and gives what it gave, and its claims and ours see each other."""

import json

import asyncpg
import msgspec
import pytest

from interlock.gateway.messages import Returned
from interlock.store.migrate import RELEASED, migrations
from tests.store.before.record import RECORD, described
from tests.support.shop import OPERATOR, counter

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
            "key": key.key.hex(),
            "key_source": key.source,
            "key_window_s": key.window_s,
            "rates": [],
            "control": request.epochs.control,
            "release": request.epochs.release,
            "revocation": request.epochs.revocation,
            "facts_version": version,
            "tainted": False,
            "confidentiality": 0,
            "settle_by_ms": request.settle_by_ms,
            "approvals": [],
            "approved_hash": "",
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


async def the_request(made, session, asked, arguments):
    """What we would ask for a call, with nothing claimed."""

    async def refused(request):
        asked.append(request)
        raise OSError

    desk, made.system.writer.claim = made.system.writer.claim, refused
    try:
        await made.call(session, "pay", **arguments)
    finally:
        made.system.writer.claim = desk
    return asked[-1]


def the_next(request):
    """The same for another key."""
    key = msgspec.structs.replace(request.idempotency, key=bytes(32))
    return msgspec.structs.replace(request, idempotency=key)
