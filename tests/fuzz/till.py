"""The shop's till for the state machine: every execution is noted with the attempt it belongs to, and some attempts are made to end badly."""

from contextvars import ContextVar

from interlock.tools.limits import DEFAULT_LIMITS
from interlock.tools.port import ToolAnswer
from interlock.tools.python import PythonFunction
from tests.support.shop import FILES, Shop

ATTEMPT = ContextVar("attempt", default=(0, "", "", ""))
"""Which attempt of the machine's a task belongs to (number, who, key, repeat of); the gate's own tasks inherit it."""

TREE_LIMIT = 30
OPEN = {
    **FILES,
    "agents.yaml": FILES["agents.yaml"]
    + """
helper:
  test: {issuer: interlock-dev, subject: helper}
  grants:
    - {on: [shop.stock, shop.pay, shop.note, shop.hurried], for: {roles: [Staff], task: selling}}
""",
    "tasks.yaml": "selling: {purpose: sell, open_to: [Staff], agents: [bot, idle, helper]}\n",
    "budgets.yaml": f"calls-per-session: {{count: calls, per: session, limit: {TREE_LIMIT}}}\n",
}
"""The shop, with an agent to hand work on to, and a budget that all of one session's work shares."""

CAPPED = {
    **OPEN,
    "agents.yaml": OPEN["agents.yaml"]
    .replace("shop.stock, shop.pay, shop.slow", "shop.stock, shop.slow")
    .replace("- on: shop.person", '- {on: shop.pay, for: *staff, where: {amount: {max: "50.00"}}}\n    - on: shop.person'),
}
"""The same shop, in which no payment is over 50."""


class GoneError(Exception):
    """The process that made this call is no more."""


class Till(Shop):
    """Notes `(attempt, operation, arguments)`; `on_entry` may object, `befalls` says what becomes of the next execution."""

    def __init__(self, on_entry):
        super().__init__()
        self.executed = []
        self.befalls = {}
        self._on_entry = on_entry

    async def act(self, name, arguments):
        attempt = ATTEMPT.get()
        before, after = self.befalls.pop(attempt[0], (None, None))
        self._on_entry(attempt[0], name)
        if before is not None:
            await before()
            raise GoneError
        self.executed.append((attempt, name, arguments))
        self.calls.append((name, arguments))
        if after is not None:
            return await after()
        return None

    def says_too_much(self):
        """A good answer that nobody can keep."""
        return {"n": len(self.executed), "item": "x" * (DEFAULT_LIMITS.response_max_bytes + 1), "left": 3}

    def functions(self):
        def as_async(name):
            async def call(**arguments):
                said = await self.act(name, arguments)
                if isinstance(said, dict | ToolAnswer):
                    return said
                return {"item": arguments["item"], "left": 3} if name == "stock" else {"n": len(self.executed)}

            return call

        known = super().functions()
        mine = ("pay", "note", "hurried", "refund", "stock")
        return known | {f"shop:{name}": PythonFunction(function=as_async(name)) for name in mine}
