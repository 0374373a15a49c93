"""A secret put wherever a caller, a tool, an issuer or an operator can put one is in no span, no figure and no log line."""

import io
import json

from interlock.cli.telling import Scraped
from interlock.gateway.messages import Proposal
from interlock.telemetry.exposition import Exposition
from interlock.telemetry.logs import start_logs
from tests.support.patience import patient_http
from tests.support.served import served
from tests.telemetry.collector import collecting
from tests.telemetry.test_telemetry_logs import loggers  # noqa: F401  # a fixture
from tests.telemetry.world import far_shop, sending

CANARY = "canary"
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
MCP = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "far.echo"}


async def misbehaves(wire, request):
    """A tool that says the canary in each way in which a tool can say something."""
    text = request.message["params"]["arguments"]["text"]
    content = [{"type": "text", "text": "canary of the tool"}]
    match text.rpartition(" ")[2]:
        case "error":
            await wire.result(request, {"content": content, "isError": True, "resultType": "complete"})
        case "unfit":
            await wire.result(request, {"content": content, "structuredContent": {"canary": 1}, "resultType": "complete"})
        case "page":
            await wire.reply(b"<h1>canary of the tool's proxy</h1>", status=500, kind="text/html")
        case "garbage":
            await wire.reply(b'{"canary": ', kind="application/json")
        case "gone":
            wire.close()
        case _:
            await wire.result(request, {"content": [], "structuredContent": {"text": text}, "resultType": "complete"})


def calls_of(token):
    """Requests with the canary in each place of theirs."""
    own = {"authorization": f"Bearer {token}"}
    said = {
        "traceparent": "00-canary-canary-01",
        "tracestate": "x=canary",
        "baggage": "x=canary",
        "user-agent": "canary",
        "x-canary": "canary",
    }
    info = {"name": "canary", "version": "canary"}
    meta = {**META, "io.modelcontextprotocol/clientInfo": info, "traceparent": "canary"}

    def message(name="far.echo", **arguments):
        meta["interlock/idempotency-key"] = f"canary-{arguments}"
        return {
            "jsonrpc": "2.0",
            "id": CANARY,
            "method": "tools/call",
            "params": {"name": name, "arguments": arguments, "_meta": {**meta}},
        }

    for ending in ("fine", "error", "unfit", "page", "garbage", "gone"):
        yield "/mcp", message(text=f"canary {ending}"), {**own, **said, **MCP}
    yield "/mcp?canary=canary", message(text="canary", canary="canary"), {**own, **said, **MCP}
    yield "/mcp", message("canary.operation"), {**own, **said, **MCP, "mcp-name": "canary.operation"}
    yield "/mcp", message(text="canary"), {**own, **MCP, "mcp-protocol-version": "canary"}
    yield "/mcp", {**message(), "method": "canary/call"}, {**own, **MCP, "mcp-method": "canary/call"}
    yield "/mcp", message(text="canary"), {**MCP, "authorization": "Bearer canary-token"}
    yield "/mcp", message(text="canary"), {**own, **MCP, "host": "canary.example"}
    yield "/mcp", message(text="canary"), {**own, **MCP, "origin": "https://canary.example"}
    yield "/v1/calls", {"operation": "far.echo", "arguments": {"text": "canary by http"}, "canary": "canary"}, {**own, **said}
    yield "/v1/calls", {"operation": "far.echo", "arguments": {"text": "canary by http"}}, {**own, **said}
    yield "/v1/canary", {}, own
    yield "/oauth/token", {"subject_token": "canary"}, said


async def test_no_canary_is_told_to_whoever_watches(loggers, database_urls, tmp_path, monkeypatch):  # noqa: F811  # the fixture
    out = io.StringIO()
    lines = start_logs("json", "info", out)
    async with far_shop(database_urls.app, tmp_path, misbehaves) as (made, _), served(made, tmp_path) as door:
        made.system.telemetry.logs_calls = True
        with collecting() as (collector, variables), sending(made.system, variables, monkeypatch) as sender:
            session = await made.session(user="canary.user")
            token = made.system.plane._tokens.issue(session)
            statuses = []
            async with patient_http() as http:
                for path, body, headers in calls_of(token):
                    answer = await http.post(door.url + path, json=body, headers=headers)
                    statuses.append(answer.status_code)
            await made.gate.call(session, Proposal(operation="canary.operation", arguments=b"{}", way="mcp 2026-07-28"))
            for arguments in (b'{"text": "canary"', b"\xffcanary", b'{"item": "canary"}'):
                await made.gate.call(session, Proposal(operation="shop.wild", arguments=arguments, idempotency_key="canary"))
            scraped = await Scraped(made.system.figures.now, Exposition().text, made.system.clock).text()
            sender.send(await made.system.figures.now())
        told = out.getvalue()
        lines.close()
    assert {200, 400, 401, 403, 404} <= set(statuses), statuses
    seen = {span.name for span in collector.spans}
    assert {"tools/call far.echo", "execute_tool far.echo", "tools/call none"} <= seen
    assert collector.metrics["interlock_calls"]
    ended = [json.loads(line)["outcome"] for line in told.splitlines() if json.loads(line)["event"] == "call.ended"]
    assert {"returned", "tool_error", "invalid"} <= set(ended), ended
    for what in (told, scraped.decode(), *map(str, (collector.spans, collector.metrics, collector.resources))):
        assert CANARY not in what.lower(), what[max(0, what.lower().find(CANARY) - 300) :][:600]


async def test_what_a_collector_is_sent_with_is_in_no_line_though_it_refuses(loggers, database_urls, tmp_path, monkeypatch):  # noqa: F811  # the fixture
    """The operator's own secret for it, in a header or before its name, and what it answers."""
    out = io.StringIO()
    lines = start_logs("json", "info", out)
    async with far_shop(database_urls.app, tmp_path) as (made, _):
        for mood in ("refuse", "broken", "busy"):
            with collecting(mood) as (_, variables):
                named = variables["OTEL_EXPORTER_OTLP_ENDPOINT"].replace("//", "//canary:canary@")
                variables |= {"OTEL_EXPORTER_OTLP_ENDPOINT": named, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=canary"}
                variables |= {"OTEL_BSP_SCHEDULE_DELAY": "1", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2"}
                with sending(made.system, variables, monkeypatch) as sender:
                    await made.gate.call(await made.session(), Proposal(operation="far.echo", arguments=b'{"text": "x"}'))
                    sender.send(await made.system.figures.now())
                assert sender.exported == 0
    lines.close()
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert told
    assert CANARY not in out.getvalue()
