"""What people do on the page, and what is refused: forms from elsewhere, people without the right, other tenants."""

import pytest

from interlock.core.terms import Posture
from interlock.core.who import Person
from interlock.gateway.messages import Returned
from interlock.server.page.forms import form_token
from tests.support.patience import patient_http

REFUND = {"order_id": "A1", "amount": "80.00"}
FOREIGN = [
    {"origin": "https://evil.example", "sec_fetch_site": None},
    {"origin": None, "sec_fetch_site": "cross-site"},
    {"origin": None, "sec_fetch_site": None},
    {"origin": "http://127.0.0.1:1", "sec_fetch_site": "same-site"},
]


async def waiting(house, user="ana"):
    """A request that waits for people, and its session."""
    session = await house.made.session(user=user)
    told = await house.made.call(session, "refund", **REFUND)
    return session, told.details["approvals"][0]["id"]


async def state(house, approval_id):
    return (await house.made.system.approvals.get(approval_id)).state.value


def lee(house):
    return house.token(user="lee", roles=("Lead",))


@pytest.mark.parametrize("headers", FOREIGN)
async def test_no_form_of_another_page_answers_stops_or_resumes_anything(house, headers):
    session, approval_id = await waiting(house)
    token = house.token(user="lee", roles=("Lead", "Operator"))
    meant = {"form_token": form_token(token)}
    for path, fields in (
        (f"/page/approvals/{approval_id}", {"to": "approve"}),
        ("/page/controls/kill", {"scope": "fleet", "reason": "x"}),
        ("/page/controls/resume", {"scope": "fleet", "reason": "x"}),
        (f"/page/lineages/{session.lineage.id}", {"posture": "halted", "reason": "x"}),
    ):
        answer = await house.post(path, {**meant, **fields}, token, **headers)
        assert answer.status_code == 403, path
    assert await state(house, approval_id) == "open"
    assert isinstance(await house.made.call(session, "stock", item="tea"), Returned)


@pytest.mark.parametrize("wrong", ["", "0" * 64, "of another login"])
async def test_a_form_without_the_value_of_this_login_changes_nothing(house, wrong):
    _, approval_id = await waiting(house)
    value = form_token(house.token(user="eve")) if wrong == "of another login" else wrong
    answer = await house.post(f"/page/approvals/{approval_id}", {"to": "approve", "form_token": value}, lee(house))
    assert answer.status_code == 403
    assert await state(house, approval_id) == "open"


async def test_nothing_is_done_nor_shown_without_a_login_and_nobody_is_told_more(house):
    _, approval_id = await waiting(house)
    for path in ("/", "/page/approvals", "/page/controls", "/page/calls", "/page/trace/call_1"):
        answer = await house.get(path)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login")
        assert "shop" not in answer.text
    part = await house.get("/page/approvals", hx_request="true")
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login")
    answer = await house.post(f"/page/approvals/{approval_id}", {"to": "approve", "form_token": form_token("")})
    assert answer.status_code == 303
    assert (await house.get("/page/live")).status_code == 401
    assert await state(house, approval_id) == "open"


async def test_a_link_from_another_site_comes_through_although_the_cookie_is_kept_back_at_first(house):
    answer = await house.get("/page/trace/call_1", sec_fetch_site="cross-site")
    assert answer.status_code == 200
    assert 'content="0;url=/page/trace/call_1"' in answer.text
    assert "set-cookie" not in answer.headers
    again = await house.get("/page/trace/call_1", sec_fetch_site="same-origin")
    assert again.headers["location"] == "/login?next=%2Fpage%2Ftrace%2Fcall_1"


async def test_only_the_rules_role_answers_and_never_the_requester(house):
    _, approval_id = await waiting(house, user="lee")
    for user, roles, status in (("lee", ("Lead",), 403), ("oki", ("Operator",), 403), ("sue", ("Staff",), 404)):
        token = house.token(user=user, roles=roles)
        for to in ("approve", "deny"):
            answer = await house.post(f"/page/approvals/{approval_id}", {"to": to, "form_token": form_token(token)}, token)
            assert answer.status_code == status, user
    glo = house.token(user="glo", tenant="globex", roles=("Lead", "Operator"))
    answer = await house.post(f"/page/approvals/{approval_id}", {"to": "approve", "form_token": form_token(glo)}, glo)
    assert answer.status_code == 404
    assert await state(house, approval_id) == "open"
    refused = [body for kind, body in await house.made.events("control") if kind == "control.refused"]
    assert {body["reason"] for body in refused} >= {"requester", "role"}


async def test_of_two_people_who_answer_at_once_one_is_told_that_it_was_answered(house):
    _, approval_id = await waiting(house)
    first, second = lee(house), house.token(user="kim", roles=("Lead",))
    yes = await house.post(f"/page/approvals/{approval_id}", {"to": "approve", "form_token": form_token(first)}, first)
    no = await house.post(f"/page/approvals/{approval_id}", {"to": "deny", "form_token": form_token(second)}, second)
    assert (yes.status_code, no.status_code) == (200, 409)
    assert "it is approved" in no.text
    assert await state(house, approval_id) == "approved"


async def test_who_may_not_stop_things_is_shown_no_button_and_refused_all_the_same(house):
    token = lee(house)
    text = (await house.get("/", token)).text
    assert "Stop it now" not in text
    assert "Release" not in text
    for verb in ("kill", "resume"):
        fields = {"scope": "fleet", "reason": "x", "form_token": form_token(token)}
        assert (await house.post(f"/page/controls/{verb}", fields, token)).status_code == 403
    session = await house.made.session()
    assert isinstance(await house.made.call(session, "stock", item="tea"), Returned)


async def test_people_of_one_tenant_stop_their_own_and_no_other(house):
    glo = house.token(user="glo", tenant="globex", roles=("Operator",))
    for scope, status in (("tenant:globex", 200), ("tenant:acme", 403), ("fleet", 403), ("agent:bot", 403)):
        fields = {"scope": scope, "reason": "x", "form_token": form_token(glo)}
        assert (await house.post("/page/controls/kill", fields, glo)).status_code == status, scope


@pytest.mark.parametrize(("scope", "why"), [("agent:bot", "lower the posture first"), ("restored", "no restore")])
async def test_what_cannot_be_resumed_is_said_and_why(house, scope, why):
    token = house.token()
    oki = Person(user="oki", tenant="acme", roles=("Operator",))
    await house.plane.scope_postures.set(oki, "agent:bot", Posture.HALTED, "odd")
    fields = {"scope": scope, "reason": "never mind", "form_token": form_token(token)}
    answer = await house.post("/page/controls/resume", fields, token)
    assert (answer.status_code, why in answer.text) == (409, True)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/page/controls/kill", {"scope": "fleet", "reason": " "}),
        ("/page/controls/kill", {"scope": "galaxy", "reason": "x"}),
        ("/page/controls/kill", {"scope": "fleet", "reason": "x" * 501}),
        ("/page/controls/kill", {"scope": "fleet", "reason": "x\0y"}),
        ("/page/controls/explode", {"scope": "fleet", "reason": "x"}),
        ("/page/lineages/lin_1", {"posture": "asleep", "reason": "x"}),
        ("/page/approvals/apr_1", {"to": "perhaps"}),
    ],
)
async def test_what_makes_no_sense_is_said_and_changes_nothing(house, path, fields):
    token = house.token()
    answer = await house.post(path, {**fields, "form_token": form_token(token)}, token)
    assert answer.status_code == 400
    assert "Traceback" not in answer.text
    part = await house.post(path, {**fields, "form_token": form_token(token)}, token, hx_request="true")
    assert (part.headers["hx-retarget"], part.headers["hx-reswap"]) == ("#said", "innerHTML")


async def test_a_posture_is_set_and_lowered_by_somebody_else(house):
    session = await house.made.session()
    oki, sam = house.token(), house.token(user="sam", roles=("Security", "Operator"))
    path = f"/page/lineages/{session.lineage.id}"
    raised = {"posture": "read_only", "reason": "odd", "form_token": form_token(oki)}
    assert (await house.post(path, raised, oki)).status_code == 200
    assert (await house.made.call(session, "note", text="a")).code == "read_only"
    text = (await house.get("/", sam)).text
    assert "Watched more closely" in text
    lowered = {"posture": "normal", "reason": "fine", "form_token": form_token(sam)}
    assert (await house.post(path, lowered, sam)).status_code == 200
    assert isinstance(await house.made.call(session, "note", text="a"), Returned)


async def test_a_call_of_another_tenant_is_as_unknown_as_one_that_never_was(house):
    session = await house.made.session()
    done = await house.made.call(session, "stock", item="tea")
    glo = house.token(user="glo", tenant="globex", roles=("Operator",))
    theirs = await house.get(f"/page/trace/{done.call_id}", glo)
    none = await house.get("/page/trace/call_none", glo)
    assert (theirs.status_code, theirs.text) == (none.status_code, none.text)
    assert theirs.status_code == 404
    for identifier in (session.session_id, "control"):
        assert (await house.get(f"/page/trace/{identifier}", house.token())).status_code == 404
    assert (await house.get(f"/page/trace/{done.call_id}", house.token())).status_code == 200


async def test_static_files_are_ours_kept_for_ever_and_no_others(house):
    found = {part.partition('"')[0] for part in (await house.get("/", house.token())).text.split('="/page/static/')[1:]}
    assert {name.partition("/")[2] for name in found} >= {"page.css", "page.js", "htmx.min.js", "hx-sse.min.js"}
    for name in found:
        answer = await house.get(f"/page/static/{name}")
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    for wrong in ("page/static/0/page.css", "page/static/0/..%2fpage.css", "page/static/x/../../html.py"):
        async with patient_http() as http:
            assert (await http.get(f"{house.url}/{wrong}")).status_code in (303, 404)
