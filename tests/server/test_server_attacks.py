"""Requests that two readers could read differently, clients that stall, and defects that must not show."""

import asyncio
import time

import msgspec
import pytest

from interlock.server import envelope as rpc
from tests.server.test_server_mcp import INITIALIZE, META, STATELESS, Served, served  # noqa: F401

LEGACY = "2025-11-25"


async def raw(served, token, body, headers, path="/mcp", method="POST"):
    sent = [
        ("authorization", f"Bearer {token}"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        *headers,
    ]
    async with served.http() as http:
        return await http.request(
            method, served.url + path, content=body if isinstance(body, bytes) else msgspec.json.encode(body), headers=sent
        )


async def opened_by(served, token):
    answer = await served.post(token, INITIALIZE, mcp_protocol_version=LEGACY)
    return answer.headers["mcp-session-id"]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_session_header_sent_twice_opens_nobody_elses_session(served, method):
    ana, ben = await served.token(), await served.token(user="ben")
    session = await opened_by(served, ana)
    twice = [("mcp-protocol-version", LEGACY), ("mcp-session-id", session), ("mcp-session-id", session)]
    stolen = await raw(served, ben, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, twice, method=method)
    print(stolen.status_code, stolen.text[:200])
    assert stolen.status_code in (400, 404)
    still = await served.post(
        ana, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, mcp_protocol_version=LEGACY, mcp_session_id=session
    )
    assert still.status_code == 200


async def test_an_origin_sent_twice_is_refused(served):
    twice = [("origin", "https://evil.example"), ("origin", "http://localhost")]
    answer = await raw(served, await served.token(), b"{}", [("mcp-protocol-version", STATELESS), *twice])
    print(answer.status_code, answer.text)
    assert answer.status_code == 403


async def test_a_version_header_sent_twice(served):
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    for a, b in ((STATELESS, LEGACY), (LEGACY, STATELESS), (STATELESS, STATELESS)):
        answer = await raw(
            served,
            await served.token(),
            body,
            [("mcp-protocol-version", a), ("mcp-protocol-version", b), ("mcp-method", "tools/list")],
        )
        print(a, b, answer.status_code, answer.text[:200])


async def test_an_idempotency_key_sent_twice_is_refused(served):
    token = await served.token()
    params = {"name": "shop.pay", "arguments": {"order_id": "A1", "amount": "5.00"}, "_meta": META}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    heads = [("mcp-protocol-version", STATELESS), ("mcp-method", "tools/call"), ("mcp-name", "shop.pay")]
    answer = await raw(served, token, body, [*heads, ("idempotency-key", "a"), ("idempotency-key", "b")])
    print(answer.status_code, answer.text[:300])
    assert answer.status_code == 400
    assert served.shop.calls == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"shop.stock","arguments":{"item":"tea"},"_meta":{"interlock/idempotency-key":7}}}',
        b'{"jsonrpc":"1.0","id":7,"m\\u0065thod":"tools/call","params":{"name":"shop.note","arguments":{"text":"x"}}}',
        b'{"jsonrpc":"2.0","id":7.0,"m\\u0065thod":"tools/call","params":{"name":"shop.note","arguments":{"text":"x"}}}',
        b'{"jsonrpc":"2.0","id":true,"m\\u0065thod":"tools/call","params":{"name":"shop.note","arguments":{"text":"x"}}}',
        b'[{"jsonrpc":"2.0","id":7,"m\\u0065thod":"tools/call","params":{"name":"shop.note","arguments":{"text":"x"}}}]',
        b'{"jsonrpc":"2.0","id":7,"result":{}}',
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"shop.stock","name":"shop.note","arguments":{"text":"x"}}}',
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","method":"tools/list","params":{"name":"shop.note","arguments":{"text":"x"}}}',
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"shop.note","arguments":{"text":"x"}},"params":{"name":"shop.note","arguments":{"text":"y"}}}',
    ],
)
async def test_stateful_hostile(served, body):
    token = await served.token()
    session = await opened_by(served, token)
    answer = await raw(served, token, body, [("mcp-protocol-version", LEGACY), ("mcp-session-id", session)])
    print(body[:80], answer.status_code, answer.text[:400], served.shop.calls)


async def test_api_hostile(served):
    async with served.http() as http:
        for path, kw in (
            (
                "/oauth/token",
                dict(content=b"a=" + b"x" * 5_000_000, headers={"content-type": "application/x-www-form-urlencoded"}),
            ),
            ("/oauth/token", dict(content=b"\xff\xfe=%ff&%00", headers={"content-type": "application/x-www-form-urlencoded"})),
            ("/oauth/token", dict(content=b"{", headers={"content-type": "application/json"})),
            ("/oauth/token", dict(content=b"garbage", headers={"content-type": "multipart/form-data"})),
            ("/oauth/token", dict(content=b"garbage", headers={"content-type": "multipart/form-data; boundary=x"})),
            (
                "/oauth/token",
                dict(
                    content=b"&".join(b"k%d=v" % i for i in range(5000)),
                    headers={"content-type": "application/x-www-form-urlencoded"},
                ),
            ),
            ("/v1/controls/kill", dict(content=b"{}")),
            ("/nope/../v1/controls", {}),
        ):
            t = time.monotonic()
            answer = await http.post(served.url + path, **kw)
            print(
                path, answer.status_code, answer.headers.get("content-type"), answer.text[:300], round(time.monotonic() - t, 3)
            )


async def test_an_unexpected_error_in_the_api(served, monkeypatch):
    async def broken():
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(served.made.system.plane, "ready", broken)
    async with served.http() as http:
        answer = await http.get(served.url + "/readyz")
        print(answer.status_code, answer.headers, answer.text[:500])


async def test_an_unexpected_error_in_visible(served, monkeypatch):
    async def broken(session):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(served.made.gate, "visible", broken)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    token = await served.token()
    answer = await served.post(token, body, mcp_method="tools/list")
    print(answer.status_code, answer.headers, answer.text[:500])
    session = await opened_by(served, token)
    answer = await served.post(token, body, mcp_protocol_version=LEGACY, mcp_session_id=session)
    print(answer.status_code, answer.headers, answer.text[:500])


async def test_a_stalled_body(served):
    token = await served.token()
    port = int(served.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nmcp-protocol-version: {STATELESS}\r\ncontent-length: 100\r\n\r\n{{".encode()
    )
    try:
        print(await asyncio.wait_for(reader.read(2000), 2))
    except TimeoutError:
        print("STALL: no answer")
    writer.close()


async def test_huge_headers(served):
    port = int(served.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\n")
    sent = 0
    try:
        for i in range(64):
            writer.write(b"x-%d: " % i + b"y" * 1_000_000 + b"\r\n")
            await writer.drain()
            sent += 1_000_000
            await asyncio.sleep(0)
    except OSError as e:
        print("closed after", sent, e)
    else:
        print("HUGE HEADERS accepted", sent)
    writer.close()
