"""Several processes at once, watched by the database itself: what becomes a claim is what was decided on, as things stand then."""

import asyncio
import random
from contextlib import AsyncExitStack
from unittest import mock

import asyncpg

from interlock.core.budget import Charge
from interlock.core.claim import Claimed, Epochs, Labels, LineageState, Stale
from interlock.core.terms import Posture
from interlock.ledger.reader import verify_database
from interlock.store import writer
from interlock.store.labels import LabelRows
from tests.store.test_store_claims import desk, event

WATCHED = """
CREATE TABLE wrong (what text);
CREATE FUNCTION look_at_claim() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    INSERT INTO wrong
    SELECT 'decided on something else' FROM epoch e, lineage l WHERE l.lineage_id = NEW.lineage_id
    AND NOT format('seen:%s:%s:%s:%s', e.control, e.release, e.revocation, l.facts_version) = ANY (NEW.scopes)
    UNION ALL SELECT 'halted lineage' FROM lineage WHERE lineage_id = NEW.lineage_id AND posture = 'halted'
    UNION ALL SELECT 'halted scope' FROM control WHERE halted AND scope = ANY (NEW.scopes)
    UNION ALL SELECT 'ended session' FROM session WHERE session_id = NEW.session_id AND revoked
    UNION ALL SELECT 'key claimed twice' FROM idempotency WHERE key = NEW.key;
    RETURN NEW;
END $$;
CREATE TRIGGER looked_at BEFORE INSERT ON claim FOR EACH ROW EXECUTE FUNCTION look_at_claim();
CREATE FUNCTION look_at_settlement() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    INSERT INTO wrong SELECT 'settled twice' WHERE OLD.state IN ('succeeded', 'failed');
    RETURN NEW;
END $$;
CREATE TRIGGER looked_at_again BEFORE UPDATE OF state ON claim FOR EACH ROW EXECUTE FUNCTION look_at_settlement();
"""
NOW = """SELECT e.control, e.release, e.revocation, l.facts_version FROM epoch e, lineage l WHERE l.lineage_id = $1"""
ROOM = 80
WORSE = LineageState(facts_version=0, posture=Posture.NORMAL, tainted=True, confidentiality=0, tainted_by="c a.b")


class Race:
    """Callers of several processes who decide on what they knew a moment ago, and people who change it."""

    def __init__(self, desks, owner, chance):
        self.desks, self.owner, self.chance = desks, owner, chance
        self.sessions, self.known = [], {}

    async def open(self):
        self.sessions.append(await self.chance.choice(self.desks).session(f"user{self.chance.randrange(3)}"))

    async def claim(self, at, session):
        lineage = session.lineage.id
        if lineage not in self.known:
            self.known[lineage] = tuple(await self.owner.fetchrow(NOW, lineage))
        seen = self.known[lineage]
        more = {
            "key": f"{lineage}{self.chance.randrange(200)}" if self.chance.random() < 0.5 else None,
            "worst_labels": Labels(tainted=self.chance.random() < 0.01),
            "charges": (Charge(budget="b", account=f"b:{lineage}", amount=1, limit=ROOM, about="s"),),
            "epochs": Epochs(control=seen[0], release=seen[1], revocation=seen[2]),
            "facts_version": seen[3],
            "scopes": ("fleet", f"session:{session.session_id}", f"seen:{':'.join(map(str, seen))}"),
        }
        answer = await at.claim(session, **more)
        if isinstance(answer, Stale):
            self.known.pop(lineage, None)
        if isinstance(answer, Claimed):
            both = [at.settle(session, answer), self.chance.choice(self.desks).settle(session, answer, "failed")]
            await asyncio.gather(*both[: 1 + (self.chance.random() < 0.1)])
            for unused in both[1:]:
                unused.close()

    async def change(self, at, session):
        match self.chance.randrange(4):
            case 0:
                for halted in (True, False):
                    await at.control(f"session:{session.session_id}", halted=halted)
            case 1:
                await at.database.pool().fetchval("SELECT revoke_session($1)", session.session_id)
                await self.open()
            case 2:
                rows = LabelRows(at.database)
                if less := await rows.labelled_less(session, WORSE):
                    await rows.spread(session, WORSE, less, event())
            case _:
                await self.owner.execute(
                    "DO $$ BEGIN LOCK TABLE epoch IN EXCLUSIVE MODE; UPDATE epoch SET release = release + 1; END $$"
                )

    async def caller(self, at, steps):
        for _ in range(steps):
            session = self.chance.choice(self.sessions[-8:])
            await (self.change if self.chance.random() < 0.02 else self.claim)(at, session)


async def test_whatever_changes_while_several_processes_claim_no_claim_is_one_that_had_to_be_refused(database_urls):
    owner = await asyncpg.create_pool(database_urls.superuser, min_size=1, max_size=3)
    await owner.execute(WATCHED)
    async with AsyncExitStack() as stack:
        desks = [await stack.enter_async_context(desk(database_urls.app, f"p{number}")) for number in range(3)]
        race = Race(desks, owner, random.Random(7))
        for _ in range(6):
            await race.open()
        with mock.patch.object(writer, "all_plain", wraps=writer.all_plain) as short:
            await asyncio.gather(*(race.caller(at, 40) for at in desks for _ in range(4)))
        assert short.call_count > 30
    assert [row["what"] for row in await owner.fetch("SELECT what FROM wrong")] == []
    assert await owner.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    spent = await owner.fetch("SELECT spent, (SELECT count(*) FROM claim WHERE 'b:' || lineage_id = account) AS n FROM budget")
    assert all(row["spent"] == row["n"] <= ROOM for row in spent)
    assert (await verify_database(database_urls.auditor, {}, None)).findings == []
    await owner.close()
