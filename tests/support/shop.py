"""A shop behind the gate: the real composition on a real database, with tools in process whose effects are counted."""

import asyncio
from contextlib import asynccontextmanager

import msgspec

from interlock.app.plane import RecordedSessions
from interlock.app.system import Settings, running
from interlock.core.who import Lineage, Person, Session
from interlock.gateway.messages import Proposal
from interlock.store.embedded import server
from interlock.store.sessions import Sessions
from interlock.tools.port import ToolAnswer
from interlock.tools.python import PythonFunction, PythonTools

FILES = {
    "release.yaml": """
name: shop
user_attributes: {teams: set}
administration: {operated_by: [acme], kill: [Operator], resume: [Operator], activate: [Operator], propose: [Operator], status: [Operator]}
""",
    "agents.yaml": """
bot:
  test: {issuer: interlock-dev, subject: bot}
  grants:
    - {on: [shop.stock, shop.pay, shop.slow, shop.note, shop.boom, shop.wild], for: &staff {roles: [Staff], task: selling}}
    - {on: shop.hurried, for: *staff, rate: "2/60s"}
    - on: shop.person
      for: *staff
      data: {max: pii, redact: [email]}
    - on: shop.order
      for: {roles: [Staff], task: selling, where: {resource.team: {in: user.teams}}}
    - on: shop.refund
      for: {roles: [Staff], task: selling, where: {resource.team: {in: user.teams}}}
      where: {amount: {max: "100.00"}}
      ask: {rule: refunds, when: {amount: {over: "50.00"}}}
idle:
  test: {issuer: interlock-dev, subject: idle}
""",
    "tasks.yaml": "selling: {purpose: sell, open_to: [Staff], agents: [bot, idle]}\n",
    "approvals.yaml": "refunds: {role: Lead}\n",
    "policies/guard/rules.cedar": """
@id("worried")
@owner("security")
@say("Only reading now.")
forbid (principal, action in [Action::"writes", Action::"egress"], resource) when { context.session.posture != "normal" };
""",
    "tools/shop.yaml": """
python: "shop:"
operations:
  stock:
    {effects: [read], input: {item: string}, output: {item: string, left: integer}, reviewed: {by: a}}
  person:
    effects: [read]
    classification: pii
    input: {person_id: integer}
    output: {name: string, email: string}
    fields: {email: [pii, email]}
    reviewed: {by: a}
  pay: {effects: [write], input: {order_id: string, amount: decimal}, output: {n: integer}, reviewed: {by: a}}
  note: {effects: [write], input: {text: string}, output: {n: integer}, repeat: allow, reviewed: {by: a}}
  hurried: {effects: [write], input: {text: string}, output: {n: integer}, repeat: allow, reviewed: {by: a}}
  slow: {effects: [write], input: {order_id: string}, output: {n: integer}, timeout_ms: 20000, reviewed: {by: a}}
  boom: {effects: [write], input: {order_id: string}, output: {n: integer}, timeout_ms: 200, reviewed: {by: a}}
  wild: {effects: [read], input: {item: string}, output: {item: string}, reviewed: {by: a}}
  order:
    effects: [read]
    input: {order_id: string}
    output: {order_id: string}
    resource: {type: Order, id: order_id, read: shop.lookup, attributes: {team: string}}
    reviewed: {by: a}
  lookup: {effects: [read], internal: true, input: {order_id: string}, output: {team: string}, reviewed: {by: a}}
  refund:
    effects: [write]
    input: {order_id: string, amount: decimal, note?: string}
    output: {n: integer}
    once_per: [order_id, amount]
    resource: {type: Order, id: order_id, read: shop.lookup, attributes: {team: string}}
    reviewed: {by: a}
""",
}
STAFF = ("Staff",)
OPERATOR = Person(user="oki", tenant="acme", roles=("Operator",))


class Shop:
    """Tools that count what was done to them."""

    def __init__(self):
        self.calls = []
        self.teams = {"A1": "north", "B1": "south"}
        self.go_on = asyncio.Event()
        self.entered = asyncio.Event()
        self.after_effect = None

    def count(self, name):
        return sum(call[0] == name for call in self.calls)

    def done(self, name, **arguments):
        self.calls.append((name, arguments))
        return {"n": len(self.calls)}

    async def slow(self, order_id):
        made = self.done("slow", order_id=order_id)
        self.entered.set()
        await self.go_on.wait()
        return made

    async def boom(self, order_id):
        self.done("boom", order_id=order_id)
        await asyncio.Event().wait()

    def lookup(self, order_id):
        self.calls.append(("lookup", {"order_id": order_id}))
        if order_id not in self.teams:
            return ToolAnswer(content=({"type": "text", "text": "no such order"},), is_error=True)
        return {"team": self.teams[order_id]}

    async def pay(self, order_id, amount):
        made = self.done("pay", order_id=order_id, amount=amount)
        if self.after_effect is not None:
            await self.after_effect()
        if amount == "13.00":
            text = {"type": "text", "text": "card of jane@private.example declined"}
            return ToolAnswer(content=(text,), is_error=True)
        return made

    def functions(self):
        async def simple(name, arguments):
            return self.done(name, **arguments)

        def as_async(name):
            async def call(**arguments):
                return await simple(name, arguments)

            return call

        async def stock(item):
            self.calls.append(("stock", {"item": item}))
            return {"item": item, "left": 3}

        async def person(person_id):
            self.calls.append(("person", {"person_id": person_id}))
            if person_id == 13:
                text = {"type": "text", "text": "lookup of jane@private.example failed"}
                return ToolAnswer(content=(text,), is_error=True)
            return {"name": "Jane", "email": "jane@private.example"}

        async def wild(item):
            return {"item": item, "secret": "not in the schema"}

        async def order(order_id):
            return self.done("order", order_id=order_id) and {"order_id": order_id}

        async def lookup(order_id):
            return self.lookup(order_id)

        made = {
            "stock": stock,
            "person": person,
            "wild": wild,
            "order": order,
            "lookup": lookup,
            "slow": self.slow,
            "boom": self.boom,
            "pay": self.pay,
        } | {name: as_async(name) for name in ("note", "hurried", "refund")}
        return {f"shop:{name}": PythonFunction(function=function) for name, function in made.items()}


class Counter:
    """A process in front of the shop, as a test sees it."""

    def __init__(self, system, shop):
        self.system, self.shop, self.gate = system, shop, system.gate

    async def session(self, user="ana", agent="bot", roles=STAFF, tenant="acme", teams=("north",)):
        session = Session(
            session_id=self.system.ids.new("ses"),
            lineage=Lineage(tenant=tenant, environment="test", agent=agent, user=user),
            task="selling",
            roles=roles,
            attributes={"teams": teams},
            expires_at_us=self.system.clock.wall_us() + 3_600_000_000,
        )
        await RecordedSessions(Sessions(self.system.database), self.system.ids).open(session, "")
        return session

    async def call(self, session, operation, *, key="", repeat_of="", raw=None, **arguments):
        sent = msgspec.json.encode(arguments) if raw is None else raw
        proposal = Proposal(operation=f"shop.{operation}", arguments=sent, idempotency_key=key, repeat_of=repeat_of)
        return await self.gate.call(session, proposal)

    async def events(self, identifier):
        return [(event.kind, msgspec.json.decode(event.body)) for event in await self.system.traces.events(identifier)]

    async def kinds(self, identifier):
        return [kind for kind, _ in await self.events(identifier)]


@asynccontextmanager
async def counter(database_url, state, shop=None, files=FILES):
    """A process with the shop behind it. Several on one database are several gateways."""
    shop = shop or Shop()
    settings = Settings(state=state, database_url=database_url, environment="test", release_files=files, trust_dev_issuer=True)
    async with running(settings, python=PythonTools(shop.functions())) as system:
        yield Counter(system, shop)


@asynccontextmanager
async def two_processes(postgres, tmp_path_factory, files=FILES, shop=None):
    """Two processes on one database of their own; the first has this shop behind it."""
    name = await postgres.clone()
    url, places = postgres.url(server.APP, name), [tmp_path_factory.mktemp("state") for _ in range(2)]
    async with counter(url, places[0], shop, files) as one, counter(url, places[1], None, files) as two:
        yield one, two
    await postgres.drop(name)
