"""Requests that two readers could read differently, clients that stall or hoard, and defects that must not show."""

import asyncio
import json
import logging

import pytest

from interlock.server import envelope as rpc
from interlock.server import http, mcp_stateful, router
from interlock.server.limits import MAX_FORM_BYTES, MAX_HEAD_BYTES
from tests.server.standin import META, STATEFUL, STATELESS, UNAVAILABLE, Door, door, message, read_all
from tests.support.patience import PATIENCE_S

LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
LIST_STATELESS = LIST | {"params": {"_meta": META}}
FORM = ("content-type", "application/x-www-form-urlencoded")


@pytest.fixture
async def at():
    async with door() as opened:
        yield opened


# -- a header that two readers would read differently --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_session_header_sent_twice_opens_nobody_elses_session(at: Door, method):
    opened = await at.opened("token-ana")
    stolen = await at.stateful(LIST, opened, ("mcp-session-id", opened), token="token-ben", method=method)
    assert stolen.status_code == 400
    assert (await at.stateful(LIST, opened)).status_code == 200


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_another_token_does_not_reach_a_stateful_session_by_any_method(at: Door, method):
    opened = await at.opened("token-ana")
    assert (await at.stateful(LIST, opened, token="token-ben", method=method)).status_code == 404
    assert (await at.stateful(LIST, opened)).status_code == 200


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mcp-protocol-version", (STATELESS, STATEFUL)),
        ("mcp-protocol-version", (STATEFUL, STATELESS)),
        ("mcp-name", ("shop.pay", "shop.pay")),
        ("mcp-method", ("tools/call", "tools/list")),
        ("idempotency-key", ("a", "b")),
        ("origin", ("http://localhost", "https://evil.example")),
        ("authorization", ("Bearer token-ana", "Bearer token-ben")),
        ("content-type", ("application/json", "text/plain")),
    ],
)
async def test_a_header_that_decides_something_is_not_taken_twice(at: Door, name, values):
    headers = {
        "authorization": "Bearer token-ana",
        "content-type": "application/json",
        "mcp-protocol-version": STATELESS,
        "mcp-method": "tools/call",
        "mcp-name": "shop.pay",
    }
    sent = [(key, value) for key, value in headers.items() if key != name] + [(name, value) for value in values]
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "shop.pay", "_meta": META}}
    answer = await at.ask("POST", "/mcp", body, sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, rpc.HEADER_MISMATCH)
    assert at.gate.proposals == []


async def test_headers_that_decide_nothing_may_stand_twice(at: Door):
    assert (await at.pay(b"{}", ("accept", "text/html"), ("x-trace", "1"), ("x-trace", "2"))).status_code == 200


async def test_two_idempotency_keys_that_differ_are_refused_and_equal_ones_are_one(at: Door):
    meta = META | {rpc.IDEMPOTENCY_KEY: "a"}
    answer = await at.pay(b"{}", ("idempotency-key", "b"), meta=meta)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, rpc.INVALID_PARAMS)
    assert at.gate.proposals == []
    assert (await at.pay(b"{}", ("idempotency-key", "a"), meta=meta)).status_code == 200
    assert at.gate.proposals[0][1].idempotency_key == "a"


@pytest.mark.parametrize(
    ("written", "status"),
    [("=?base64?c2hvcC5wYXk=?=", 200), ("=?base64?c2hvcC5wYXl=?=", 400), ("=?base64?/w==?=", 400), ("=?base64?!?=", 400)],
)
async def test_a_mirrored_name_in_base64_has_one_spelling(at: Door, written, status):
    assert (await at.pay(name=written)).status_code == status


# -- bodies ----------------------------------------------------------------------------------------------------------------


async def test_arguments_reach_the_gate_byte_for_byte_on_both_revisions(at: Door):
    odd = b'{"n": 1.10,"n":1e400, "\\u0061" : [ ] }'
    await at.pay(odd)
    body = b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"shop.pay","arguments":' + odd + b"}}"
    opened = await at.opened()
    assert (await at.stateful(body.replace(b"1e400", b"12345"), opened)).status_code == 200
    assert [proposal.arguments for _, proposal in at.gate.proposals] == [odd, odd.replace(b"1e400", b"12345")]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"jsonrpc":"1.0","id":7,"m\\u0065thod":"tools/call","params":{"name":"shop.pay"}}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":7.0,"m\\u0065thod":"tools/call","params":{"name":"shop.pay"}}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":true,"m\\u0065thod":"tools/call","params":{"name":"shop.pay"}}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":7,"result":{},"m\\u0065thod":5}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":7,"result":{},"error":{"code":1,"message":""}}', rpc.INVALID_REQUEST),
        (b'[{"jsonrpc":"2.0","id":7,"m\\u0065thod":"tools/call","params":{"name":"shop.pay"}}]', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"shop.pay","arguments":{"n":NaN}}}', rpc.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":7}}', rpc.INVALID_PARAMS),
        (
            b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"shop.pay","_meta":{"interlock/repeat-of":7}}}',
            rpc.INVALID_PARAMS,
        ),
    ],
)
async def test_what_we_cannot_read_is_not_left_to_the_sdk(at: Door, body, code):
    answer = await at.stateful(body, await at.opened())
    assert message(answer)["error"]["code"] == code
    assert at.gate.proposals == []


async def test_a_call_that_only_the_sdk_sees_is_not_made(at: Door, monkeypatch):
    monkeypatch.setattr(mcp_stateful, "_request_in", lambda _: ("tools/call", None))
    body = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "shop.pay", "arguments": {}}}
    answer = await at.stateful(body, await at.opened())
    assert message(answer)["error"]["code"] == rpc.INVALID_REQUEST
    assert at.gate.proposals == []


async def test_a_clients_answer_is_no_call(at: Door):
    assert (await at.stateful(b'{"jsonrpc":"2.0","id":7,"result":{}}', await at.opened())).status_code == 202


async def test_a_call_without_an_id_is_acknowledged_and_not_made(at: Door):
    body = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "shop.pay", "arguments": {}, "_meta": META}}
    answer = await at.mcp(body, ("mcp-method", "tools/call"), ("mcp-name", "shop.pay"))
    assert (answer.status_code, answer.content) == (202, b"")
    unknown = await at.mcp(body, version="2031-01-01")
    assert unknown.json()["error"]["data"] == {"supported": [STATELESS], "requested": "2031-01-01"}
    assert at.gate.proposals == []


async def test_bodies_that_are_not_json_by_their_own_word_are_refused(at: Door):
    headers = [("authorization", "Bearer token-ana"), ("mcp-protocol-version", STATELESS), ("content-type", "text/plain")]
    assert (await at.ask("POST", "/mcp", b"{}", headers)).status_code == 415


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_the_stateless_revision_takes_post_only(at: Door, method):
    answer = await at.mcp(b"", method=method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


# -- clients that leave, stall or hoard --------------------------------------------------------------------------------------


async def test_a_client_that_leaves_is_told_to_the_gate(at: Door):
    at.gate.go_on.clear()
    call = asyncio.create_task(at.pay())
    await at.gate.entered.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    async with asyncio.timeout(PATIENCE_S):
        await at.gate.cancelled.wait()


def head(*lines):
    return ("\r\n".join(["POST /mcp HTTP/1.1", "host: localhost", *lines]) + "\r\n").encode()


@pytest.mark.parametrize(
    "parts",
    [
        [head(*(f"x-{n}: {'y' * 900}" for n in range(40))), b"\r\n"],
        [head("x-endless: "), *[b"y" * 16_384] * 64],
        [b"POST /" + b"y" * (MAX_HEAD_BYTES + 1) + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"],
    ],
    ids=["many", "endless", "long address"],
)
async def test_a_head_over_the_limit_is_refused_before_anything_looks_at_it(at: Door, parts):
    answer = await at.bytes(*parts)
    assert answer.startswith(b"HTTP/1.1 431") or answer == b""
    assert at.gate.proposals == []
    assert (await at.pay()).status_code == 200


@pytest.mark.parametrize(
    ("sent", "told"),
    [(b"", b""), (b"POST /mcp HT", b"HTTP/1.1 408"), (head("x-a: b"), b"HTTP/1.1 408")],
    ids=["nothing", "half a line", "half a head"],
)
async def test_a_request_that_does_not_arrive_in_time_is_ended(monkeypatch, sent, told):
    monkeypatch.setattr(http, "REQUEST_READ_S", 0.1)
    async with door() as at:
        answer = await at.bytes(sent)
        assert answer[: len(told) or 1] == told


async def test_half_a_body_is_ended_in_time_and_reaches_nothing(monkeypatch):
    monkeypatch.setattr(http, "REQUEST_READ_S", 0.1)
    async with door() as at:
        headers = ["authorization: Bearer token-ana", f"mcp-protocol-version: {STATELESS}", "content-type: application/json"]
        answer = await at.bytes(head(*headers, "content-length: 100") + b"\r\n{")
        assert answer.startswith(b"HTTP/1.1 408")
        assert at.gate.proposals == []


async def test_a_call_that_takes_long_is_not_a_request_that_is_slow(monkeypatch):
    monkeypatch.setattr(http, "REQUEST_READ_S", 0.05)
    async with door() as at:
        at.gate.go_on.clear()
        call = asyncio.create_task(at.pay())
        await at.gate.entered.wait()
        asyncio.get_running_loop().call_later(0.2, at.gate.go_on.set)
        assert (await call).status_code == 200


async def test_a_bad_head_behind_a_call_is_not_read_as_the_calls_answer(at: Door):
    at.gate.go_on.clear()
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"shop.pay","_meta":'
        + json.dumps(META).encode()
        + b"}}"
    )
    good = head(
        "authorization: Bearer token-ana",
        "content-type: application/json",
        f"mcp-protocol-version: {STATELESS}",
        "mcp-method: tools/call",
        "mcp-name: shop.pay",
        f"content-length: {len(body)}",
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(good + b"\r\n" + body)
    await at.gate.entered.wait()
    writer.write(head("x-a: " + "y" * (MAX_HEAD_BYTES + 1)) + b"\r\n")
    async with asyncio.timeout(PATIENCE_S):
        assert await read_all(reader) == b""
    writer.close()


async def test_over_the_limit_of_calls_at_once_the_next_is_told_so_and_kill_still_answers(monkeypatch):
    monkeypatch.setattr(router, "MAX_CONCURRENT_MCP", 1)
    async with door() as at:
        at.gate.go_on.clear()
        first = asyncio.create_task(at.pay())
        await at.gate.entered.wait()
        refused = await at.pay()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await at.kill()).json() == {"stopped": "fleet"}
        at.gate.go_on.set()
        assert (await first).status_code == 200
        assert (await at.pay()).status_code == 200
        assert len(at.gate.proposals) == 2


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/token/"])
async def test_strangers_who_ask_for_tokens_slowly_keep_nobody_from_calling_and_killing(monkeypatch, path):
    monkeypatch.setattr(router, "MAX_CONCURRENT_PUBLIC", 1)
    async with door() as at:
        _, writer = await asyncio.open_connection("127.0.0.1", at.port)
        request = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {FORM[1]}\r\ncontent-length: 100\r\n\r\ntask="
        writer.write(request.encode())
        async with asyncio.timeout(PATIENCE_S):
            while (await at.ask("POST", "/oauth/token", b"task=a", [FORM])).status_code != 503:
                await asyncio.sleep(0)
        assert (await at.pay()).status_code == 200
        assert (await at.kill()).json() == {"stopped": "fleet"}
        writer.close()


async def test_nobody_without_a_token_gets_as_far_as_a_body(at: Door):
    for path in ("/mcp", "/v1/controls/kill", "/v1/controls/resume", "/v1/releases"):
        request = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\nmcp-protocol-version: {STATELESS}\r\ncontent-length: 100\r\n\r\n{{"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(request.encode())
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        writer.close()


async def test_who_opens_too_many_stateful_sessions_loses_their_own_oldest(at: Door, monkeypatch):
    await at.opened()
    monkeypatch.setattr(mcp_stateful, "MAX_STATEFUL_PER_SESSION", 2)
    other = await at.opened("token-ben")
    mine = [await at.opened() for _ in range(3)]
    answers = [(await at.stateful(LIST, opened)).status_code for opened in mine]
    assert answers == [404, 200, 200]
    assert (await at.stateful(LIST, other, token="token-ben")).status_code == 200


# -- the API ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"a=" + b"x" * MAX_FORM_BYTES, [FORM], 413),
        (b"task=a&task=b", [FORM], 400),
        (b"task=\xff", [FORM], 400),
        (b"task=%ff", [FORM], 400),
        (b"&".join(b"k%d=v" % n for n in range(100)), [FORM], 400),
        (b'{"task":"a"}', [("content-type", "application/json")], 400),
        (b"--x\r\n\r\n--x--", [("content-type", "multipart/form-data; boundary=x")], 400),
        (b"task=a", [], 400),
        (b"task=a", [("content-type", "application/x-www-form-urlencoded; charset=utf-8")], 200),
    ],
)
async def test_tokens_are_asked_for_by_a_form_of_reasonable_size_and_nothing_else(at: Door, body, headers, status):
    answer = await at.ask("POST", "/oauth/token", body, headers)
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"] == "invalid_request"


async def test_where_to_get_a_token_and_which_release_decides_can_be_asked(at: Door):
    metadata = (await at.ask("GET", "/.well-known/oauth-authorization-server")).json()
    assert metadata["token_endpoint"] == f"{at.url}/oauth/token"
    assert metadata["grant_types_supported"] == ["urn:ietf:params:oauth:grant-type:token-exchange"]
    assert (await at.ask("GET", "/v1/releases/active")).status_code == 401
    active = await at.ask("GET", "/v1/releases/active", headers=[("authorization", "Bearer person")])
    assert active.json() == {"name": "shop", "digest": "sha256:0"}


async def test_a_process_that_cannot_serve_says_not_ready(at: Door):
    at.gate.broken = UNAVAILABLE
    answer = await at.ask("GET", "/readyz")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "password" not in answer.text
    assert (await at.ask("GET", "/livez")).status_code == 200


@pytest.mark.parametrize("error", [ZeroDivisionError("secret detail"), UNAVAILABLE])
async def test_what_broke_is_for_the_log_and_not_for_the_client(at: Door, error, caplog):
    caplog.set_level(logging.ERROR)
    opened = await at.opened()
    at.gate.broken = error
    call = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "shop.pay", "arguments": {}}}
    answers = [
        await at.mcp(LIST_STATELESS, ("mcp-method", "tools/list")),
        await at.pay(),
        await at.stateful(LIST, opened),
        await at.stateful(call, opened),
    ]
    for answer in answers:
        assert message(answer)["error"]["code"] == rpc.INTERNAL_ERROR
    answers.append(await at.ask("GET", "/readyz"))
    for answer in answers:
        assert not {"secret", "password", "Traceback", "ZeroDivision"} & set(answer.text.replace('"', " ").split())
        assert "secret detail" not in answer.text
    if isinstance(error, ZeroDivisionError):
        assert "secret detail" in caplog.text
