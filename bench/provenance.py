"""How long it takes to tell where the arguments of one call came from, in a session that has read a megabyte.

`index`: the pure look-up. `session`: with asking the database whether anything new has entered, as the gate does. Also how
long it takes to take up a result of 64 KB, once, before it is released.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from interlock.app.plane import RecordedSessions
from interlock.app.risk import RiskWatch
from interlock.app.sources import SystemClock, SystemIds
from interlock.app.standings import LoadedStandings
from interlock.core.contract import Contract, RecordShape
from interlock.core.risk import RiskRules
from interlock.core.terms import Effect
from interlock.core.who import Lineage, Session
from interlock.gateway.contexts import Contexts
from interlock.gateway.released import Released
from interlock.gateway.spreading import Spreading
from interlock.provenance.items import of_result
from interlock.provenance.tokens import Tokenizer
from interlock.provenance.trace import trace
from interlock.store.context import ContextItems
from interlock.store.database import open_database
from interlock.store.embedded import server as embedded
from interlock.store.labels import LabelRows
from interlock.store.migrate import migrate
from interlock.store.postures import Postures
from interlock.store.risk import RiskRows
from interlock.store.sessions import Sessions

RESULTS: Final = 16
RESULT_CHARS: Final = 64 * 1024
CALLS: Final = 2_000
MAIL: Final = Contract(
    operation="mail.send",
    tool="mail",
    upstream_name="send",
    effects=frozenset({Effect.WRITE, Effect.EGRESS}),
    input_schema="{}",
    arguments=RecordShape(fields={}),
    targets=("to", "cc", "amount", "on"),
    content=("text",),
)
READ: Final = msgspec.structs.replace(
    MAIL, operation="mail.read", effects=frozenset({Effect.READ}), targets=("id",), content=()
)
BODY: Final = "Dear Kim, as agreed on Friday, see https://corp.example/report?id=7 or ask lee@corp.example. " * 8


def text(dice: random.Random) -> str:
    """A result: words, numbers, addresses; each result has others."""
    words: list[str] = []
    size = 0
    while size < RESULT_CHARS:
        kind = dice.random()
        word = (
            f"w{dice.randrange(20_000)}"
            if kind < 0.93
            else f"{dice.randrange(10**6)}.{dice.randrange(100):02}"
            if kind < 0.97
            else f"p{dice.randrange(10**6)}@host{dice.randrange(999)}.example"
        )
        words.append(word)
        size += len(word) + 1
    return " ".join(words)


def arguments(number: int) -> dict[str, Any]:
    """Those of one call: some said by the user, some from nowhere, with a text of 700 characters."""
    return {
        "to": "kim@corp.example" if number % 2 else f"new{number}@corp.example",
        "cc": [f"p{number}@host{number % 999}.example", "lee@corp.example"],
        "amount": 1250.5 + number,
        "on": "2027-05-15",
        "text": f"{BODY} ({number})",
    }


async def _no_mark() -> None:
    """Nothing is kept beside this database."""


async def longest_wait(found: list[float]) -> None:
    """The longest that the event loop let somebody wait who only wanted to go on, until cancelled; added to `found`."""
    longest, before = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, before = max(longest, now - before), now
    finally:
        found.append(longest * 1e3)


def of_words(dice: random.Random) -> str:
    """A text of ordinary words, as long as a result."""
    words = "the order was paid on Friday and Kim wrote that it may come a day later than we all said here".split()  # noqa: SIM905
    return " ".join(dice.choice(words) for _ in range(RESULT_CHARS // 5))[:RESULT_CHARS]


def alone(written: str) -> float:
    """Processor time of cutting one result into tokens, the least of nine, in milliseconds."""
    taken = []
    for _ in range(9):
        begun = time.process_time()
        of_result(Tokenizer("bench"), "mail.read", "call", structured=None, texts=(written,), trusted=())
        taken.append((time.process_time() - begun) * 1e3)
    return min(taken)


async def measure(url: str) -> dict[str, float]:
    """The figures, on a migrated database."""
    database = await open_database(url)
    ids, dice = SystemIds(), random.Random(7)
    session = Session(
        session_id=ids.new("ses"),
        lineage=Lineage(tenant="acme", environment="bench", agent="bot", user="kim"),
        task="bench",
        roles=(),
        attributes={},
        expires_at_us=2**60,
    )
    await RecordedSessions(Sessions(database), ids).open(session, "")
    # A release without thresholds: nothing is looked for, so that what is measured is provenance alone.
    watch = RiskWatch(
        rows=RiskRows(database, "bench"),
        postures=Postures(database, _no_mark),
        rules=RiskRules,
        detectors=(),
        slow=lambda _: (),
        clock=SystemClock(),
        ids=ids,
    )
    shelf = ContextItems(database)
    spreading = Spreading(LabelRows(database), LoadedStandings(Sessions(database)), ids)
    contexts = Contexts(shelf, watch, spreading)
    await contexts.said(session, "inp_1", "Write to kim@corp.example and lee@corp.example by May 15th, 2027 about 1,250.50.")
    taking, waited = [], []
    for number in range(RESULTS):
        made = Released(content=({"type": "text", "text": text(dice)},))
        watching = asyncio.create_task(longest_wait(waited))
        await asyncio.sleep(0)
        begun = time.perf_counter()
        item = await contexts.entering(session, READ, f"call_{number}", made)
        assert item is not None
        await shelf.add(session.lineage.id, session.session_id, item)
        taking.append((time.perf_counter() - begun) * 1e3)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    whole = []
    for number in range(CALLS):
        begun = time.perf_counter()
        await contexts.trace(session, MAIL, arguments(number), tainted=True)
        whole.append((time.perf_counter() - begun) * 1e3)
    known = await contexts._known.of(session)  # noqa: SLF001  # the look-up without the database
    pure = []
    for number in range(CALLS):
        begun = time.perf_counter()
        trace(MAIL, arguments(number), known.index, known.tokenizer, tainted=True)
        pure.append((time.perf_counter() - begun) * 1e3)
    await database.close()
    return {
        "provenance p50 ms, index of 1 MB": statistics.median(pure),
        "provenance p99 ms, index of 1 MB": statistics.quantiles(pure, n=100)[98],
        "provenance p50 ms, session of 1 MB": statistics.median(whole),
        "provenance p99 ms, session of 1 MB": statistics.quantiles(whole, n=100)[98],
        "taking up a result of 64 KB ms": statistics.median(taking),
        "the event loop's longest wait meanwhile ms": statistics.median(waited),
        "taking up 64 KB of prose, processor ms": alone(of_words(dice)),
        "tokens of a context of 1 MB": float(known.index.tokens),
    }


def run() -> dict[str, float]:
    """Measure on a durable Postgres of its own."""
    state = Path(tempfile.mkdtemp(prefix="interlock-bench-"))
    lease = embedded.acquire(state)
    try:
        asyncio.run(migrate(lease.running.owner_url))
        return asyncio.run(measure(lease.running.app_url))
    finally:
        lease.release()
        embedded.stop(state)


if __name__ == "__main__":
    for name, value in run().items():
        print(f"{name}: {value:,.3f}")
