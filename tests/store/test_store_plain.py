"""The law of the short way: what is compared for a whole batch at once is answered as it would be request by request."""

import itertools
import json
from unittest import mock

import asyncpg
import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlock.core.budget import Charge
from interlock.core.claim import Claimed, Epochs, Idempotency, Labels, Recorded, RecordRequest, SessionEnded, SettleRequest
from interlock.core.context import Item
from interlock.core.decision import Rate
from interlock.store import batch, writer
from tests.store.test_store_claims import desk, digest, event

_turns = itertools.count()


def mostly(usual, *others):
    """The usual thing, and now and then one of the others: a batch is only plain when everything in it is usual."""
    return st.sampled_from([usual] * 9 + list(others))


claims = st.fixed_dictionaries(
    {
        "what": st.just("claim"),
        "who": st.integers(0, 2),
        "behind": mostly(0, 1),
        "other_epochs": mostly(False, True),
        "labels": mostly((False, 0), (True, 0), (False, 2)),
        "key": st.sampled_from([None, None, "k1", "k2", "k3", "k4"]),
        "rate": mostly(None, 2),
        "charge": mostly((50, 0), None, (2, 0), (3, 60)),
        "history": mostly(None, "{}"),
    }
)
settles = st.fixed_dictionaries(
    {
        "what": st.just("settle"),
        "which": st.integers(0, 3),
        "state": mostly("succeeded", "failed", "in_doubt"),
        "attempt": mostly(1, 2),
        "gives_back": st.booleans(),
        "spent": mostly(None, 0),
        "enters": st.booleans(),
    }
)
records = st.fixed_dictionaries({"what": st.just("record"), "who": st.integers(0, 2), "behind": mostly(0, None, 1)})
turns = st.fixed_dictionaries({"what": st.sampled_from(["halt", "revoke", "halt lineage"]), "who": st.integers(0, 2)})
sent = st.lists(st.one_of(claims, claims, settles, records), min_size=1, max_size=3)
batches = st.lists(st.one_of(sent, sent, sent, sent, turns), min_size=4, max_size=9)


TABLES = (
    """SELECT claim_id, state, attempt, outcome, reserved, holding, tainted, unsent, history_n, remembered FROM claim
       WHERE lineage_id = ANY ($1)""",
    """SELECT lineage_id, facts_version, tainted, confidentiality, history_version, tainted_by, confidential_by FROM lineage
       WHERE lineage_id = ANY ($1)""",
    """SELECT e.chain_id, e.seq, e.kind, b.body FROM event e JOIN event_body b USING (chain_id, seq)
       WHERE e.chain_id = ANY ($1)""",
    "SELECT chain_id, head_seq FROM chain WHERE chain_id = ANY ($1)",
    "SELECT account, held, spent, cap, window_s FROM budget WHERE split_part(account, ':', 2) = ANY ($1)",
    "SELECT account, amount FROM budget_use WHERE split_part(account, ':', 2) = ANY ($1)",
    "SELECT lineage_id, n, session_id, standings, tokens FROM context_item WHERE lineage_id = ANY ($1)",
    "SELECT i.claim_id, i.source FROM idempotency i JOIN claim USING (claim_id) WHERE lineage_id = ANY ($1)",
)


class Twin:
    """One world of three callers. Two of them are told the same story, one of them request by request."""

    def __init__(self, at, owner, tag, sessions):
        self.at, self.owner, self.tag, self.sessions = at, owner, tag, sessions
        self.claimed = []
        self.plain = 0

    def made(self, told, versions, epochs):
        if told["what"] == "settle":
            return self.settle(told)
        session = self.sessions[told["who"]]
        behind = told["behind"]
        version = None if behind is None else versions[session.lineage.id] - behind
        if told["what"] == "record":
            return RecordRequest(
                call_id="",
                session_id=session.session_id,
                lineage_id=session.lineage.id,
                epochs=None if behind is None else epochs,
                facts_version=version,
                events=(event(text='{"r":1}'),),
            )
        more = {"worst_labels": Labels(tainted=told["labels"][0], confidentiality=told["labels"][1]), "facts_version": version}
        more["epochs"] = msgspec.structs.replace(epochs, release=epochs.release + 1) if told["other_epochs"] else epochs
        more["scopes"] = ("fleet", f"session:{session.session_id}")
        if told["key"]:
            more["idempotency"] = Idempotency(key=digest(self.tag + told["key"]), source="caller", window_s=600)
        if told["rate"]:
            more["rates"] = (Rate(limit=told["rate"], window_s=60),)
        if told["charge"]:
            limit, window_s = told["charge"]
            account = f"calls-{limit}-{window_s}:{session.session_id}"
            more["charges"] = (Charge(budget="b", account=account, amount=1, limit=limit, window_s=window_s),)
        if told["history"]:
            more["history"] = told["history"]
        return self.at.request(session, **more)

    def settle(self, told):
        if not self.claimed:
            return None
        request = self.claimed[-1 - told["which"] % len(self.claimed)]
        spent = {} if told["spent"] is None or not request.charges else {request.charges[0].account: told["spent"]}
        item = Item(source="a.b", reference="", tokens={4: b"12345678", 16: b"87654321"}, is_complete=True)
        return SettleRequest(
            claim_id=request.claim_id,
            session_id=request.session_id,
            lineage_id=request.lineage_id,
            attempt=told["attempt"],
            state=told["state"],
            outcome="{}",
            release_key=told["gives_back"] and told["state"] == "failed",
            spent=spent,
            events=(event(text='{"s":1}'),),
            enters=item if told["enters"] else None,
        )

    async def send(self, told):
        rows = await self.owner.fetch("SELECT lineage_id, facts_version FROM lineage")
        epoch = await self.owner.fetchrow("SELECT control, release, revocation FROM epoch")
        versions = dict(map(tuple, rows))
        made = [self.made(one, versions, Epochs(**dict(epoch))) for one in told]
        # The writer never puts two settlements of one claim into one batch.
        requests = list({one.claim_id if isinstance(one, SettleRequest) else id(one): one for one in made if one}.values())
        if not requests:
            return []
        with mock.patch.object(writer, "all_plain", wraps=writer.all_plain) as short:
            answers = await self.at.writer._send_until_answered(requests)
        self.plain += short.called
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Claimed):
                self.claimed.append(request)
        return [self.plainly(msgspec.json.encode([type(answer).__name__, answer]).decode()) for answer in answers]

    async def turn(self, told):
        session = self.sessions[told["who"]]
        match told["what"]:
            case "halt":
                await self.at.control(f"session:{session.session_id}", halted=True)
            case "revoke":
                await self.owner.execute("UPDATE session SET revoked = true WHERE session_id = $1", session.session_id)
            case _:
                await self.owner.execute("UPDATE lineage SET posture = 'halted' WHERE lineage_id = $1", session.lineage.id)

    def plainly(self, text):
        """Without what differs between twins: their ids and the time, and how often the controls were changed."""
        found = json.loads(text)
        if isinstance(found, list) and isinstance(found[1], dict):
            for name in ("claimed_at_us", "settled_at_us", "epochs", "retry_after_ms"):
                found[1].pop(name, None)
        text = json.dumps(found, sort_keys=True)
        for number, session in enumerate(self.sessions):
            text = text.replace(session.session_id, f"S{number}").replace(session.lineage.id, f"L{number}")
        for number, request in enumerate(self.claimed):
            text = text.replace(request.claim_id, f"C{number}").replace(request.call_id, f"K{number}")
        return text.replace(self.tag, "")

    async def stands(self):
        """Everything that the story has left in the tables, as far as twins may be compared."""
        about = {"lineages": [one.lineage.id for one in self.sessions], "sessions": [one.session_id for one in self.sessions]}
        found = []
        for sql in TABLES:
            which = "lineages" if "lineage_id = ANY" in sql else "sessions"
            rows = [self.plainly(json.dumps(list(row), default=bytes.hex)) for row in await self.owner.fetch(sql, about[which])]
            found.append(sorted(row.replace(f"user{self.tag}", "user") for row in rows))
        return found


async def both_ways(urls, name, story):
    """Tell twins the same story, the second one request by request; gives how many batches of the first were plain."""
    owner = await asyncpg.connect(urls.superuser)
    short, plain = batch.may_be_plain, 0
    async with desk(urls.app, name) as at:
        tags = (f"a{name}-", f"b{name}-")
        twins = [Twin(at, owner, tag, [await at.session(f"{tag}{number}") for number in range(3)]) for tag in tags]
        for told in story:
            answers = []
            for twin in twins:
                batch.may_be_plain = short if twin is twins[0] else (lambda _: False)
                try:
                    answers.append(await (twin.send(told) if isinstance(told, list) else twin.turn(told)))
                finally:
                    batch.may_be_plain = short
            assert answers[0] == answers[1]
        assert await twins[0].stands() == await twins[1].stands()
        plain = twins[0].plain
        assert twins[1].plain == 0
    await owner.close()
    return plain


@given(batches)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_a_batch_that_is_compared_as_a_whole_is_answered_as_request_by_request(database_urls, story):
    await both_ways(database_urls, f"p{next(_turns)}", story)


CLAIM = {
    "what": "claim", "who": 0, "behind": 0, "other_epochs": False, "labels": (False, 0), "key": None, "rate": None,
    "charge": (50, 0), "history": None,
}  # fmt: skip
SETTLE = {"what": "settle", "which": 0, "state": "succeeded", "attempt": 1, "gives_back": False, "spent": None, "enters": True}
RECORD = {"what": "record", "who": 1, "behind": 0}
OTHER = {**CLAIM, "who": 1}
UNUSUAL = {
    "a claim on facts of before": [[OTHER, {**CLAIM, "behind": 1}]],
    "a claim on other epochs": [[OTHER], [{**CLAIM, "other_epochs": True}]],
    "a label that rises": [[OTHER, {**CLAIM, "labels": (True, 0)}], [OTHER, CLAIM]],
    "data more sensitive than any before": [[OTHER, {**CLAIM, "labels": (False, 2)}], [OTHER, CLAIM]],
    "a key that was claimed": [[{**CLAIM, "key": "k1"}], [OTHER, {**CLAIM, "key": "k1"}]],
    "one key twice": [[{**CLAIM, "key": "k1"}, {**CLAIM, "key": "k1"}]],
    "a rate": [[{**CLAIM, "rate": 1}], [{**CLAIM, "rate": 1}]],
    "a budget near its end": [
        [{**CLAIM, "charge": (2, 0)}],
        [{**CLAIM, "charge": (2, 0)}],
        [OTHER, {**CLAIM, "charge": (2, 0)}],
    ],
    "more than a budget holds, all at once": [[{**CLAIM, "charge": (2, 0)}] * 3],
    "more than a budget has left, all at once": [[{**CLAIM, "charge": (2, 0)}], [{**CLAIM, "charge": (2, 0)}, OTHER] * 2],
    "a budget in a window": [[{**CLAIM, "charge": (3, 60)}], [SETTLE], [{**CLAIM, "charge": (3, 60)}, SETTLE]],
    "history": [[{**CLAIM, "history": "{}"}], [SETTLE]],
    "a session that has ended": [[CLAIM], {"what": "revoke", "who": 0}, [OTHER, CLAIM], [{**RECORD, "who": 0}], [SETTLE]],
    "a halt": [[CLAIM], {"what": "halt", "who": 0}, [OTHER, CLAIM], [SETTLE]],
    "a halted lineage": [[CLAIM], {"what": "halt lineage", "who": 0}, [OTHER, CLAIM], [{**RECORD, "who": 0}], [SETTLE]],
    "an attempt that is not the one at hand": [[CLAIM], [OTHER, {**SETTLE, "attempt": 2}]],
    "settled before": [[CLAIM], [SETTLE], [{**SETTLE, "state": "failed"}], [SETTLE]],
    "in doubt and then not": [[CLAIM], [{**SETTLE, "state": "in_doubt"}], [SETTLE]],
    "what never happened": [
        [{**CLAIM, "key": "k1"}],
        [{**SETTLE, "state": "failed", "gives_back": True}],
        [{**CLAIM, "key": "k1"}],
    ],
    "less used than reserved": [[CLAIM], [{**SETTLE, "spent": 0}]],
    "a record on facts of before": [[CLAIM], [OTHER, {**RECORD, "behind": 1}]],
    "a record on nothing": [[{**RECORD, "behind": None}], {"what": "revoke", "who": 1}, [{**RECORD, "behind": None}]],
}


async def test_whatever_is_unusual_in_a_batch_is_answered_as_request_by_request(database_urls):
    for number, story in enumerate(UNUSUAL.values()):
        # Budgets that have no rows yet are unusual themselves.
        await both_ways(database_urls, f"u{number}", [[CLAIM, OTHER], *story])


async def test_what_most_batches_are_made_of_takes_the_short_way(database_urls):
    usual = [[CLAIM, {**OTHER, "key": "k1"}, RECORD], [SETTLE, {**SETTLE, "which": 1}, CLAIM], [SETTLE, RECORD]]
    # The first meets budgets that have no rows yet.
    assert await both_ways(database_urls, "usual", usual) == len(usual)


async def test_what_most_batches_are_made_of_is_not_looked_at_request_by_request_at_all(database_urls):
    async with desk(database_urls.app) as at:
        session = await at.session()
        with mock.patch.object(writer, "arguments", side_effect=AssertionError("looked at request by request")):
            for key in (None, "k"):
                claimed = await at.claim(session, key=key)
                await at.settle(session, claimed)


async def test_a_claim_that_is_sent_twice_is_one_claim(database_urls):
    async with desk(database_urls.app) as at:
        request = at.request(await at.session())
        first, second = [await at.writer.claim(request) for _ in range(2)]
        assert isinstance(second, Claimed)
        assert second.claim_id == first.claim_id


async def test_a_session_of_another_lineage_claims_nothing_and_records_nothing(database_urls):
    async with desk(database_urls.app) as at:
        session, other = await at.session("ana"), await at.session("ben")
        for lineage in (session.lineage.id, other.lineage.id):
            is_own = lineage == session.lineage.id
            claimed = await at.claim(session, lineage_id=lineage)
            record = RecordRequest(
                call_id="",
                session_id=session.session_id,
                lineage_id=lineage,
                epochs=None,
                facts_version=None,
                events=(event(),),
            )
            assert isinstance(claimed, Claimed if is_own else SessionEnded)
            assert isinstance(await at.writer.record(record), Recorded if is_own else SessionEnded)
