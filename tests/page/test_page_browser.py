"""The page in a real Chromium: what a person sees, clicks, and what happens then."""

import asyncio

import pytest
from playwright.async_api import expect

from interlock.gateway.messages import Returned
from tests.page.browser import DEADLINE_MS, looking
from tests.page.house import FILES
from tests.support.shop import Shop, counter

expect.set_options(timeout=DEADLINE_MS)
LEE = {"user": "lee", "roles": ("Lead",)}
REFUND = {"order_id": "A1", "amount": "80.00"}
HOSTILE = '"><img src=x onerror="window.pwned=1"><script>window.pwned=1</script>\r\ndata: x\n\nevent: ended\n\n{{31337*31337}}'


async def test_a_person_logs_in_with_a_token_and_out_again(house, chromium):
    async with looking(chromium, house) as window:
        await window.goto(house.url + "/")
        assert window.url == house.url + "/login"
        await window.get_by_label("A login code").fill(house.token())
        await window.get_by_role("button", name="Log in with this code").click()
        await expect(window.get_by_role("heading", name="Live calls")).to_be_visible()
        assert await window.evaluate("document.cookie") == ""
        await window.locator(".who summary").click()
        await expect(window.locator(".menu")).to_contain_text("Operator")
        await window.get_by_role("button", name="Log out").click()
        await expect(window.get_by_label("A login code")).to_be_visible()
        await window.goto(house.url + "/")
        assert window.url == house.url + "/login"


async def test_a_call_appears_without_reload_and_changes_in_its_place_when_it_is_done(house, chromium):
    session = await house.made.session()
    async with looking(chromium, house, house.token()) as window:
        await window.goto(house.url + "/")
        await expect(window.locator("#live-state")).to_have_text("live")
        running = asyncio.create_task(house.made.call(session, "slow", order_id="A1"))
        first = window.locator("#calls li", has_text="shop.slow")
        await expect(first).to_contain_text("running")
        denied = await house.made.call(session, "order", order_id="B1")
        refused = window.locator(f"#{denied.call_id}")
        await expect(refused).to_contain_text("denied")
        await expect(refused).to_contain_text("3 · may it for this user?")
        house.shop.go_on.set()
        assert isinstance(await running, Returned)
        await expect(first).to_contain_text("done")
        rows = await window.locator("#calls li .op").all_inner_texts()
        assert rows == ["shop.order", "shop.slow"]


async def test_one_click_approves_and_the_waiting_call_runs_once(house, chromium):
    session = await house.made.session()
    async with looking(chromium, house, house.token(**LEE)) as window:
        await window.goto(house.url + "/")
        asked = await house.made.call(session, "refund", **REFUND)
        assert asked.outcome == "needs_approval"
        card = window.locator(".approval")
        await expect(card).to_contain_text("80.00")
        await expect(card).to_contain_text("bot for ana")
        await card.get_by_role("textbox").fill("looks right")
        await card.get_by_role("button", name="Approve once").click()
        await expect(window.locator("#said")).to_contain_text("Approved: shop.refund, bot for ana")
        await expect(card).to_have_count(0)
    assert isinstance(await house.made.call(session, "refund", **REFUND), Returned)
    await house.made.call(session, "refund", **REFUND)
    assert house.shop.count("refund") == 1


async def test_the_requester_is_shown_their_request_and_why_somebody_else_has_to_answer_it(house, chromium):
    session = await house.made.session(user="lee")
    await house.made.call(session, "refund", **REFUND)
    async with looking(chromium, house, house.token(**LEE)) as window:
        await window.goto(house.url + "/")
        card = window.locator(".approval")
        await expect(card).to_contain_text("It would run in your own name, so somebody else has to look at it")
        await expect(card.get_by_role("button", name="Approve once")).to_have_count(0)
        await card.get_by_role("button", name="Withdraw").click()
        await expect(window.locator("#said")).to_contain_text("Withdrawn")
    assert house.shop.count("refund") == 0


async def test_two_steps_stop_everything_and_the_next_call_is_refused_until_somebody_resumes(house, chromium):
    session = await house.made.session()
    under_way = asyncio.create_task(house.made.call(session, "slow", order_id="A1"))
    await house.shop.entered.wait()
    async with looking(chromium, house, house.token()) as window:
        await window.goto(house.url + "/")
        await expect(window.get_by_role("button", name="Stop it now")).to_be_hidden()
        await window.locator("summary", has_text="Stop…").click()
        await expect(window.locator(".stop")).to_contain_text("and may still take effect: shop.slow × 1")
        await window.get_by_role("button", name="Stop it now").click()
        assert "fleet" not in await window.locator("#said").inner_text()  # a reason is needed
        await window.locator(".stop").get_by_label("Why").fill("odd refunds")
        await window.get_by_role("button", name="Stop it now").click()
        await expect(window.locator("#said")).to_contain_text("Stopped: fleet")
        await expect(window.locator("#said")).to_contain_text("shop.slow")
        await expect(window.locator(".halted")).to_contain_text("odd refunds")
        refused = await house.made.call(session, "stock", item="tea")
        assert refused.code == "halted"
        await expect(window.locator(f"#{refused.call_id}")).to_contain_text("stopped")
        await window.locator("summary", has_text="Resume…").click()
        await window.get_by_label("Why may it go on?").fill("looked into it")
        await window.get_by_role("button", name="Resume fleet").click()
        await expect(window.locator(".halted")).to_have_count(0)
    assert isinstance(await house.made.call(session, "stock", item="tea"), Returned)
    house.shop.go_on.set()
    await under_way


async def test_the_story_of_a_call_is_reached_from_its_row_and_from_its_approval(house, chromium):
    session = await house.made.session()
    asked = await house.made.call(session, "refund", **REFUND)
    async with looking(chromium, house, house.token(roles=("Operator", "Lead"))) as window:
        await window.goto(house.url + "/")
        await window.locator(".approval").get_by_role("link", name="what led to it").click()
        assert window.url.endswith(f"/page/trace/{asked.call_id}")
        story = window.locator(".story")
        await expect(story).to_contain_text("asked: shop.refund")
        await expect(story).to_contain_text("needs approval: refunds (Lead)")
        await expect(window.locator("table")).to_contain_text("guard")
        await expect(window.get_by_text("call.decided").first).to_be_hidden()
        await window.locator(".events summary").click()
        await expect(window.get_by_text("call.decided").first).to_be_visible()
        await window.get_by_role("link", name="Live calls").click()
        await window.locator(f"#{asked.call_id} a.op").click()
        await expect(window.get_by_role("heading", name="shop.refund")).to_be_visible()


async def test_what_agents_tools_and_people_write_is_text_and_nothing_else(house, chromium):
    name = HOSTILE.replace("\r", "").replace("\n", "")
    session = await house.made.session(user=name, agent=name)
    plain = await house.made.session()
    await house.made.call(plain, "refund", **REFUND, note=HOSTILE)
    async with looking(chromium, house, house.token(user=name + "2", roles=("Operator", "Lead"))) as window:
        await window.goto(house.url + "/")
        await expect(window.locator(".approval")).to_contain_text("window.pwned=1")
        await window.locator(".approval textarea").fill(HOSTILE)
        await window.get_by_role("button", name="Deny").click()
        await expect(window.locator("#said")).to_contain_text("Denied")
        await house.made.call(session, HOSTILE, **{HOSTILE: HOSTILE})
        await house.made.call(plain, "note", text=HOSTILE)
        await expect(window.locator("#calls")).to_contain_text("shop.note")
        await window.locator("summary", has_text="Stop…").click()
        await window.locator(".stop").get_by_label("Why").fill(HOSTILE.replace("\r", "").replace("\n", " "))
        await window.get_by_role("button", name="Stop it now").click()
        await expect(window.locator(".halted")).to_contain_text("onerror")
        await window.reload()
        await expect(window.locator("#calls li")).to_have_count(3)
        await window.locator("#calls li", has_text="shop.refund").locator("a.op").click()
        await expect(window.locator(".story")).to_contain_text("onerror")
        await window.locator(".events summary").click()
        assert await window.evaluate("window.pwned") is None
        assert await window.locator("img").count() == 0
        assert "982007569" not in await window.inner_text("main .story")


async def test_what_one_person_answers_the_others_see_at_once(house, chromium):
    session = await house.made.session()
    await house.made.call(session, "refund", **REFUND)
    lee, kim = house.token(**LEE), house.token(user="kim", roles=("Lead", "Operator"))
    async with looking(chromium, house, lee) as of_lee, looking(chromium, house, kim) as of_kim:
        await of_lee.goto(house.url + "/")
        await of_kim.goto(house.url + "/")
        await expect(of_kim.locator("#live-state")).to_have_text("live")
        await of_lee.get_by_role("button", name="Deny").click()
        await expect(of_kim.locator(".approval")).to_have_count(0)
        await of_kim.locator(".history summary").click()
        await expect(of_kim.locator(".history")).to_contain_text("by lee")


async def test_calls_of_every_process_on_the_database_are_shown(house, chromium, database_urls, tmp_path):
    async with (
        counter(database_urls.app, tmp_path / "other", Shop(), files=FILES) as other,
        looking(chromium, house, house.token()) as window,
    ):
        await window.goto(house.url + "/")
        await expect(window.locator(".plane")).to_contain_text("2 alive")
        session = await other.session()
        done = await other.call(session, "stock", item="tea")
        await expect(window.locator(f"#{done.call_id}")).to_contain_text("done")


async def test_people_of_another_tenant_see_nothing_of_this_one(house, chromium):
    session = await house.made.session()
    asked = await house.made.call(session, "refund", **REFUND)
    glo = house.token(user="glo", tenant="globex", roles=("Operator", "Lead"))
    async with looking(chromium, house, glo) as window:
        await window.goto(house.url + "/")
        await expect(window.locator("#live-state")).to_have_text("live")
        done = await house.made.call(session, "stock", item="tea")
        theirs = await house.made.session(tenant="globex", user="gus")
        seen = await house.made.call(theirs, "order", order_id="B1")
        await expect(window.locator(f"#{seen.call_id}")).to_be_visible()
        assert await window.locator(f"#{done.call_id}, #{asked.call_id}, .approval, .plane").count() == 0
        assert "acme" not in await window.content()
        choices = window.locator("select[name=scope] option")
        scopes = set(await choices.evaluate_all("options => options.map(option => option.value)"))
        assert "tenant:globex" in scopes
        assert scopes <= {"tenant:globex", "user:globex/gus", f"session:{theirs.session_id}"}


async def test_a_filter_narrows_what_is_there_and_what_comes(house, chromium):
    ana, ben = await house.made.session(), await house.made.session(user="ben")
    await house.made.call(ana, "stock", item="a")
    await house.made.call(ben, "stock", item="b")
    async with looking(chromium, house, house.token()) as window:
        await window.goto(house.url + "/")
        await window.get_by_label("User").fill("BEN")
        await window.get_by_label("Outcome").select_option("done")
        await expect(window.locator("#calls li")).to_have_count(1)
        await expect(window.locator("#live-state")).to_have_text("live")
        await house.made.call(ana, "stock", item="c")
        await house.made.call(ben, "order", order_id="B1")
        last = await house.made.call(ben, "stock", item="d")
        await expect(window.locator(f"#{last.call_id}")).to_be_visible()
        assert await window.locator("#calls li").count() == 2
        await window.reload()
        await expect(window.locator("#calls li")).to_have_count(2)
        await expect(window.get_by_label("User")).to_have_value("BEN")


async def test_when_the_login_is_over_the_page_asks_for_another_by_itself(house, chromium):
    async with looking(chromium, house, house.token(lifetime_s=8), expected="401") as window:
        await window.goto(house.url + "/")
        await expect(window.get_by_role("heading", name="Live calls")).to_be_visible()
        await expect(window.get_by_label("A login code")).to_be_visible()


async def test_everything_can_be_read_and_answered_without_scripts(house, chromium):
    session = await house.made.session()
    done = await house.made.call(session, "stock", item="tea")
    await house.made.call(session, "refund", **REFUND)
    token = house.token(roles=("Operator", "Lead"))
    async with looking(chromium, house, token, java_script_enabled=False) as window:
        await window.goto(house.url + "/?operation=shop")
        await expect(window.locator(f"#{done.call_id}")).to_contain_text("done")
        await window.get_by_role("button", name="Approve once").click()
        await expect(window.locator(".notice")).to_contain_text("Approved: shop.refund")
        await window.get_by_role("link", name="Back to the page").click()
        await window.locator("summary", has_text="Stop…").click()
        await window.locator(".stop").get_by_label("What").select_option("operation:shop.stock")
        await window.locator(".stop").get_by_label("Why").fill("test")
        await window.get_by_role("button", name="Stop it now").click()
        await expect(window.locator(".notice")).to_contain_text("Stopped: operation:shop.stock")
    assert (await house.made.call(session, "stock", item="tea")).code == "halted"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_it_fits_every_screen_and_names_everything_for_people_who_cannot_see_it(house, chromium, width, scheme):
    session = await house.made.session()
    await house.made.call(session, "refund", **REFUND, note="x" * 400)
    denied = await house.made.call(session, "order", order_id="B1")
    view = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    async with looking(chromium, house, house.token(roles=("Operator", "Lead")), **view) as window:
        for path in ("/", f"/page/trace/{denied.call_id}", "/login"):
            await window.goto(house.url + path)
            assert await window.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
            assert await window.evaluate(UNNAMED) == [], path
            assert await window.evaluate(FAINT) == [], path
        assert await window.locator("html[lang=en]").count() == 1
        assert await window.locator("main").count() == 1


UNNAMED = """() => [...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a, summary')]
    .filter(one => !(one.labels?.length || one.textContent.trim() || one.getAttribute('aria-label')))
    .map(one => one.outerHTML.slice(0, 80))"""
# Contrast of text against the ground it stands on (WCAG 2.2, 1.4.3: 4.5 to 1).
FAINT = """() => {
  const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const solid = colour => !/, 0\\)$|transparent/.test(colour);
  const ground = one => { for (; one; one = one.parentElement) { const c = getComputedStyle(one).backgroundColor; if (solid(c)) return c; }
      return 'rgb(255, 255, 255)'; };
  document.getAnimations().forEach(one => one.finish());
  return [...document.querySelectorAll('body *')].filter(one => one.checkVisibility({visibilityProperty: true}) && !one.disabled
      && [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())).map(one => {
    const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), one.outerHTML.slice(0, 80)];
  }).filter(([ratio]) => ratio < 4.5);
}"""


async def test_a_browser_that_was_away_sees_what_it_missed(house, chromium):
    session = await house.made.session()
    async with looking(chromium, house, house.token()) as window:
        await window.goto(house.url + "/")
        await expect(window.locator("#live-state")).to_have_text("live")
        house.plane.live.drop_all()
        missed = await house.made.call(session, "stock", item="tea")
        await expect(window.locator(f"#{missed.call_id}")).to_be_visible()
        await expect(window.locator("#live-state")).to_have_text("live")
