"""What every route of the API shares: problem documents, request ids, bodies read in one way, answers given once."""

import asyncio

import pytest

from interlock.store.errors import StoreUnavailableError

KILL = "/v1/controls/kill"
STOP = {"scope": "agent:nobody", "reason": "test"}
PROBLEM = "application/problem+json"


async def control_events(office):
    return [body for kind, body in await office.shop.events("control") if kind == "control.changed"]


async def test_every_error_is_a_problem_document(office):
    person = office.person("oki", "Operator")
    cases = [
        (404, await office.get("/v1/nothing-here", person)),
        (404, await office.get("/nowhere")),
        (405, await office.ask("DELETE", KILL, person)),
        (401, await office.get("/v1/controls")),
        (401, await office.get("/v1/controls", "nonsense")),
        (403, await office.get("/v1/controls", office.person("eve", "Staff"))),
        (400, await office.get("/v1/approvals?limit=9000", person)),
        (400, await office.post(KILL, person, {"scope": "agent:nobody"})),
        (400, await office.post(KILL, person, {**STOP, "extra": 1})),
        (400, await office.post(KILL, person, b"{")),
        (400, await office.post(KILL, person, {**STOP, "reason": "  "})),
        (413, await office.post(KILL, person, {**STOP, "reason": "x" * 100_000})),
        (415, await office.post(KILL, person, STOP, content_type="text/plain")),
    ]
    for status, answer in cases:
        assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
        told = answer.json()
        assert (told["status"], told["type"]) == (status, "about:blank"), told
        assert told["title"], told
    assert cases[3][1].headers["www-authenticate"].startswith("Bearer")


async def test_a_stranger_is_asked_for_a_token_before_anything_of_the_body_is_looked_at(office):
    assert (await office.post(KILL, "", b"not json at all")).status_code == 401


async def test_a_body_that_could_be_read_in_two_ways_is_refused(office):
    body = b'{"scope": "agent:nobody", "scope": "fleet", "reason": "x"}'
    answer = await office.post(KILL, office.person("oki", "Operator"), body)
    assert answer.status_code == 400
    assert "twice" in answer.json()["title"]
    assert await control_events(office) == []


async def test_a_header_that_decides_something_stands_once_or_the_request_is_a_problem(office):
    one = ("authorization", f"Bearer {office.person('oki', 'Operator')}")
    answer = await office.http.request("GET", "/v1/controls", headers=[one, one])
    assert (answer.status_code, answer.headers["content-type"]) == (400, PROBLEM)


async def test_a_request_id_comes_back_with_answers_and_with_problems(office):
    for path in ("/livez", "/v1/controls", "/nowhere"):
        assert (await office.get(path, x_request_id="req-7 of us")).headers["x-request-id"] == "req-7 of us"
        assert "x-request-id" not in (await office.get(path)).headers
        assert "x-request-id" not in (await office.get(path, x_request_id="x" * 500)).headers


async def test_the_same_key_and_body_give_the_first_answer_and_do_nothing_again(office):
    person = office.person("oki", "Operator")
    first = await office.post(KILL, person, STOP, idempotency_key="k1")
    again = await office.post(KILL, office.person("oki", "Operator"), STOP, idempotency_key="k1")
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(await control_events(office)) == 1


async def test_the_same_key_with_another_body_or_on_another_route_is_refused(office):
    person = office.person("sam", "Security")
    await office.post(KILL, person, STOP, idempotency_key="k1")
    other = await office.post(KILL, person, {**STOP, "scope": "agent:other"}, idempotency_key="k1")
    elsewhere = await office.post("/v1/controls/resume", person, STOP, idempotency_key="k1")
    for answer in (other, elsewhere):
        assert (answer.status_code, answer.json()["effect"]) == (409, "none")
    assert len(await control_events(office)) == 1


async def test_only_writes_after_a_restore_are_resumed_under_a_release(office):
    resume, person = "/v1/controls/resume", office.person("sam", "Security")
    answer = await office.post(resume, person, {**STOP, "release": "sha256:any"})
    assert answer.status_code == 400
    assert "release is for the scope restored only" in answer.text
    answer = await office.post(resume, person, {**STOP, "scope": "restored", "release": "sha256:any"})
    assert answer.status_code == 409
    assert "is not in force" in answer.text


async def test_keys_of_different_people_never_meet(office):
    for person in (office.person("oki", "Operator"), office.person("sam", "Security")):
        assert (await office.post(KILL, person, STOP, idempotency_key="k1")).status_code == 200
    assert [event["by"] for event in await control_events(office)] == ["oki", "sam"]


async def test_two_requests_with_one_key_at_once_do_it_once(office):
    person = office.person("oki", "Operator")
    answers = await asyncio.gather(*(office.post(KILL, person, STOP, idempotency_key="k1") for _ in range(8)))
    assert len(await control_events(office)) == 1
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert (await office.post(KILL, person, STOP, idempotency_key="k1")).json() in [
        answer.json() for answer in answers if answer.status_code == 200
    ]


async def test_a_refused_request_leaves_its_key_free(office):
    refused = await office.post(KILL, office.person("pat"), STOP, idempotency_key="k1")
    assert refused.status_code == 403
    assert (await office.post(KILL, office.person("pat", "Operator"), STOP, idempotency_key="k1")).status_code == 200


async def test_when_the_answer_was_lost_the_truth_is_told_and_nothing_is_done_again(office, monkeypatch):
    person = office.person("oki", "Operator")

    async def gone(*_):
        raise StoreUnavailableError("gone")

    kept = office.system.plane.answers._kept
    with monkeypatch.context() as broken:
        broken.setattr(kept, "keep", gone)
        assert (await office.post(KILL, person, STOP, idempotency_key="k1")).status_code == 200
    again = await office.post(KILL, person, STOP, idempotency_key="k1")
    assert (again.status_code, again.json()["effect"]) == (409, "unknown")
    assert "not known" in again.json()["title"]
    assert len(await control_events(office)) == 1


async def test_a_key_that_a_dead_process_began_is_in_doubt_and_one_of_a_living_process_is_under_way(office):
    person = office.person("oki", "Operator")
    await office.post(KILL, person, STOP, idempotency_key="k1")
    pool = office.system.database.pool()
    for owner, words in ((office.system.process_id + "x", "was lost"), ("prc_other", "under way")):
        if words == "under way":
            await office.system.processes.register(owner, "test")
        await pool.execute("UPDATE api_answer SET answer = NULL, process_id = $1", owner)
        again = await office.post(KILL, person, STOP, idempotency_key="k1")
        assert again.status_code == 409
        assert words in again.json()["title"]
    assert len(await control_events(office)) == 1


@pytest.mark.parametrize("key", ["x" * 256, "\x7f"])
async def test_a_key_that_is_no_key_is_refused(office, key):
    answer = await office.post(KILL, office.person("oki", "Operator"), STOP, idempotency_key=key)
    assert answer.status_code == 400
    assert await control_events(office) == []


async def test_every_route_is_in_the_document_with_its_callers_bodies_and_problems(office):
    document = (await office.get("/v1/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert set(document["components"]["securitySchemes"]) == {"person", "session", "agent"}
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            place = f"{method} {path}"
            assert operation["summary"], place
            assert all(set(need) <= {"person", "session", "agent"} for need in operation["security"]), place
            success = [answer for status, answer in operation["responses"].items() if status < "300"]
            assert success, place
            for answer in success:
                assert all(content["schema"] != {} for content in answer.get("content", {}).values()), place
            if operation["security"]:
                assert {"401", "403"} <= set(operation["responses"]), place
            if method == "post" and operation["security"]:
                assert operation["requestBody"]["content"]["application/json"]["schema"], place
