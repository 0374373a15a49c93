"""A payments tool that keeps a table of its own, and loses answers when told to."""

import asyncio

from interlock.tools.fence import current_key
from interlock.tools.python import PythonFunction
from tests.support.clock import LaterClock
from tests.support.shop import FILES, Shop

OPERATIONS = """
python: "shop:"
operations:
  pay:
    effects: [write]
    input: {order: string, amount: decimal}
    output: {n: integer}
    verify: {read: shop.paid, done_when: {"payments[].key": {is: $key}}}
    settles_within_s: 30
    timeout_ms: 300
    reviewed: {by: a}
  held:
    effects: [write]
    input: {order: string, amount: decimal}
    output: {n: integer}
    verify: {read: shop.paid, done_when: {"payments[].key": {is: $key}}}
    settles_within_s: 30
    timeout_ms: 20000
    reviewed: {by: a}
  once:
    effects: [write]
    honours_key: true
    input: {order: string, amount: decimal}
    output: {n: integer}
    timeout_ms: 300
    reviewed: {by: a}
  top_up:
    effects: [write]
    input: {order: string, amount: decimal}
    output: {n: integer}
    verify: {read: shop.paid, done_when: {total: {at_least: amount}}}
    settles_within_s: 30
    timeout_ms: 300
    reviewed: {by: a}
  blind: {effects: [write], input: {order: string}, output: {n: integer}, verify: shop.paid, timeout_ms: 300, reviewed: {by: a}}
  paid:
    effects: [read]
    input: {order: string}
    output: {payments: [{key: string, amount: decimal}], total: decimal}
    reviewed: {by: a}
"""
RELEASE = {
    **FILES,
    "release.yaml": FILES["release.yaml"].replace("status:", "settle: [Clerk], status:"),
    "agents.yaml": """
bot:
  test: {issuer: interlock-dev, subject: bot}
  grants:
    - {on: [shop.pay, shop.held, shop.once, shop.top_up, shop.blind, shop.paid], for: {roles: [Staff], task: selling}}
idle:
  test: {issuer: interlock-dev, subject: idle}
""",
    "approvals.yaml": "refunds: {role: Lead}\n",
    "tools/shop.yaml": OPERATIONS,
    "budgets.yaml": 'paid-per-session: {sum: shop.pay.amount, per: session, limit: "100.00"}\n',
}


class Payments(Shop):
    """`loses` says what happens to the next payments: `after` it was made, or `before`; `breaks` breaks the reading."""

    def __init__(self):
        super().__init__()
        self.table = []
        self.loses = []
        self.breaks = False
        self.hold = None

    async def make(self, order, amount="1.00", *, once=False):
        how = self.loses.pop(0) if self.loses else ""
        if how == "before":
            await asyncio.Event().wait()
        key = current_key()
        if not (once and any(row["key"] == key for row in self.table)):
            self.table.append({"order": order, "amount": amount, "key": key})
        if self.hold is not None:
            self.entered.set()
            await self.hold.wait()
        if how == "after":
            await asyncio.Event().wait()
        return {"n": 1}

    def rows(self, order):
        return [row for row in self.table if row["order"] == order]

    def functions(self):
        async def once(order, amount):
            return await self.make(order, amount, once=True)

        async def paid(order):
            if self.breaks:
                raise RuntimeError("the ledger of payments is away")
            rows = self.rows(order)
            shown = [{"key": row["key"], "amount": row["amount"]} for row in rows]
            return {"payments": shown, "total": f"{sum(float(row['amount']) for row in rows):.2f}"}

        made = {"pay": self.make, "held": self.make, "top_up": self.make, "blind": self.make, "once": once, "paid": paid}
        return {f"shop:{name}": PythonFunction(function=function) for name, function in made.items()}


def one_round_at_a_time(made):
    """The process looks for itself too, every few seconds: a round of a test comes after one that is under way, not beside it."""
    reconciler, turn = made.system.gate.reconciler, asyncio.Lock()
    look = reconciler.round

    async def in_turn(*words):
        async with turn:
            return await look(*words)

    reconciler.round = in_turn


def later(made, seconds):
    """The process's reconciler looks again when so much time has passed for it."""
    reconciler = made.system.gate.reconciler
    if not isinstance(reconciler._clock, LaterClock):
        reconciler._clock = LaterClock()
    reconciler._clock.later_s += seconds


async def reconcile(made, seconds=0.0):
    """Look, let time pass, and look again."""
    await made.system.reconcile()
    later(made, seconds)
    return await made.system.reconcile()
