"""Calls in doubt, unstable tools and budgets near their limit on the page; and the stop button, scope by scope."""

import asyncio

import pytest_asyncio
from playwright.async_api import expect

from interlock.core.who import Person
from interlock.gateway.messages import Returned
from interlock.server.page.forms import form_token
from tests.page.browser import DEADLINE_MS, looking
from tests.page.house import FILES, served
from tests.page.test_page_browser import FAINT, UNNAMED
from tests.support.shop import counter

expect.set_options(timeout=DEADLINE_MS)
ONE_CALL_OPENS_IT = "breaker: {failing_percent: 1, min_calls: 1, window_s: 60, open_s: 60, trials: 1}"
BAD_DAY = {
    **FILES,
    "release.yaml": FILES["release.yaml"].replace("lower:", "settle: [Security]\n  lower:"),
    "tools/shop.yaml": FILES["tools/shop.yaml"].replace("timeout_ms: 200,", f"timeout_ms: 200, {ONE_CALL_OPENS_IT},"),
    "budgets.yaml": "booms: {count: calls, on: shop.boom, per: session, limit: 1}\n",
}
SAM = {"user": "sam", "roles": ("Operator", "Security")}
OKI = Person(user="oki", tenant="acme", roles=("Operator",))


@pytest_asyncio.fixture(loop_scope="session")
async def house(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=BAD_DAY) as made, served(made) as opened:
        yield opened


async def lost(house, user="ana"):
    """A call whose end is not known, by a tool that is unstable from then on, and its budget all used up."""
    session = await house.made.session(user=user)
    told = await house.made.call(session, "boom", order_id="A1")
    assert told.code == "in_doubt"
    await house.made.system.reconcile()
    await house.made.system.breakers.tend()
    return session, told


async def test_a_person_sees_what_is_in_trouble_and_says_what_became_of_a_call(house, chromium):
    session, _ = await lost(house)
    async with looking(chromium, house, house.token(**SAM)) as window:
        await window.goto(house.url + "/")
        troubles = window.locator("#troubles")
        await expect(troubles).to_contain_text("1 of 1 calls failed; tried again in")
        await expect(troubles).to_contain_text("1 of 1 used; beyond it calls are refused")
        card = troubles.locator("article.doubt")
        await expect(card).to_contain_text("In doubt shop.boom")
        await expect(card).to_contain_text("the contract does not say how to find out")
        await card.locator("summary", has_text="Say what became of it…").click()
        await expect(card).to_contain_text("If it was done")
        await expect(card).to_contain_text("a repeated call is answered with that, and not run")
        await expect(card).to_contain_text("the same call may be made again")
        assert await window.evaluate(UNNAMED) == []
        assert await window.evaluate(FAINT) == []
        await card.get_by_role("button", name="It was done").click()
        assert await house.plane.doubts.list(OKI)  # a reason is needed
        await card.get_by_label("How do you know?").fill("it is in the book")
        await card.get_by_role("button", name="It was done").click()
        await expect(window.locator("#said")).to_contain_text("Settled: it was done")
        await expect(card).to_have_count(0)
    assert not await house.plane.doubts.list(OKI)
    assert (await house.made.call(session, "boom", order_id="A1")).code == "done_unseen"


async def test_only_the_role_settles_never_in_the_own_name_and_forms_of_others_do_nothing(house):
    _, told = await lost(house, user="sue")
    path, meant = f"/page/doubts/{told.call_id}", {"to": "done", "reason": "x"}
    for user, roles, words in (
        ("oki", ("Operator",), "Say what became"),
        ("sue", ("Operator", "Security"), "somebody else says what became of it"),
    ):
        token = house.token(user=user, roles=roles)
        assert (words in (await house.get("/page/troubles", token)).text) == (user == "sue")
        answer = await house.post(path, {**meant, "form_token": form_token(token)}, token)
        assert answer.status_code == 403, user
    sam, staff, glo = house.token(**SAM), house.token(user="ann", roles=("Staff",)), house.token(user="glo", tenant="globex", roles=SAM["roles"])  # fmt: skip
    assert (await house.post(path, meant, sam)).status_code == 403
    assert (await house.post(path, {**meant, "to": "perhaps", "form_token": form_token(sam)}, sam)).status_code == 400
    assert (await house.post(path, {**meant, "form_token": form_token(glo)}, glo)).status_code == 404
    assert (await house.get("/page/troubles", staff)).text.strip() == ""
    for other in (glo, staff):
        assert "shop.boom" not in (await house.get("/page/troubles", other)).text
    (still,) = await house.plane.doubts.list(OKI)
    assert (still.call_id, still.state) == (told.call_id, "in_doubt")


async def test_every_scope_can_be_chosen_and_the_answer_says_what_became_of_each_call(house, chromium):
    session = await house.made.session()
    under_way = asyncio.create_task(house.made.call(session, "slow", order_id="A1"))
    await house.shop.entered.wait()
    async with looking(chromium, house, house.token()) as window:
        await window.goto(house.url + "/")
        await window.locator("summary", has_text="Stop…").click()
        what = window.locator(".stop").get_by_label("What")
        offered = await what.locator("option").evaluate_all("options => options.map(option => option.value)")
        assert {scope.partition(":")[0] for scope in offered} == {
            "fleet", "environment", "agent", "tool", "operation", "tenant", "user", "session",
        }  # fmt: skip
        await what.select_option(f"session:{session.session_id}")
        await window.locator(".stop").get_by_label("Why").fill("odd")
        await window.get_by_role("button", name="Stop it now").click()
        said = window.locator("#said")
        await expect(said).to_contain_text(f"Stopped: session:{session.session_id}")
        await expect(said).to_contain_text("in any process (1 acknowledged;")
        await expect(said).to_contain_text("1 call had begun; what became of it:")
        await expect(said.locator("li")).to_contain_text("shop.slow")
        await expect(said.locator("li")).to_contain_text("may still take effect")
        house.shop.go_on.set()
        await under_way
        assert (await house.made.call(session, "stock", item="tea")).code == "halted"
        other = await house.made.session(user="ben")
        assert isinstance(await house.made.call(other, "stock", item="tea"), Returned)
        await window.locator("summary", has_text="Stop…").click()
        await window.locator(".stop").get_by_label("Or another, written out").fill("user:acme/ben")
        await window.locator(".stop").get_by_label("Why").fill("odd too")
        await window.get_by_role("button", name="Stop it now").click()
        await expect(said).to_contain_text("Stopped: user:acme/ben")
    assert (await house.made.call(other, "stock", item="tea")).code == "halted"
