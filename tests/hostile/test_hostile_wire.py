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
