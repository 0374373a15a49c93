"""One law, whatever happens in which order: a call fits exactly when it is within the limit with all that is used and reserved."""

import itertools
from contextlib import AsyncExitStack

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlock.core.claim import Claimed, OverBudget
from tests.budgets.test_budgets_store import ask, charge, shared
from tests.store.test_store_claims import desk

ACCOUNT_USED = (
    "SELECT coalesce(sum(held + spent + budget_in_window(account, holder, window_s, clock_timestamp())), 0)::int8 "
    "FROM budget WHERE account = $1"
)
SLICES = "SELECT coalesce(sum(size), 0)::int8 FROM budget WHERE account = $1 AND holder <> ''"
_accounts = itertools.count()

sides = st.integers(0, 2)
steps = st.one_of(
    st.tuples(st.just("claim"), sides, st.integers(1, 9)),
    st.tuples(st.just("lifted"), sides, st.integers(1, 9)),
    st.tuples(st.just("limit"), st.integers(0, 30), st.none()),
    st.tuples(st.just("done"), st.integers(0, 50), st.none()),
    st.tuples(st.just("never happened"), st.integers(0, 50), st.none()),
    st.tuples(st.just("in doubt"), st.integers(0, 50), st.none()),
    st.tuples(st.just("really used"), st.integers(0, 50), st.integers(0, 12)),
)


class Model:
    """What must be true of one budget: a plain sum. `beyond` is what was let through or turned out to be more than reserved."""

    def __init__(self, limit):
        self.limit, self.spent, self.beyond, self.open = limit, 0, 0, []

    @property
    def used(self):
        return self.spent + sum(amount for _, _, amount in self.open)

    def pick(self, number):
        return self.open[number % len(self.open)] if self.open else None


@given(st.sampled_from(["one row", "a window", "shared"]), st.integers(0, 30), st.lists(steps, max_size=25))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_a_call_fits_exactly_when_it_is_within_the_limit(database_urls, kind, limit, history):
    account = f"calls:x:law:{next(_accounts)}"
    model, highest = Model(limit), limit

    def made(amount, *, lifted=False):
        if kind == "shared":
            return shared(model.limit, amount, account=account, lifted=lifted)
        return charge(model.limit, amount, account=account, window_s=60 if kind == "a window" else 0, lifted=lifted)

    async with AsyncExitStack() as stack:
        desks = [await stack.enter_async_context(desk(database_urls.app, f"{account}-{number}")) for number in range(3)]
        sessions = [await side.session(f"{account}{number}") for number, side in enumerate(desks)]
        for what, which, amount in history:
            if what in {"claim", "lifted"}:
                side, session = desks[which], sessions[which]
                lifted = what == "lifted"
                answer = await side.claim(session, charges=(made(amount, lifted=lifted),))
                if lifted or model.used + amount <= model.limit:
                    assert isinstance(answer, Claimed), (what, model.used, model.limit)
                elif kind != "shared" or model.used - model.beyond + amount > model.limit:
                    assert isinstance(answer, OverBudget)
                # A slice that was drawn within the limit may still be used up when another goes beyond it.
                if isinstance(answer, Claimed):
                    model.open.append((which, answer, amount))
                    model.beyond += amount if lifted else 0
                else:
                    assert answer.used == model.used
            elif what == "limit":
                model.limit, highest = which, max(highest, which)
            elif (chosen := model.pick(which)) is not None:
                at, claimed, taken = chosen
                side, session = desks[(at + which) % 3], sessions[at]  # whoever finds out what became of it
                if what == "in doubt":
                    await side.settle(session, claimed, "in_doubt", outcome=None)
                    continue
                model.open.remove(chosen)
                if what == "never happened":
                    await side.settle(session, claimed, "failed", release_key=True, outcome=None)
                else:
                    spent = {account: amount} if what == "really used" else {}
                    await side.settle(session, claimed, spent=spent)
                    model.spent += amount if what == "really used" else taken
                    model.beyond += max(0, amount - taken) if what == "really used" else 0
            assert await ask(database_urls.auditor, ACCOUNT_USED, account) == model.used
            if kind == "shared":
                assert await ask(database_urls.auditor, SLICES, account) <= highest
