"""Every parser that meets bytes from outside, as a function of bytes that breaks when one of its laws does.

A target swallows what its parser refuses by its own named error. Everything else that is raised is a finding: an error that
nobody expects becomes a traceback somewhere, and a law that does not hold is worse.
"""

import asyncio
import contextlib
import json
import re

import msgspec
from litestar.exceptions import HTTPException

from interlock.core.canonical import AmbiguousJsonError, canonical, parse_strict
from interlock.core.contract import (
    BoolShape,
    DecimalShape,
    LongShape,
    OpaqueShape,
    RecordShape,
    SetShape,
    StringShape,
)
from interlock.core.disguise import loose, strict, variants
from interlock.core.listing import ListedTool
from interlock.gateway.limits import MAX_APPROVAL_WAIT_MS
from interlock.identity.dev_issuer import ISSUER
from interlock.identity.errors import ExchangeRefusedError, IssuerUnreachableError, TokenRefusedError
from interlock.identity.jwks import usable
from interlock.identity.tokens import Verifier
from interlock.ledger.verify import Event, Head
from interlock.ledger.verify import Verifier as LedgerVerifier
from interlock.policy.encoding import ArgumentEncoder, json_text
from interlock.policy.errors import FactsRefusedError
from interlock.provenance.active import active_parts
from interlock.provenance.items import of_assertion, of_input, of_result
from interlock.provenance.tokens import Tokenizer
from interlock.release.documents import Problems, read_yaml
from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from interlock.release.review.scan import scan
from interlock.risk.injection import InjectionRules
from interlock.server import envelope as rpc
from interlock.server.api.authzen import EvaluationsRequest
from interlock.server.api.common import turn_page
from interlock.server.api.oauth import read_form
from interlock.server.api.who import (
    _said,
    bearer_of,  # noqa: F401  # the module whose reading of tokens is fuzzed with it
)
from interlock.tools import listings, messages
from interlock.tools.errors import CalledLateError, CallFailedError
from interlock.tools.http.exchange import Exchange
from interlock.tools.http.sse import EventReader
from interlock.tools.limits import ToolLimits
from interlock.tools.skim import Skim
from tests.support.clock import LaterClock
from tests.support.shop import FILES

MOST_BYTES = 64 * 1024
TARGETS = {}
SEEDS = {}


def target(*seeds):
    """Register a parser under its name, with bytes that get far into it."""

    def named(function):
        TARGETS[function.__name__] = function
        SEEDS[function.__name__] = seeds
        return function

    return named


CALL = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"shop.pay","arguments":{"order_id":"A1","amount":"20.00"},'
    b'"_meta":{"interlock/idempotency-key":"k","interlock/wait-ms":10,"interlock/plan":{"operations":[]},'
    b'"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}'
)


@target(
    CALL, b'{"jsonrpc":"2.0","id":"x","result":{}}', b'[{"jsonrpc":"2.0"}]', b'{"jsonrpc":"2.0","id":1e3,"method":"\\ud800"}'
)
def mcp_message(data):
    """A message to `/mcp`: read or refused, its answer can be written, and its arguments are the bytes that came."""
    rpc.is_answer(data)
    try:
        message = rpc.read_envelope(data)
        params = rpc.read_params(message)
        if message.id is not msgspec.UNSET:
            msgspec.json.decode(rpc.failure(message.id, rpc.unexpected()))
        proposal = rpc.proposal_of(params, rpc.Came(key="", version="2026-07-28"))
        assert proposal.arguments in data or proposal.arguments == b"{}"
        assert 0 <= proposal.wait_ms <= MAX_APPROVAL_WAIT_MS
        if proposal.plan:
            json.loads(proposal.plan)
    except rpc.RpcError as error:
        msgspec.json.decode(rpc.failure(error.request_id, error))


@target(b'{"b":1.50,"a":[80.0,-0,1e2,null,true,"\\u00e9 x"]}', b'{"a":{"a":{"a":[]}}}', b"9007199254740991", b'{"a":0.1}')
def strict_json(data):
    """Whatever is read has one canonical form, which is read again as the same, and by any other reader too."""
    try:
        value = parse_strict(data, max_bytes=MOST_BYTES)
    except AmbiguousJsonError:
        return
    once = canonical(value)
    assert canonical(parse_strict(once, max_bytes=2 * MOST_BYTES)) == once
    assert json.loads(once) == json.loads(data)
    assert msgspec.json.decode(once) == json.loads(once)


SHAPES = RecordShape(
    fields={
        "n": LongShape(),
        "d": DecimalShape(),
        "s": StringShape(),
        "b": BoolShape(),
        "l": SetShape(StringShape()),
        "r": RecordShape(fields={"n": LongShape()}, required=frozenset({"n"})),
        "o": OpaqueShape(),
    }
)
ENCODER = None


def _encoder():
    global ENCODER  # noqa: PLW0603  # made by whoever needs it first
    if ENCODER is None:
        ENCODER = object.__new__(ArgumentEncoder)
        from interlock.policy.encoding import _record  # noqa: PLC0415  # the encoder of a shape, without a contract around it

        ENCODER._encode = _record(SHAPES)
    return ENCODER


@target(b'{"b":true,"d":"1.50","l":["x"],"n":7,"o":{"a":[1.5,null]},"r":{"n":1},"s":"x"}', b'{"d":-0.0001}', b'{"n":1}')
def cedar_values(data):
    """Arguments as Cedar sees them: integers, texts, booleans, sets, records and decimals; no float, no null, no entity."""
    try:
        value = parse_strict(data, max_bytes=MOST_BYTES)
        encoded = _encoder().encode(canonical(value).decode())
    except (AmbiguousJsonError, FactsRefusedError):
        return
    _only_cedar(encoded)
    json.loads(json_text(encoded))


def _only_cedar(value):
    if isinstance(value, dict):
        if set(value) == {"__extn"}:
            assert value["__extn"]["fn"] == "decimal"
            assert re.fullmatch(r"-?\d{1,15}\.\d{1,4}", value["__extn"]["arg"], re.ASCII), value
            return
        assert not any(key.startswith("__") for key in value), value
        for inner in value.values():
            _only_cedar(inner)
    elif isinstance(value, list):
        for inner in value:
            _only_cedar(inner)
    else:
        assert type(value) in (int, str, bool), value
        assert type(value) is not int or -(2**53) < value < 2**53, value


@target(
    b"eyJhbGciOiJFZDI1NTE5IiwidHlwIjoiSldUIiwia2lkIjoieCJ9.eyJpc3MiOiJpbnRlcmxvY2stZGV2Iiwic3ViIjoiYSIsImludGVybG9ja191c2UiOiJ1c2VyIn0.AAAA",
    b"e30.e30.",
    b"a.b.c",
)
def token(data):
    """A token that nobody signed is refused, whatever it is, for a reason of our own."""
    text = data.decode("latin-1")
    _said(text)
    for issuer in (ISSUER, "https://issuer.example"):
        with contextlib.suppress(TokenRefusedError):
            Verifier(keys={issuer: {}}, audience="interlock:test", clock=LaterClock(), max_lifetime_s=300).check(
                text, use="user"
            )
            raise AssertionError("a token that nobody signed was believed")


@target(
    b'[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","use":"sig"}]',
    b'[{"kty":"RSA","kid":"b","n":"AQAB","e":"AQAB"}]',
    b'[{"kty":"EC","crv":"P-256","kid":"c","x":"AA","y":"AA"}]',
)
def issuer_keys(data):
    """A key set of an issuer: keys of the kinds we use, under their ids, and nothing secret."""
    with contextlib.suppress(IssuerUnreachableError, ValueError, RecursionError):
        published = json.loads(data)
        for kid, known in usable(published, "sig").items():
            assert kid == known.kid
            assert not known.key.is_private


@target(
    b"Pay 1,250.00 to x+y@mail.example.org by 2026-07-28 at 3 pm, see https://a.example/p?q",
    b"%41%42 &#65; QUJDREVGR0hJSktM",
    "аррӏе.com \u200b\U000e0041".encode(),
)
def texts(data):
    """What texts accuse and vouch for: found without an error, the whole always, and the same each time."""
    text = data.decode("utf-8", "replace")
    tokenizer = Tokenizer("key")
    assert loose(text) in variants(text)
    assert tokenizer.of_user_text(text) == tokenizer.of_user_text(strict(strict(text))) or not text.isascii()
    word = text.split()[:1]
    if word and len(word[0]) < 200:
        assert tokenizer.of_user_text(word[0]) <= tokenizer.of_user_text(f"{word[0]} and more") or not word[0].isascii()
    tokenizer.of_other_text(text)
    tokenizer.as_field(text)
    tokenizer.at_place("a.b", "x", text)
    list(active_parts(text))
    of_input(tokenizer, "r", text)
    of_assertion(tokenizer, "r", text)
    InjectionRules().look(text)
    scan("a.b", ListedTool(name="b", title=text[:50], description=text, input_schema="{}", output_schema=None, hints={}))


@target(b'{"content":[{"type":"text","text":"x"}],"structured":{"rows":[{"id":"A1","amount":1.5}]}}')
def results(data):
    """What enters a context of a structured result."""
    with contextlib.suppress(ValueError, RecursionError):
        value = msgspec.json.decode(data)
        if isinstance(value, dict):
            of_result(Tokenizer("k"), "a.b", "r", structured=value, texts=(), trusted=("rows[].id",))


@target(
    *(text.encode() for text in FILES.values()), b"a: &x [1]\nb: *x", b"a: 1\na: 2", b"? {a: b}\n: c", b"a: !!python/object x"
)
def release_file(data):
    """A file of a release: plain values, or problems with file and line; never an error of the parser's own."""
    text = data.decode("utf-8", "replace")
    problems = Problems()
    node = read_yaml("f.yaml", text, problems)
    assert (node is None) == bool(problems.found)
    for name in ("agents.yaml", "tools/shop.yaml", "release.yaml"):
        try:
            from_files({**FILES, name: text})
        except ReleaseError as error:
            assert error.problems  # noqa: PT017  # the problems are what the error is for


REPLY = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"x"}],"structuredContent":{"n":1}}}'


@target(
    REPLY,
    b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no","data":{"interlock/late":true}}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","inputSchema":{}}],"nextCursor":"x"}}',
)
def upstream_message(data):
    """A message of a tool's server: read, or a failure of the call. What was read can be written down again."""
    with contextlib.suppress(CallFailedError, CalledLateError):
        asked = messages.read(data)
        if asked.is_request:
            messages.refusal(asked)
    with contextlib.suppress(CallFailedError, CalledLateError):
        message = messages.read_reply(data, 1)
        messages.discovered_stateless(message)
        with contextlib.suppress(CallFailedError):
            for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list"):
                listings.read_page(message, method)
        with contextlib.suppress(CallFailedError):
            messages.agreed_version(message)
        answer = messages.read_answer(message)
        msgspec.json.encode((answer.content, answer.structured))


@target(
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n8\r\ndata: x\n\r\n1\r\n\n\r\n0\r\n\r\n",
)
def upstream_http(data):
    """Bytes of a tool's server on the wire, cut in two places: one answer or one failure, and nothing after a failure."""
    import httptools  # noqa: PLC0415  # beside its only use

    async def run():
        for cut in (len(data), 1, len(data) // 2):
            exchange = Exchange(
                limits=ToolLimits(response_max_bytes=4_096, header_max_bytes=2_048, stream_max_events=8),
                on_event=lambda event: event == b"x",
            )
            parser = httptools.HttpResponseParser(exchange)
            exchange.status_of, exchange.keeps_alive = parser.get_status_code, parser.should_keep_alive
            try:
                for part in (data[:cut], data[cut:]):
                    parser.feed_data(part)
                    exchange.check_head(len(part))
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                exchange.fail(CallFailedError("protocol", "not HTTP"))
            exchange.on_eof()
            assert exchange.answer.done()
            exchange.answer.exception()

    asyncio.run(run())


@target(b": hi\r\nevent: message\ndata: a\rdata: b\n\ndata: c\n\n", b"data:x\n\n")
def event_stream(data):
    """Events are the same wherever the network cuts."""

    def read(size):
        reader = EventReader(max_events=10_000)
        return [event for at in range(0, len(data), size) for event in reader.feed(data[at : at + size])]

    assert read(max(1, len(data))) == read(1) == read(3)


def _skimmed(data, size):
    skim = Skim()
    try:
        for at in range(0, len(data), size):
            skim.feed(data[at : at + size])
    except CallFailedError:
        return None
    return skim.told()


@target(
    b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"a\\"]}\\\\"}],"structuredContent":{"a":[[],{}]},"isError":true}}',
    b'{"jsonrpc":"2.0","id":"x","error":{"code":-32602,"message":"no","data":{}}}',
    b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text",\x00\x81ext":"a\\"]}\\\\"}],"structuredContent":{},"isError":true}}',
    b'{"id":1,"result":{"isErr\\u006fr":false,"content":[],"resultType":"complete","_meta":null},"jsonrpc":"2.0"}',
)
def answer_too_long(data):
    """What is not kept says the same wherever the network cuts, and what a reader of the whole would have found."""
    told = _skimmed(data, max(1, len(data)))
    assert told == _skimmed(data, 1) == _skimmed(data, 3)
    if told is not None and told.is_reply:
        event = b"data: " + data.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n\n"
        assert EventReader(max_events=8).let_go().feed(event) == told
    if told is None or told.is_error is None:
        return
    with contextlib.suppress(ValueError, RecursionError):
        whole = json.loads(data.decode())
        assert whole.get("id") == told.id
        assert told.is_error == ("error" in whole or whole["result"].get("isError", False))


@target(
    b'{"subject":{"type":"user","id":"ana"},"action":{"name":"stock"},"resource":{"type":"shop"},"evaluations":[{"context":{"tenant":"acme"}}]}'
)
def authzen_body(data):
    """A body of the API: of its shape and read in one way, or refused."""
    with contextlib.suppress(AmbiguousJsonError, msgspec.MsgspecError, RecursionError):
        parse_strict(data, max_bytes=MOST_BYTES)
        msgspec.json.decode(data, type=EvaluationsRequest)


@target(b"grant_type=urn%3Aietf&subject_token=a&actor_token=b&task=x", b"MTIzIGFi")
def form(data):
    """Forms and the names of pages."""
    with contextlib.suppress(ExchangeRefusedError):
        read_form("application/x-www-form-urlencoded", data)
    with contextlib.suppress(HTTPException):
        turn_page(data.decode("latin-1"))


@target(b'{"n":1,"prev":"","at_us":1,"heads":[["c",1,"00"]]}', b"{}", b"[]")
def exported_ledger(data):
    """A record from anybody: verified or found wanting, never an error."""
    body = data.decode("utf-8", "replace")
    event = Event("c", 1, body[:20], 5, "call", data[:32], data[-32:], data[:16], body)
    head = Head(1, body, "k", data[:64])
    witness = [{"n": 1, "body": body, "key_id": "k", "signature": ""}]
    for keys in ({}, {"k": data[:32].ljust(32, b"0")}):
        verifier = LedgerVerifier(keys, [head], witness, {"c": 1})
        verifier.add(event)
        verifier.finish().as_dict()
