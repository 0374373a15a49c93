"""MCP of both revisions in front of the real gate: ordinary clients, and those that are not."""

import asyncio
import contextlib
import json
import threading

import msgspec
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from interlock.core.who import Person
from interlock.gateway.messages import Refusal
from interlock.gateway.refusals import WORDINGS, refusal
from interlock.identity.exchange import GRANT_TYPE
from interlock.server import envelope as rpc
from interlock.server.limits import MAX_BODY_BYTES
from interlock.server.router import Router
from tests.server.standin import message
from tests.support.golden import golden
from tests.support.listening import listening
from tests.support.patience import patient_http
from tests.support.shop import FILES, counter

STATELESS = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": STATELESS,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Served:
    """A process with a real port, and tokens for it."""

    def __init__(self, made, url):
        self.made, self.url, self.shop = made, url, made.shop

    async def token(self, **more):
        session = await self.made.session(**more)
        return self.made.system.plane._tokens.issue(session)

    def http(self, token=""):
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return patient_http(headers=headers)

    @contextlib.asynccontextmanager
    async def client(self, token, mode=STATELESS):
        async with (
            self.http(token) as http,
            Client(streamable_http_client(self.url + "/mcp", http_client=http), mode=mode) as client,
        ):
            yield client

    async def post(self, token, body, **headers):
        named = {"mcp-protocol-version": STATELESS, "accept": "application/json, text/event-stream", **headers}
        async with self.http(token) as http:
            return await http.post(
                self.url + "/mcp",
                content=body if isinstance(body, bytes) else msgspec.json.encode(body),
                headers={"content-type": "application/json", **{k.replace("_", "-"): v for k, v in named.items()}},
            )

    async def call(self, token, name, arguments, **more):
        raw = arguments if isinstance(arguments, bytes) else msgspec.json.encode(arguments)
        params = {"name": name, "arguments": msgspec.Raw(raw), "_meta": META, **more}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return await self.post(token, body, mcp_method="tools/call", mcp_name=name)


@pytest.fixture
async def served(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path) as made:
        router = Router(gate=made.gate, session_of=made.system.plane.session, plane=made.system.plane)
        async with listening(router) as port:
            yield Served(made, f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("mode", [STATELESS, "legacy"])
async def test_the_sdks_own_client_lists_calls_and_is_denied_on_both_revisions(served, mode):
    async with served.client(await served.token(), mode) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "shop.stock" in names
        assert "shop.lookup" not in names
        good = await client.call_tool("shop.stock", {"item": "tea"})
        assert good.structured_content == {"item": "tea", "left": 3}
        assert good.meta["interlock/labels"]["source"] == "shop.stock"
        denied = await client.call_tool("shop.order", {"order_id": "B1"})
        assert denied.is_error
        assert denied.meta["interlock/decision"]["code"] == "user_not_permitted"
        redacted = await client.call_tool("shop.person", {"person_id": 1})
        assert redacted.structured_content == {"name": "Jane"}


@pytest.mark.parametrize("mode", [STATELESS, "legacy"])
async def test_the_sdks_own_client_brings_a_plan_with_its_call(served, mode):
    session = await served.made.session()
    ana = Person(user="ana", tenant="acme", roles=session.roles)
    await served.made.system.plane.desk.sessions.receive(ana, session.session_id, "Is there tea?")
    token = served.made.system.plane._tokens.issue(session)
    async with served.client(token, mode) as client:
        good = await client.call_tool(
            "shop.stock", {"item": "tea"}, meta={rpc.PLAN: {"operations": ["shop.stock", "shop.pay"]}}
        )
        assert good.structured_content == {"item": "tea", "left": 3}, good.content
        other = await client.call_tool("shop.stock", {"item": "tea"}, meta={rpc.PLAN: {"operations": ["shop.note"]}})
        assert other.meta["interlock/decision"]["code"] == "plan_refused"
    assert "plan.sealed" in await served.made.kinds(session.session_id)


async def test_there_is_no_anonymous_path(served):
    agent = served.made.system.ids.new("x")
    for token in ("", "nonsense", agent):
        for version in (STATELESS, "2025-11-25"):
            answer = await served.post(token, b"{}", mcp_protocol_version=version)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert served.shop.calls == []
    counted = 0
    while counted < 6:
        # The process writes them down every second by itself, too.
        await served.made.system.flush_refusals()
        counted = sum(row["count"] for row in await served.made.system.database.rows("refusals"))
    assert counted == 6


@pytest.mark.parametrize("mode", [STATELESS, "legacy"])
async def test_the_gate_gets_the_bytes_that_came_on_both_revisions(served, mode):
    token = await served.token()
    twice = b'{"item":"tea","item":"gold"}'
    if mode == STATELESS:
        answer = await served.call(token, "shop.stock", twice)
    else:
        opened = await served.post(token, INITIALIZE, mcp_protocol_version="2025-11-25")
        session = opened.headers["mcp-session-id"]
        body = {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": "shop.stock", "arguments": msgspec.Raw(twice)},
        }
        answer = await served.post(token, body, mcp_protocol_version="2025-11-25", mcp_session_id=session)
    assert message(answer)["result"]["_meta"]["interlock/decision"]["code"] == "invalid_arguments"
    assert served.shop.calls == []


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


async def test_a_stateful_session_belongs_to_whoever_opened_it(served):
    ana, ben = await served.token(), await served.token(user="ben")
    opened = await served.post(ana, INITIALIZE, mcp_protocol_version="2025-11-25")
    session = opened.headers["mcp-session-id"]
    body = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    stolen = await served.post(ben, body, mcp_protocol_version="2025-11-25", mcp_session_id=session)
    assert stolen.status_code == 404
    assert (await served.post(ana, body, mcp_protocol_version="2025-11-25", mcp_session_id=session)).status_code == 200


async def test_an_idempotency_key_comes_by_meta_or_header(served):
    token = await served.token()
    one = {"order_id": "A1", "amount": "5.00"}
    first = await served.call(token, "shop.pay", one, _meta={**META, rpc.IDEMPOTENCY_KEY: "k"})
    again = await served.call(token, "shop.pay", one, _meta={**META, rpc.IDEMPOTENCY_KEY: "k"})
    assert "interlock/replayed" not in first.json()["result"]["_meta"]
    assert "interlock/replayed" in again.json()["result"]["_meta"]
    assert served.shop.count("pay") == 1


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, -32700),
        (b"[]", {}, 400, -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]', {}, 400, -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"tools/list"}', {}, 400, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', {}, 400, -32602),
        (b"\xff\xfe", {}, 400, -32700),
        (b"[" * 100_000, {}, 400, -32600),
        ("list", {"mcp_method": "tools/call"}, 400, -32020),
        ("list", {"mcp_method": "tools/list", "mcp_protocol_version": "2027-01-01"}, 400, -32020),
        ("other", {"mcp_method": "tasks/list"}, 404, -32601),
    ],
)
async def test_a_malformed_message_gets_a_clear_error_and_reaches_nothing(served, body, headers, status, code):
    methods = {"list": "tools/list", "other": "tasks/list"}
    sent = {"jsonrpc": "2.0", "id": 1, "method": methods[body], "params": {"_meta": META}} if isinstance(body, str) else body
    answer = await served.post(await served.token(), sent, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "Traceback" not in answer.text
    assert served.shop.calls == []


async def test_headers_that_say_another_tool_than_the_body_are_refused(served):
    params = {"name": "shop.pay", "arguments": {"order_id": "A1", "amount": "5.00"}, "_meta": META}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = await served.post(await served.token(), body, mcp_method="tools/call", mcp_name="shop.stock")
    assert answer.json()["error"]["code"] == -32020
    assert served.shop.calls == []


async def test_a_body_over_the_limit_is_refused(served):
    answer = await served.post(await served.token(), b" " * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413


async def test_pages_of_other_origins_and_rebound_names_are_refused(served):
    token = await served.token()
    assert (await served.post(token, b"{}", origin="https://evil.example")).status_code == 403
    assert (await served.post(token, b"{}", host="evil.example")).status_code == 403


async def test_a_client_that_hangs_up_lets_a_claimed_write_settle(served):
    token = await served.token()
    call = asyncio.create_task(served.call(token, "shop.slow", {"order_id": "A1"}))
    await served.shop.entered.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    served.shop.go_on.set()
    await served.made.gate.calls.drain()
    again = await served.call(token, "shop.slow", {"order_id": "A1"})
    assert "interlock/replayed" in again.json()["result"]["_meta"]
    assert served.shop.count("slow") == 1


async def test_listing_is_private_and_not_cached(served):
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    result = (await served.post(await served.token(), body, mcp_method="tools/list")).json()["result"]
    assert (result["cacheScope"], result["ttlMs"]) == ("private", 0)


async def test_only_people_with_the_role_stop_and_resume_and_refusals_are_recorded(served):
    issuer = person(served, roles=("Operator",))
    nobody = person(served, roles=("Staff",))
    session = await served.token()
    async with served.http() as http:

        async def ask(verb, token, **body):
            headers = {"authorization": f"Bearer {token}"}
            return await http.post(f"{served.url}/v1/controls/{verb}", json=body, headers=headers)

        assert (await ask("kill", "none", scope="fleet", reason="r")).status_code == 401
        assert (await ask("kill", session, scope="fleet", reason="r")).status_code == 401
        assert (await ask("kill", nobody, scope="fleet", reason="r")).status_code == 403
        assert (await ask("kill", issuer, scope="galaxy", reason="r")).status_code == 400
        assert (await ask("kill", issuer, scope="fleet", reason=" ")).status_code == 400
        stopped = await ask("kill", issuer, scope="fleet", reason="test")
        assert stopped.json()["epoch"] == 1
        assert (await served.call(session, "shop.stock", {"item": "tea"})).json()["result"]["isError"]
        assert (await ask("resume", issuer, scope="fleet", reason="test")).status_code == 200
    kinds = await served.made.kinds("control")
    assert kinds == ["release.activated", "control.refused", "control.changed", "control.changed"]


def person(served, roles):
    system = served.made.system
    now = system.clock.wall_us() // 1_000_000
    from interlock.identity.dev_issuer import ISSUER, KEY  # noqa: PLC0415
    from interlock.identity.tokens import sign  # noqa: PLC0415

    claims = {"iss": ISSUER, "sub": "oki", "aud": "interlock:test", "iat": now, "exp": now + 60, "interlock_use": "user"}
    return sign({**claims, "tenant": "acme", "roles": list(roles)}, system.keys.signing(KEY))


async def test_tokens_are_exchanged_by_form_and_errors_follow_oauth(served):
    async with served.http() as http:
        answer = await http.post(served.url + "/oauth/token", data={"grant_type": "password"})
        assert answer.json()["error"] == "unsupported_grant_type"
        form = {"grant_type": GRANT_TYPE, "subject_token": "x", "actor_token": "y", "task": "selling"}
        refused = await http.post(served.url + "/oauth/token", data=form)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
        assert (await http.get(served.url + "/livez")).json() == {"status": "alive"}
        assert (await http.get(served.url + "/readyz")).json() == {"status": "ready"}
        assert len((await http.get(served.url + "/.well-known/jwks.json")).json()["keys"]) == 2
        assert (await http.get(served.url + "/nothing")).status_code == 404


async def test_a_release_with_problems_is_refused_with_all_of_them_and_changes_nothing(served):
    token = person(served, roles=("Operator",))
    async with served.http(token) as http:
        files = {**FILES, "tasks.yaml": "selling: {purpose: sell}\n"}
        answer = await http.post(served.url + "/v1/releases", json={"files": files})
        assert answer.status_code == 422
        assert {problem["file"] for problem in answer.json()["problems"]} >= {"tasks.yaml"}
        assert (await http.get(served.url + "/readyz")).status_code == 200


@pytest.mark.parametrize("code", sorted(WORDINGS))
def test_every_code_has_its_golden_file(code):
    told: Refusal = refusal("call_0", code, retry_after_ms=1500 if WORDINGS[code].retry == "after_ms" else 0)
    if told.effect.value == "unknown":
        assert "Nothing was changed" not in told.text
    golden(f"server/golden/{code}.json", json.dumps(rpc.call_result(told), indent=2, sort_keys=True) + "\n")


def test_no_thread_is_left_behind():
    assert threading.active_count() < 50
