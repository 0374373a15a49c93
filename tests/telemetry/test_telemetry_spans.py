"""Spans of the path: right ones, in the caller's trace and in the tool's; and nothing waits for whoever collects them."""

import socket

import msgspec

from interlock.core.trace_context import read_traceparent
from interlock.gateway.messages import Proposal, Returned
from interlock.telemetry.sender import MAX_CALLS_QUEUED
from tests.support.patience import patient_http
from tests.support.served import served
from tests.telemetry.collector import attributes, collecting
from tests.telemetry.world import far_shop, sending

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STATELESS_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
CALLERS = f"00-{TRACE}-{SPAN}-01"


async def call(made, session, operation="far.echo", traceparent=None, **arguments):
    proposal = Proposal(
        operation=operation,
        arguments=msgspec.json.encode(arguments or {"text": "hello"}),
        way="mcp 2026-07-28",
        trace=read_traceparent(traceparent),
    )
    return await made.gate.call(session, proposal)


def hex_ids(span):
    return span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()


async def test_a_call_is_a_tree_of_spans_in_the_callers_trace_and_the_tool_goes_on_in_it(database_urls, tmp_path, monkeypatch):
    async with far_shop(database_urls.app, tmp_path) as (made, server):
        with collecting() as (collector, variables):
            with sending(made.system, variables, monkeypatch) as sender:
                session = await made.session()
                returned = await call(made, session, traceparent=CALLERS)
                denied = await call(made, session, "shop.order", order_id="B1")
            assert sender.results() == {"exported": len(collector.spans), "dropped": 0, "failed": 0}
            asked = server.requests[-1]
    assert isinstance(returned, Returned)

    root = next(s for s in collector.spans if s.kind == s.SPAN_KIND_SERVER)
    trace_id, _, parent_id = hex_ids(root)
    assert (root.name, trace_id, parent_id) == ("tools/call far.echo", TRACE, SPAN)
    children = {span.name: span for span in collector.spans if span.parent_span_id == root.span_id}
    assert set(children) == {
        "interlock decide",
        "interlock claim",
        "tools/call far.echo",
        "interlock settle",
        "interlock release",
    }
    for child in children.values():
        assert hex_ids(child)[0] == TRACE
        assert root.start_time_unix_nano <= child.start_time_unix_nano <= child.end_time_unix_nano <= root.end_time_unix_nano
    order = sorted(children.values(), key=lambda span: span.start_time_unix_nano)
    assert [span.name.split()[-1] for span in order] == ["decide", "claim", "far.echo", "settle", "release"]

    invoked = children["tools/call far.echo"]
    handed_on = f"00-{TRACE}-{hex_ids(invoked)[1]}-01"
    assert asked.headers["traceparent"] == handed_on == asked.message["params"]["_meta"]["traceparent"]

    said = attributes(root)
    assert said["mcp.method.name"] == "tools/call"
    assert said["mcp.protocol.version"] == "2026-07-28"
    assert (said["gen_ai.operation.name"], said["gen_ai.tool.name"]) == ("execute_tool", "far.echo")
    assert (said["interlock.call.id"], said["interlock.outcome"]) == (returned.call_id, "returned")
    assert "error.type" not in said
    assert collector.resources[0]["service.name"] == "interlock"

    (refused,) = [span for span in collector.spans if attributes(span).get("interlock.call.id") == denied.call_id]
    assert attributes(refused)["error.type"] == denied.code == "user_not_permitted"
    assert hex_ids(refused)[0] != TRACE
    assert hex_ids(refused)[2] == ""
    looked_up = [span.name for span in collector.spans if span.parent_span_id == refused.span_id]
    assert "tools/call shop.lookup" in looked_up, "a read of the gate's own is a span too"


async def test_over_http_the_span_begins_with_the_first_byte_whatever_way_the_call_comes(database_urls, tmp_path, monkeypatch):
    async with far_shop(database_urls.app, tmp_path) as (made, server), served(made, tmp_path) as door:
        with collecting() as (collector, variables), sending(made.system, variables, monkeypatch):
            token = made.system.plane._tokens.issue(await made.session())
            named = {
                "authorization": f"Bearer {token}",
                "traceparent": CALLERS,
                "tracestate": "x=canary",
                "baggage": "x=canary",
            }
            meta = {**STATELESS_META, "traceparent": CALLERS.replace("4b", "aa"), "baggage": "x=canary"}
            params = {"name": "far.echo", "arguments": {"text": "by mcp"}, "_meta": meta}
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "far.echo"}
            wrong = {**named, "traceparent": "00-nonsense"}
            async with patient_http() as http:
                by_mcp = await http.post(f"{door.url}/mcp", json=message, headers={**named, **headers})
                body = {"operation": "far.echo", "arguments": {"text": "by http"}}
                by_http = await http.post(f"{door.url}/v1/calls", json=body, headers=named)
                fresh = await http.post(f"{door.url}/v1/calls", json={**body, "arguments": {"text": "x"}}, headers=wrong)
            assert [answer.status_code for answer in (by_mcp, by_http, fresh)] == [200, 200, 200]
    roots = [span for span in collector.spans if span.kind == span.SPAN_KIND_SERVER]
    assert [span.name for span in roots] == ["tools/call far.echo", "execute_tool far.echo", "execute_tool far.echo"]
    assert [hex_ids(span)[0] for span in roots[:2]] == [TRACE.replace("4b", "aa"), TRACE]
    assert (hex_ids(roots[2])[2], hex_ids(roots[2])[0] == TRACE) == ("", False)
    for root in roots:
        (received,) = [s for s in collector.spans if s.parent_span_id == root.span_id and s.name == "interlock receive"]
        assert received.start_time_unix_nano == root.start_time_unix_nano
    assert "mcp.method.name" not in attributes(roots[1])
    assert not [request for request in server.requests if b"canary" in request.raw + request.body]


async def test_a_collector_that_is_no_help_costs_its_spans_and_nothing_else(database_urls, tmp_path, monkeypatch):
    async with far_shop(database_urls.app, tmp_path) as (made, _):
        session = await made.session()
        for mood in ("hang", "slow", "garbage", "refuse", "broken", "busy", "gone", "unknown"):
            with collecting(mood) as (collector, variables), socket.socket() as nobody:
                nobody.bind(("127.0.0.1", 0))
                if mood == "gone":
                    variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{nobody.getsockname()[1]}"
                if mood == "unknown":
                    variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://collector.invalid:4318"
                variables |= {"OTEL_BSP_SCHEDULE_DELAY": "1", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2"}
                with sending(made.system, variables, monkeypatch) as sender:
                    for number in range(3):
                        assert isinstance(await call(made, session, text=f"{mood} {number}"), Returned)
                    assert (await made.system.figures.now()).all
                assert collector.spans == []
            assert sender.exported == 0, mood
            assert sender.results()["failed"] + sender.waiting > 0, mood


async def test_what_does_not_fit_into_the_queue_is_dropped_and_counted(database_urls, tmp_path, monkeypatch):
    with collecting("hang") as (collector, variables):
        variables |= {"OTEL_BSP_SCHEDULE_DELAY": "1", "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
        async with far_shop(database_urls.app, tmp_path) as (made, _):
            with sending(made.system, variables, monkeypatch) as sender:
                session = await made.session()
                await call(made, session)
                collector.asked.wait()
                sender._calls.extend([None] * MAX_CALLS_QUEUED)
                assert isinstance(await call(made, session), Returned)
                sender._calls.clear()
                collector.go_on.set()
        assert sender.results()["dropped"] == 5


async def test_figures_reach_the_collector_as_metrics(database_urls, tmp_path, monkeypatch):
    with collecting() as (collector, variables):
        async with far_shop(database_urls.app, tmp_path) as (made, _):
            with sending(made.system, variables, monkeypatch) as sender:
                await call(made, await made.session())
                sender.send(await made.system.figures.now())
        calls = collector.metrics["interlock_calls"].sum
    assert calls.is_monotonic
    (point,) = calls.data_points
    assert {item.key: item.value.string_value for item in point.attributes} == {
        "operation": "far.echo",
        "outcome": "returned",
        "code": "",
    }
    (spread,) = collector.metrics["interlock_tool_duration_seconds"].histogram.data_points
    assert (spread.count, sum(spread.bucket_counts)) == (1, 1)
    assert collector.metrics["interlock_tool_duration_seconds"].unit == "s"
    assert collector.metrics["interlock_database_up"].gauge.data_points[0].as_double == 1


async def test_without_spans_of_our_own_the_callers_is_handed_on_and_nothing_else_of_it(database_urls, tmp_path):
    async with far_shop(database_urls.app, tmp_path) as (made, server):
        session = await made.session()
        await call(made, session, traceparent=CALLERS)
        asked = server.requests[-1]
        assert asked.headers["traceparent"] == CALLERS == asked.message["params"]["_meta"]["traceparent"]
        await call(made, session, text="again")
        assert "traceparent" not in server.requests[-1].headers
        assert "traceparent" not in server.requests[-1].message["params"]["_meta"]
