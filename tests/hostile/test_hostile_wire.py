"""Bytes that two readers of HTTP could take for different requests, and names that are not ours: refused, and nothing reached."""

import json

import pytest

from tests.server.standin import META, STATELESS, door

BODY = json.dumps(
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "shop.pay", "arguments": {}, "_meta": META}}
).encode()
LENGTH = f"content-length: {len(BODY)}"
USUAL = (
    "host: localhost",
    "authorization: Bearer token-ana",
    "content-type: application/json",
    f"mcp-protocol-version: {STATELESS}",
    "mcp-method: tools/call",
    "mcp-name: shop.pay",
    "connection: close",
)
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def request(*headers, body=BODY, line="POST /mcp HTTP/1.1", without=""):
    usual = (header for header in USUAL if not (without and header.startswith(without)))
    return "\r\n".join((line, *usual, *headers, "", "")).encode("latin-1") + body


@pytest.fixture
async def at():
    async with door() as opened:
        yield opened


@pytest.fixture
async def hasty():
    """One that soon closes connections on which nothing comes, for tests that see by that that nothing more is answered."""
    async with door(timeout_keep_alive=0.2) as opened:
        yield opened


SMUGGLED = {
    "two lengths that differ": request("content-length: 5", LENGTH),
    "two lengths that agree": request(LENGTH, LENGTH),
    "a list of lengths": request(f"{LENGTH}, {len(BODY)}"),
    "a length with a sign": request(f"content-length: +{len(BODY)}"),
    "a length with a point": request(f"content-length: {len(BODY)}.0"),
    "a length below nothing": request("content-length: -1"),
    "a length and chunks": request(LENGTH, "transfer-encoding: chunked", body=CHUNKED),
    "chunks and a length": request("transfer-encoding: chunked", LENGTH, body=CHUNKED),
    "chunks under another name": request(LENGTH, "transfer-encoding: xchunked"),
    "chunks that are not last": request("transfer-encoding: chunked, identity", body=CHUNKED),
    "a folded header": request(LENGTH, "x-a: b", " folded: c"),
    "a space before the colon": request(f"content-length : {len(BODY)}"),
    "a header without a colon": request(LENGTH, "nothing"),
    "a header without a name": request(LENGTH, ": x"),
    "a NUL in a header": request(LENGTH, "x-a: b\x00c"),
    "a bare carriage return": request(LENGTH, "x-a: b\rcontent-length: 0"),
    "a version that is none": request(LENGTH, line="POST /mcp HTTP/9.9"),
    "no version": request(LENGTH, line="POST /mcp"),
    "no method": request(LENGTH, line=" /mcp HTTP/1.1"),
    "a chunk without a size": request("transfer-encoding: chunked", body=b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk of a size without end": request("transfer-encoding: chunked", body=b"f" * 40 + b"\r\n" + BODY),
}
FOREIGN = {
    "no host": request(LENGTH, without="host"),
    "another host": request(LENGTH, "host: evil.example", without="host"),
    "two hosts": request(LENGTH, "host: evil.example"),
    "a host behind a user": request(LENGTH, "host: localhost@evil.example", without="host"),
    "a host with ours in it": request(LENGTH, "host: localhost.evil.example", without="host"),
    "a host behind a port": request(LENGTH, "host: evil.example:localhost", without="host"),
    "another origin": request(LENGTH, "origin: https://evil.example"),
    "an origin with ours in it": request(LENGTH, "origin: https://localhost.evil.example"),
    "an origin behind a user": request(LENGTH, "origin: http://localhost@evil.example"),
    "no origin by name": request(LENGTH, "origin: null"),
    "two origins": request(LENGTH, "origin: http://localhost", "origin: https://evil.example"),
    "another host in the request line": request(
        LENGTH, "host: evil.example", without="host", line="POST http://localhost/mcp HTTP/1.1"
    ),
}


async def test_a_request_that_could_end_in_two_places_is_refused(at):
    for name, sent in SMUGGLED.items():
        answer = await at.bytes(sent)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 505")), (name, answer[:200])
        assert b"Traceback" not in answer, name
        assert at.gate.proposals == [], name


async def test_a_request_for_or_from_another_name_reaches_nothing(at):
    for name, sent in FOREIGN.items():
        answer = await at.bytes(sent)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 403", b"HTTP/1.1 404")), (name, answer[:200])
        assert at.gate.proposals == [], name


async def test_a_request_as_it_should_be_is_read_and_one_behind_it_is_not_a_part_of_it(at):
    inner = request(LENGTH, line="POST /mcp HTTP/1.1")
    answer = await at.bytes(request(LENGTH).replace(b"connection: close", b"connection: keep-alive") + inner)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert len(at.gate.proposals) == 2
    assert {bytes(proposal.arguments) for _, proposal in at.gate.proposals} == {b"{}"}


BROKEN = {
    "a batch": b"[" + BODY + b"]",
    "nothing": b"",
    "half of it": BODY[:-10],
    "twice": BODY + BODY,
    "bad UTF-8": BODY.replace(b"shop.pay", b"shop.\xff"),
    "half a character": BODY.replace(b"shop.pay", b"\\ud800"),
    "deep": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a deep meta": BODY.replace(b'"_meta": {', b'"_meta": {"a":' + b"[" * 900 + b"]" * 900 + b","),
    "an id without end": BODY.replace(b'"id": 1', b'"id": ' + b"9" * 4_000),
    "an id that is no number": BODY.replace(b'"id": 1', b'"id": 1e999'),
    "a wait without end": BODY.replace(b'"_meta": {', b'"_meta": {"interlock/wait-ms":' + b"9" * 400 + b","),
    "NaN": BODY.replace(b'"id": 1', b'"id": NaN'),
    "a NUL": BODY.replace(b'"arguments"', b'"\x00"'),
    "a byte order mark": b"\xef\xbb\xbf" + BODY,
    "UTF-16": BODY.decode().encode("utf-16"),
}


async def test_a_message_that_is_none_gets_an_error_that_a_client_can_read(at):
    for name, body in BROKEN.items():
        answer = await at.bytes(request(f"content-length: {len(body)}", body=body))
        head, _, told = answer.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.1 200", b"HTTP/1.1 404")), (name, answer[:300])
        assert b"Traceback" not in told, name
        if b'"error"' in told:
            assert json.loads(told)["error"]["message"], name
    # What is a message after all is the call that it says.
    assert {(proposal.operation, bytes(proposal.arguments)) for _, proposal in at.gate.proposals} <= {("shop.pay", b"{}")}


OTHER_PROTOCOLS = {
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "HTTP/2 without its preface": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n",
    "a tunnel": request(LENGTH, line="CONNECT localhost:443 HTTP/1.1"),
    "a tunnel to elsewhere": request(LENGTH, "host: evil.example", without="host", line="CONNECT evil.example:443 HTTP/1.1"),
    "no path at all": request(LENGTH, line="OPTIONS * HTTP/1.1"),
    "a path that is none": request(LENGTH, line="POST mcp HTTP/1.1"),
    "a path with a way out of it": request(LENGTH, line="POST /x/../mcp HTTP/1.1"),
    "a path with a hidden slash": request(LENGTH, line="POST /%2fmcp HTTP/1.1"),
    "a path with two slashes": request(LENGTH, line="POST //mcp HTTP/1.1"),
    "a path with a NUL": request(LENGTH, line="POST /mcp%00 HTTP/1.1"),
    "a path with a line end": request(LENGTH, line="POST /mcp%0d%0ahost:%20evil.example HTTP/1.1"),
    "a path with parameters": request(LENGTH, line="POST /mcp;a=b HTTP/1.1"),
    "another method": request(LENGTH, line="PATCH /mcp HTTP/1.1"),
    "another method by a header": request(LENGTH, "x-http-method-override: POST", line="PUT /mcp HTTP/1.1"),
    "a method in small letters": request(LENGTH, line="post /mcp HTTP/1.1"),
    "SMTP": b"EHLO localhost\r\nMAIL FROM:<a@b>\r\n\r\n",
    "a web socket": request(
        LENGTH,
        *(
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        without="connection",
        line="GET /mcp HTTP/1.1",
    ),
}


async def test_what_speaks_another_protocol_or_asks_for_another_place_reaches_nothing(hasty):
    for name, sent in OTHER_PROTOCOLS.items():
        answer = await hasty.bytes(sent)
        assert not answer.startswith((b"HTTP/1.1 1", b"HTTP/1.1 2", b"HTTP/1.1 5")) or answer.startswith(b"HTTP/1.1 505"), (
            name,
            answer[:200],
        )
        assert b"Traceback" not in answer, name
        assert hasty.gate.proposals == [], name


ODD = {
    "its own address in full": request(LENGTH, line="POST http://localhost/mcp HTTP/1.1"),
    "an offer of HTTP/2": request(
        LENGTH, "connection: close, upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABk"
    ),
    "an offer of HTTP/2 with a body in pieces": request(
        "transfer-encoding: chunked", "connection: upgrade", "upgrade: h2c", body=CHUNKED, without="connection"
    ),
    "an offer of web sockets": request(LENGTH, "connection: close, upgrade", "upgrade: websocket"),
    "chunks with words beside them": request(
        "transfer-encoding: chunked", body=b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    ),
    "chunks in small pieces": request(
        "transfer-encoding: chunked", body=b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    ),
    "a body that was waited for": request(LENGTH, "expect: 100-continue"),
}


async def test_an_odd_request_is_the_one_it_says_it_is_and_nothing_more_is_granted(hasty):
    for number, (name, sent) in enumerate(ODD.items(), start=1):
        answer = await hasty.bytes(sent)
        assert b"HTTP/1.1 101" not in answer, name
        assert b"HTTP/1.1 200" in answer, (name, answer[:200])
        assert len(hasty.gate.proposals) == number, name
        assert hasty.gate.proposals[-1][1].operation == "shop.pay", name


TRAILED = {
    "a token": (b"authorization: Bearer token-ana", "authorization"),
    "a host": (b"host: localhost", "host"),
    "a version": (b"mcp-protocol-version: " + STATELESS.encode(), "mcp-protocol-version"),
}


async def test_what_comes_behind_a_body_is_no_header(at):
    for name, (trailer, needed) in TRAILED.items():
        body = b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(BODY), BODY, trailer)
        sent = request("transfer-encoding: chunked", f"trailer: {needed}", body=body, without=needed)
        answer = await at.bytes(sent)
        assert b"HTTP/1.1 200" not in answer, (name, answer[:200])
        assert at.gate.proposals == [], name


async def test_a_second_request_hidden_in_the_body_of_one_that_is_refused_is_not_read(hasty):
    hidden = request(LENGTH).replace(b"connection: close", b"connection: keep-alive")
    length = f"content-length: {len(hidden)}"
    for name, (first, code) in {
        "no token": (request(length, body=hidden, without="authorization"), 401),
        "another host": (request(length, "host: evil.example", body=hidden, without="host"), 403),
        "another origin": (request(length, "origin: null", body=hidden), 403),
        "nothing there": (request(length, body=hidden, line="POST /nowhere HTTP/1.1"), 404),
        "too much": (request("content-length: 999999999", body=hidden), 413),
    }.items():
        answer = await hasty.bytes(first.replace(b"connection: close", b"connection: keep-alive"), b"")
        assert answer.startswith(b"HTTP/1.1 %d " % code), (name, answer[:200])
        assert hasty.gate.proposals == [], name


@pytest.mark.parametrize("version", [STATELESS, "2025-11-25"])
async def test_a_request_that_says_it_is_too_long_is_refused_before_it_comes_and_once(monkeypatch, version):
    monkeypatch.setattr("interlock.server.http.REQUEST_READ_S", 0.1)  # after which its connection ends
    async with door() as at:
        sent = request(
            "content-length: 999999999", f"mcp-protocol-version: {version}", body=b"", without="mcp-protocol-version"
        )
        answer = await at.bytes(sent.replace(b"connection: close", b"connection: keep-alive"))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_behind_a_request_that_offers_another_protocol_the_next_one_is_read(at):
    """As clients do who would rather speak HTTP/2 (Java's own): the offer is not taken, and the connection stays."""
    offering = request(LENGTH, "connection: upgrade, http2-settings", "upgrade: h2c", without="connection")
    for cut in (len(offering), len(offering) - 10, len(offering) - len(BODY), 40):
        before = len(at.gate.proposals)
        answer = await at.bytes(offering[:cut], offering[cut:] + offering + request(LENGTH))
        assert answer.count(b"HTTP/1.1 200") == 3, (cut, answer[:600])
        assert len(at.gate.proposals) == before + 3


async def test_a_thousand_such_offers_at_once_are_a_thousand_requests(at):
    offering = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    answer = await at.bytes(offering * 1_500 + request(LENGTH))
    assert b"HTTP/1.1 500" not in answer
    assert answer.count(b"HTTP/1.1 ") == 1_501
    assert len(at.gate.proposals) == 1


@pytest.mark.parametrize(
    "endless",
    [b"1;" + b"a" * 60_000, b"0\r\nx-a: " + b"b" * 60_000, b"0\r\n" + b"x-a: b\r\n" * 8_000],
    ids=["an extension of a chunk", "a trailer", "many trailers"],
)
async def test_what_stands_beside_a_body_has_a_limit_too(at, endless):
    answer = await at.bytes(
        request("transfer-encoding: chunked", body=endless[:9_000]),
        *(endless[n : n + 9_000] for n in range(9_000, 60_000, 9_000)),
    )
    assert b"HTTP/1.1 200" not in answer, answer[:200]
    assert at.gate.proposals == []
