"""The API under input that nobody honest sends: what fuzzing found, each as it was found."""

import pytest

from tests.support.office import ROLES

PROBLEM = "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/traces/%00",
        "/v1/sessions/a%00b",
        "/v1/calls/%00",
        "/v1/releases/%00",
        "/v1/approvals/%00",
        "/v1/doubts/%00",
        "/v1/traces?agent=%00",
        "/v1/traces?user=a%00",
        "/page/trace/%00",
        "/?next=%00",
    ],
)
async def test_a_nul_in_an_address_is_refused_before_anything_looks_at_it(office, path):
    answer = await office.get(path, office.person("oki", *ROLES))
    assert (answer.status_code, answer.headers["content-type"]) == (400, PROBLEM)
    assert "NUL" in answer.json()["title"]


async def test_a_nul_that_is_hidden_in_the_name_of_a_page_is_the_requests_fault(office):
    answer = await office.get("/v1/traces?next=MSAA", office.person("oki", *ROLES))
    assert answer.status_code == 400, answer.text


async def test_a_number_that_no_record_can_hold_is_the_requests_fault(office):
    person = office.person("oki", *ROLES)
    answer = await office.get("/v1/releases/activations?before=2497785732324445258340368384", person)
    assert answer.status_code == 400, answer.text
    assert (await office.get(f"/v1/releases/activations?before={2**62}", person)).status_code == 200


async def test_an_empty_idempotency_key_is_no_key(office):
    person = office.person("ana", *ROLES)
    _, session = await office.session("ana")
    answer = await office.post(f"/v1/sessions/{session}/inputs", person, {"text": "hello"}, idempotency_key="")
    assert answer.status_code == 400, answer.text
    assert "Idempotency-Key" in answer.json()["title"]


async def test_every_status_that_an_operation_answers_with_stands_in_the_document(office):
    document = (await office.get("/v1/openapi.json")).json()
    token, _ = await office.session("ana")
    person = office.person("oki", *ROLES)
    asked = [
        ("POST", "/oauth/revoke", await office.post("/oauth/revoke", "", {})),
        ("POST", "/oauth/register", await office.post("/oauth/register", "", {})),
        ("POST", "/oauth/token", await office.post("/oauth/token", "", {})),
        ("POST", "/v1/releases", await office.post("/v1/releases", person, {"files": {}})),
        ("POST", "/v1/calls", await office.call(token, "nothing")),
        ("POST", "/v1/calls", await office.call(token, "refund", order_id="A1", amount="80.00")),
        ("POST", "/v1/calls", await office.call(token, "refund", order_id="A1", amount="800.00")),
    ]
    for method, path, answer in asked:
        said = document["paths"][path][method.lower()]["responses"]
        assert str(answer.status_code) in said, (path, answer.status_code)
        assert answer.headers["content-type"].partition(";")[0] in said[str(answer.status_code)]["content"], path
