"""Who may do what by HTTP: every operation of the document, every role, own and other tenant, every wrong kind of token.

The expected answers stand in `golden/authorization.txt`, to be read by people. `INTERLOCK_UPDATE_GOLDEN=1` writes what it is now.
"""

import itertools
import os
import re
from pathlib import Path

import msgspec
import pytest
from litestar.routes import HTTPRoute

from interlock.server.api.application import make_api
from tests.support.office import ROLES

GOLDEN = Path(__file__).parent / "golden" / "authorization.txt"
PUBLIC = {
    "GET /livez",
    "GET /readyz",
    "GET /v1/openapi.json",
    "GET /.well-known/oauth-authorization-server",
    "GET /.well-known/jwks.json",
    "GET /.well-known/authzen-configuration",
    "GET /.well-known/oauth-protected-resource",
    "GET /.well-known/oauth-protected-resource/mcp",
    "POST /oauth/token",
    "POST /oauth/register",
    "POST /oauth/device_authorization",
    "POST /oauth/revoke",
}
WRONG = ("none", "nonsense", "expired", "agent", "session", "session of globex")
# Bodies that pass the door and reach the gate, and harm nothing that the next row needs.
BODIES = {
    "/v1/controls/kill": {"scope": "tenant:nobody", "reason": "matrix"},
    "/v1/controls/resume": {"scope": "tenant:nobody", "reason": "matrix"},
    "/v1/controls/posture": {"scope": "tenant:nobody", "posture": "normal", "reason": "matrix"},
    "/v1/revocations": {"target": "user:nobody", "reason": "matrix"},
    "/v1/lineages/{lineage_id}/posture": {"posture": "normal", "reason": "matrix"},
    "/v1/tools/{operation}/accept": {"pin": "sha256:unknown", "reason": "matrix"},
    "/v1/doubts/{call}/settle": {"done": True, "reason": "matrix"},
    "/v1/releases": {"files": {"release.yaml": "name: ["}},
    "/v1/releases/{digest}/activate": {"reason": "matrix"},
    "/v1/releases/rollback": {"reason": "matrix", "digest": "sha256:unknown"},
    "/v1/sessions/{session_id}/inputs": {"text": "hello"},
    "/v1/sessions/{session_id}/assertions": {"text": "hello"},
    "/v1/calls": {"operation": "shop.stock", "arguments": {"item": "tea"}},
    "/v1/decisions": {"operation": "shop.stock", "arguments": {"item": "tea"}},
    "/access/v1/evaluation": {
        "subject": {"type": "user", "id": "ana", "properties": {"roles": ["Staff"]}},
        "action": {"name": "stock", "properties": {"item": "tea"}},
        "resource": {"type": "shop"},
        "context": {"tenant": "acme", "agent": "bot"},
    },
}
BODIES["/access/v1/evaluations"] = BODIES["/access/v1/evaluation"]
OF_PEOPLE = {**BODIES["/v1/decisions"], "tenant": "acme", "agent": "bot", "roles": ["Staff"]}


def fill(schema, components):
    """The least that a schema accepts, for operations that nobody has written a body for."""
    if "$ref" in schema:
        return fill(components[schema["$ref"].rpartition("/")[2]], components)
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return fill(schema["anyOf"][0], components)
    kind = schema.get("type")
    if kind == "object":
        return {name: fill(schema["properties"][name], components) for name in schema.get("required", [])}
    return {"string": "matrix", "integer": 1, "number": 1, "boolean": False, "array": [], "null": None}.get(kind, {})


class Everybody:
    """One caller a column: wrong kinds of tokens, and people with every role, of the operating tenant and of another."""

    def __init__(self, office, sessions):
        self.tokens = dict(zip(WRONG, ("", "nonsense", office.person("oki", *ROLES, age_s=4000), *sessions), strict=True))
        self.people = {}
        for tenant in ("acme", "globex"):
            self.people[f"user of {tenant}"] = office.person("ana", "Staff", tenant=tenant)
            for role in ROLES:
                self.people[f"{role} of {tenant}"] = office.person(f"some-{role.lower()}", role, tenant=tenant)
        self.tokens |= self.people


async def waiting(office, token, number):
    """An approval that waits, made afresh: its answer changes it."""
    await office.system.database.pool().execute("UPDATE approval SET state = 'withdrawn' WHERE state = 'open'")
    answer = await office.call(token, "refund", order_id="A1", amount=f"80.{number:04}")
    return answer.json()["interlock/decision"]["approvals"][0]["id"]


async def matrix(office):
    token, session = await office.session("ana")
    foreign, _ = await office.session("ana", tenant="globex")
    call = (await office.call(token, "stock", item="tea")).json()["call_id"]
    document = (await office.get("/v1/openapi.json")).json()
    components = document["components"]["schemas"]
    lineage = (await office.get(f"/v1/sessions/{session}", office.person("ana"))).json()["lineage_id"]
    places = {
        "session_id": session,
        "trace_id": call,
        "call_id": call,
        "lineage_id": lineage,
        "digest": "sha256:unknown",
        "agent": "bot",
    }
    everybody = Everybody(office, (office.agent("bot"), token, foreign))
    rows, numbers = {}, itertools.count()
    # A fresh start ends the sessions that the others are about, so it comes last.
    for path, methods in sorted(document["paths"].items(), key=lambda item: (item[0].endswith("/fresh"), item[0])):
        for method, operation in sorted(methods.items()):
            cells = {}
            for name, caller in everybody.tokens.items():
                if "{approval_id}" in path:
                    places["approval_id"] = await waiting(office, token, next(numbers))
                filled = re.sub(r"\{(\w+)\}", lambda found: places.get(found.group(1), "unknown"), path)
                body = None
                if method != "get":
                    content = next(iter(operation.get("requestBody", {}).get("content", {}).values()), {"schema": {}})
                    body = BODIES[path] if path in BODIES else fill(content["schema"], components)
                    if path == "/v1/decisions" and name in everybody.people:
                        body = OF_PEOPLE
                answer = await office.ask(method.upper(), filled, caller, body)
                cells[name] = answer.status_code
            rows[f"{method.upper()} {path}"] = cells
    return rows


def written(rows):
    """The matrix as a table: one line an operation and answer, with the callers that get it."""
    lines = ["# operation, answer: callers who get it. Targets are of the tenant acme, which operates; globex does not."]
    for operation, cells in rows.items():
        lines.append(operation)
        for status in sorted(set(cells.values())):
            callers = [name for name, got in cells.items() if got == status]
            if callers == list(cells):
                callers = ["everybody"]
            lines.append(f"    {status}  {', '.join(callers)}")
    return "\n".join(lines) + "\n"


async def test_every_operation_answers_every_caller_as_the_table_says(office):
    rows = await matrix(office)
    found = written(rows)
    if os.environ.get("INTERLOCK_UPDATE_GOLDEN"):
        GOLDEN.write_text(found)
    # INVARIANT: without a token of the right kind nothing is reached but what is public, and no answer is a defect.
    for operation, cells in rows.items():
        strangers = {cells[name] for name in ("none", "nonsense", "expired")}
        assert operation in PUBLIC or strangers == {401}, operation
        assert 500 not in cells.values(), operation
    assert found == GOLDEN.read_text()


async def test_people_of_another_tenant_reach_nothing_of_this_one(office):
    """Whatever the table says of statuses, what people of another tenant get back holds nothing of ours."""
    token, session = await office.session("ana")
    call = (await office.call(token, "stock", item="tea")).json()["call_id"]
    document = (await office.get("/v1/openapi.json")).json()
    everything = office.person("glo", *ROLES, tenant="globex")
    for path, methods in document["paths"].items():
        if "get" in methods and f"GET {path}" not in PUBLIC:
            filled = path.replace("{session_id}", session).replace("{call_id}", call).replace("{trace_id}", call)
            answer = await office.get(re.sub(r"\{\w+\}", "unknown", filled), everything)
            for secret in (session, call):
                assert secret not in answer.text, path


def test_what_is_routed_is_in_the_document_and_what_is_in_it_is_routed():
    app = make_api(None, None)
    routed = set()
    for route in app.routes:
        assert isinstance(route, HTTPRoute), route.path
        routed |= {f"{method} {route.path_format}" for method in route.route_handler_map if method != "OPTIONS"}
    golden = {line for line in GOLDEN.read_text().splitlines() if line and not line.startswith((" ", "#"))}
    assert routed == golden


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "PUT", "PATCH", "DELETE", "TRACE"])
async def test_no_other_method_reaches_anything(office, method):
    document = (await office.get("/v1/openapi.json")).json()
    person = office.person("sam", *ROLES)
    for path in document["paths"]:
        filled = re.sub(r"\{\w+\}", "unknown", path)
        answer = await office.ask(method, filled, person)
        assert answer.status_code in ({204, 401, 405} if method == "OPTIONS" else {405}), path
    assert msgspec.json.encode(document)
