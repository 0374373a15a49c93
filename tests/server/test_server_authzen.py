"""AuthZEN 1.0 over real HTTP: the 43 cases of the Todo scenario, who may ask, and that nothing but a plain yes is true."""

import pytest

from tests.support.office import office as served
from tests.support.todo import MANY, PEOPLE, TODO, cases, subject, todo_of

ONE, SEVERAL = "/access/v1/evaluation", "/access/v1/evaluations"


@pytest.fixture
async def citadel(database_urls, tmp_path):
    """The todo application's back end in front of Interlock, with everybody logged in."""
    async with served(database_urls.app, tmp_path, files=TODO) as made:
        for pid, email, roles in PEOPLE.values():
            await made.session(pid, "todo-backend", "citadel", roles, "todos", email=email)
        yield made


def question(who, action, resource, **more):
    return {"subject": subject(who), "action": {"name": action}, "resource": resource, **more}


async def test_the_forty_three_cases_of_the_todo_scenario(citadel):
    backend, asked = citadel.agent("todo-backend"), 0
    for who, action, resource, expected in cases():
        answer = await citadel.post(ONE, backend, question(who, action, resource, context={}))
        assert (answer.status_code, answer.json()["decision"]) == (200, expected), (who, action, resource, answer.text)
        asked += 1
    for who, owners, expected in MANY:
        body = {"subject": subject(who), "action": {"name": "can_update_todo"}, "resource": {}, "context": {}}
        body["evaluations"] = [{"resource": todo_of(owner)} for owner in owners]
        answer = (await citadel.post(SEVERAL, backend, body)).json()
        assert tuple(item["decision"] for item in answer["evaluations"]) == expected, who
        asked += 1
    assert asked == 43
    kinds = await citadel.shop.events("decisions:citadel")
    assert len(kinds) == 46
    assert {(kind, body["asked_by"], body["via"]) for kind, body in kinds} == {("decision.asked", "todo-backend", "authzen")}
    assert await citadel.system.database.pool().fetchval("SELECT count(*) FROM claim") == 0


async def test_the_discovery_document_says_where_and_promises_no_search(citadel):
    found = (await citadel.get("/.well-known/authzen-configuration")).json()
    assert found == {
        "policy_decision_point": citadel.url,
        "access_evaluation_endpoint": citadel.url + ONE,
        "access_evaluations_endpoint": citadel.url + SEVERAL,
        "capabilities": [],
    }


async def test_only_a_registered_enforcement_point_or_a_person_with_the_role_asks_and_only_of_their_tenant(citadel):
    asked = question("morty", "can_read_todos", {"type": "todo", "id": "1"})
    elsewhere = {**asked, "context": {"tenant": "globex"}}
    session, _ = await citadel.session("pid-x", "todo-backend", "citadel", ("viewer",), "todos", email="x@x")
    for token, body, status in (
        ("", asked, 401),
        (session, asked, 401),
        (citadel.agent("nobody"), asked, 401),
        (citadel.agent("todo-backend", age_s=4000), asked, 401),
        (citadel.agent("other-backend"), asked, 403),
        (citadel.agent("other-backend"), {**asked, "context": {"tenant": "citadel"}}, 403),
        (citadel.agent("todo-backend"), elsewhere, 403),
        (citadel.person("eve", "viewer", tenant="citadel"), asked, 403),
        (citadel.person("dee", "Decider", tenant="citadel"), elsewhere, 403),
        (citadel.agent("todo-backend"), asked, 200),
        (
            citadel.person("hal", "Decider", tenant="hosts"),
            {**asked, "context": {"tenant": "citadel", "agent": "todo-backend"}},
            200,
        ),
    ):
        assert (await citadel.post(ONE, token, body)).status_code == status
    assert len(await citadel.shop.events("decisions:citadel")) == 2
    refused = [body["by"] for kind, body in await citadel.shop.events("control") if kind == "control.refused"]
    assert refused == ["other-backend", "other-backend", "todo-backend", "eve", "dee"]


async def test_what_is_not_known_is_a_deny(citadel):
    backend = citadel.agent("todo-backend")
    todos = {"type": "todo", "id": "1"}
    good = question("rick", "can_update_todo", todo_of("morty"))
    for change in (
        {"subject": {"type": "user", "id": "pid-of-nobody"}},
        {"action": {"name": "can_do_anything"}},
        {"action": {"name": "todo.lookup"}},
        {"action": {"name": "can_create_todo", "properties": {"more": 1}}, "resource": todos},
        {"resource": {"type": "nothing", "id": "1"}},
        {"subject": {"type": "user", "id": "pid-of-morty"}, "resource": todos},
        {"subject": {"type": "user", "id": "pid-of-rick", "properties": {"roles": []}}},
        {"context": {"task": "stealing"}},
    ):
        answer = await citadel.post(ONE, backend, {**good, **change})
        assert (answer.status_code, answer.json()["decision"]) == (200, False), change
        assert answer.json()["context"]["code"], change
    assert (await citadel.post(ONE, backend, good)).json()["decision"] is True


async def test_when_the_session_a_user_is_known_from_has_ended_they_are_unknown(citadel):
    asked = question("rick", "can_read_todos", {"type": "todo", "id": "1"})
    assert (await citadel.post(ONE, citadel.agent("todo-backend"), asked)).json()["decision"] is True
    await citadel.system.database.pool().execute("UPDATE session SET revoked = true WHERE user_id = 'pid-of-rick'")
    assert (await citadel.post(ONE, citadel.agent("todo-backend"), asked)).json()["decision"] is False


async def test_what_a_question_says_of_the_subject_counts_when_an_enforcement_point_vouches_for_it(citadel):
    stranger = {"type": "user", "id": "new", "properties": {"roles": ["editor"], "email": "rick@the-citadel.com"}}
    for owner, expected in (("rick", True), ("morty", False)):
        asked = {"subject": stranger, "action": {"name": "can_update_todo"}, "resource": todo_of(owner)}
        assert (await citadel.post(ONE, citadel.agent("todo-backend"), asked)).json()["decision"] is expected


async def test_a_question_that_cannot_be_put_is_an_error_of_the_request_or_of_its_place_in_the_list(citadel):
    backend, good = citadel.agent("todo-backend"), question("rick", "can_read_todos", {"type": "todo", "id": "1"})
    for body in ({}, {**good, "subject": None}, {"subject": good["subject"]}, {**good, "subject": {"type": "user"}}):
        answer = await citadel.post(ONE, backend, body)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    listed = {"subject": good["subject"], "resource": good["resource"], "evaluations": [{"action": good["action"]}, {}]}
    first, second = (await citadel.post(SEVERAL, backend, listed)).json()["evaluations"]
    assert first["decision"] is True
    assert (second["decision"], second["context"]["error"]["status"]) == (False, 400)
    many = {**good, "evaluations": [{}] * 101}
    assert (await citadel.post(SEVERAL, backend, many)).status_code == 400


async def test_without_a_list_many_is_one(citadel):
    backend, good = citadel.agent("todo-backend"), question("rick", "can_read_todos", {"type": "todo", "id": "1"})
    for body in (good, {**good, "evaluations": []}):
        answer = (await citadel.post(SEVERAL, backend, body)).json()
        assert answer["decision"] is True
        assert "evaluations" not in answer


@pytest.mark.parametrize(
    ("semantic", "who", "owners", "expected"),
    [
        ("execute_all", "morty", ("morty", "rick", "morty"), [True, False, True]),
        ("deny_on_first_deny", "morty", ("morty", "rick", "morty"), [True, False]),
        ("permit_on_first_permit", "morty", ("rick", "morty", "rick"), [False, True]),
    ],
)
async def test_a_list_is_executed_as_its_options_say(citadel, semantic, who, owners, expected):
    body = {
        "subject": subject(who),
        "action": {"name": "can_update_todo"},
        "options": {"evaluations_semantic": semantic},
        "evaluations": [{"resource": todo_of(owner)} for owner in owners],
    }
    answer = (await citadel.post(SEVERAL, citadel.agent("todo-backend"), body)).json()
    assert [item["decision"] for item in answer["evaluations"]] == expected
    assert len(await citadel.shop.events("decisions:citadel")) == len(expected)
    wrong = {**body, "options": {"evaluations_semantic": "whatever"}}
    assert (await citadel.post(SEVERAL, citadel.agent("todo-backend"), wrong)).status_code == 400


async def test_obligations_and_approvals_come_in_the_context_and_only_a_plain_yes_is_true(office):
    person = office.person("dee", "Decider")
    who = {"type": "user", "id": "ana", "properties": {"roles": ["Staff"], "teams": ["north"]}}
    context = {"agent": "bot"}
    redacted = {"subject": who, "action": {"name": "person", "properties": {"person_id": 1}}, "context": context}
    answer = (await office.post(ONE, person, {**redacted, "resource": {"type": "shop"}})).json()
    assert (answer["decision"], answer["context"]["obligations"]["redact"]) == (True, ["email"])
    order = {"type": "shop", "id": "A1", "properties": {"team": "north"}}
    refund = {"subject": who, "action": {"name": "refund", "properties": {"amount": "80.00"}}, "context": context}
    waits = (await office.post(ONE, person, {**refund, "resource": order})).json()
    assert (waits["decision"], waits["context"]["approvals"]) == (False, ["refunds"])
    assert waits["context"]["policies"]


async def test_the_request_id_comes_back(citadel):
    body = question("rick", "can_read_todos", {"type": "todo", "id": "1"})
    answer = await citadel.post(ONE, citadel.agent("todo-backend"), body, x_request_id="bfe9eb29")
    assert answer.headers["x-request-id"] == "bfe9eb29"
