"""The shop with a tool that can be made weak: it then gives no usable answer, whatever it has done."""

import asyncio
from contextlib import asynccontextmanager

import msgspec

from interlock.app.system import Settings, running
from interlock.gateway.messages import Proposal, Refusal
from interlock.ledger.story import tell
from interlock.tools.python import PythonFunction, PythonTools
from tests.support.clock import LaterClock
from tests.support.shop import FILES, Counter, Shop

BREAKER = "breaker: {failing_percent: 50, min_calls: 4, window_s: 60, open_s: 60, trials: 2}"
WEAK = """
python: "weak:"
%s
operations:
  look: {effects: [read], input: {item: string}, output: {n: integer}, degrade: {cache_s: 300}, reviewed: {by: a}}
  peek: {effects: [read], input: {item: string}, output: {n: integer}, retry: {attempts: 3, first_ms: 1, most_ms: 2}, reviewed: {by: a}}
  glance:
    effects: [read]
    classification: pii
    input: {item: string}
    output: {n: integer, email: string}
    fields: {email: [pii, email]}
    degrade: {cache_s: 300}
    reviewed: {by: a}
  send: {effects: [write], input: {item: string}, output: {n: integer}, reviewed: {by: a}}
  crowd: {effects: [read], input: {item: string}, output: {n: integer}, bulkhead: {at_once: 2, wait_ms: 20}, reviewed: {by: a}}
"""


def files(breaker=BREAKER):
    """The shop's release with the weak tool beside it."""
    agents = FILES["agents.yaml"].replace("shop.stock,", "shop.stock, weak.look, weak.peek, weak.send, weak.crowd,")
    agents = agents.replace(
        "    - on: shop.person",
        "    - {on: weak.glance, for: *staff, data: {max: pii, redact: [email]}}\n    - on: shop.person",
    )
    return {**FILES, "agents.yaml": agents, "tools/weak.yaml": WEAK % breaker}


class Weak:
    """What the tool did, and whether it is weak now."""

    def __init__(self):
        self.weak = False
        self.calls = []
        self.go_on = None

    def count(self, name):
        return self.calls.count(name)

    def functions(self):
        def made(name):
            async def call(item):
                self.calls.append(name)
                if self.go_on is not None:
                    await self.go_on.wait()
                if self.weak:
                    return (nothing for nothing in ())  # something to be run, and nobody runs it
                found = {"n": len(self.calls)}
                return {**found, "email": "jane@private.example"} if name == "glance" else found

            return PythonFunction(function=call)

        return {f"weak:{name}": made(name) for name in ("look", "peek", "glance", "send", "crowd")}


class Process(Counter):
    """A gateway before the weak tool, on a clock that a test may advance."""

    def __init__(self, system, shop, tool, clock):
        super().__init__(system, shop)
        self.tool, self.clock = tool, clock

    async def ask(self, session, operation, item="tea"):
        sent = msgspec.json.encode({"item": item})
        return await self.gate.call(session, Proposal(operation=f"weak.{operation}", arguments=sent))

    async def story(self, identifier):
        return [line.text for line in tell(await self.system.traces.events(identifier))]

    def later(self, seconds):
        """For breakers and kept answers this much later; leases and sessions know nothing of it."""
        self.clock.later_s += seconds

    async def break_down(self, session, operation="look", times=4):
        """Let it fail until its breaker opens."""
        self.tool.weak = True
        for number in range(times):
            await self.ask(session, operation, item=f"broken-{number}")


@asynccontextmanager
async def process(database_url, state, tool=None, release=None):
    """A process; several on one database are several gateways before one tool."""
    tool, shop = tool or Weak(), Shop()
    settings = Settings(
        state=state, database_url=database_url, environment="test", release_files=release or files(), trust_dev_issuer=True
    )
    async with running(settings, python=PythonTools({**shop.functions(), **tool.functions()})) as system:
        real = system.clock

        class Later(LaterClock):
            def monotonic_s(self):
                return real.monotonic_s() + self.later_s

        clock = Later()
        system.stability._clock = clock
        system.gate._ways._clock = clock
        system.gate._ways._earlier._clock = clock
        yield Process(system, shop, tool, clock)


def code(answer):
    assert isinstance(answer, Refusal), answer
    return answer.code


async def gather(calls):
    return await asyncio.gather(*calls)
