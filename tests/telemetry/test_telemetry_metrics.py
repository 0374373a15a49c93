"""`/metrics`: every figure of the catalogue, few labels, for whoever may read it, whatever the database does."""

import asyncio
import contextlib
import json
import re
import socket
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from interlock.cli import telling as cli_telling
from interlock.cli.output import Failure
from interlock.cli.telling import SCRAPE_EVERY_S, Scraped, collector, logs, metrics_listener, telling
from interlock.gateway.messages import Proposal
from interlock.server.metrics import MetricsApp
from interlock.store.database import open_database
from interlock.telemetry.catalogue import ALL, CALLS, IN_FLIGHT, SECONDS, TOOL_SECONDS
from interlock.telemetry.exposition import Exposition
from interlock.telemetry.figures import Figure, Figures, counted, spread
from interlock.telemetry.reference import page
from interlock.telemetry.tallies import MAX_SERIES, Count, Spread
from tests.support.golden import golden
from tests.support.patience import patient_http
from tests.support.shop import counter

ROOT = Path(__file__).resolve().parents[2]


class Stopped:
    """A clock that goes when it is told to."""

    now_s = 0.0

    def monotonic_s(self):
        return self.now_s


class NoLines:
    waiting = dropped = 0


@pytest.fixture
async def watched(database_urls, tmp_path, monkeypatch):
    """A process, and its metrics on a port of their own; each look is a new one."""
    monkeypatch.setattr(cli_telling, "SCRAPE_EVERY_S", 0.0)
    with metrics_listener("0") as listening:
        async with (
            telling(NoLines(), log_calls=False, otlp=None, listening=listening) as told,
            counter(database_urls.app, tmp_path) as made,
        ):
            await told.watch(made.system, frozenset({"gate.example"}))
            yield made, f"http://127.0.0.1:{listening.getsockname()[1]}"


async def read(url):
    async with patient_http() as http:
        answer = await http.get(f"{url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_what_calls_leave_and_how_the_process_stands_can_be_read(watched):
    made, url = watched
    session = await made.session()
    await made.call(session, "stock", item="tea")
    await made.call(session, "order", order_id="B1")
    await made.gate.call(session, Proposal(operation="made.up", arguments=b"{}"))
    slow = asyncio.create_task(made.call(session, "slow", order_id="A1"))
    await made.shop.entered.wait()
    await made.call(session, "refund", order_id="A1", amount="80.00")
    found = await read(url)

    def calls(operation, outcome, code=""):
        return found["interlock_calls_total", ("code", code), ("operation", operation), ("outcome", outcome)]

    assert calls("shop.stock", "returned") == calls("shop.order", "denied", "user_not_permitted") == 1
    assert calls("none", "invalid", "unknown_operation") == calls("shop.refund", "needs_approval", "needs_approval") == 1
    assert found["interlock_calls_in_flight",] == 1
    assert found["interlock_claims_unsettled",] == found["interlock_approvals_waiting",] == 1
    assert found["interlock_processes",] == found["interlock_database_up",] == 1
    assert 0 < found["interlock_lease_seconds_left",] <= 1
    assert found["interlock_tool_duration_seconds_count", ("operation", "shop.lookup")] == 2
    assert found["interlock_stage_duration_seconds_count", ("stage", "decide")] >= 3
    assert found["interlock_breakers", ("phase", "closed")] >= 1
    assert found["interlock_queue_length", ("queue", "writer")] == 0
    assert found["process_resident_memory_bytes",] > 1_000_000
    (release,) = [key for key in found if key[0] == "interlock_release_info"]
    assert ("name", "shop") in release
    names = {key[0] for key in found}
    for metric in ALL:
        shown = {metric.name, f"{metric.name}_count"} & names
        assert shown or metric.name in {
            "interlock_spans_total",
            "interlock_tokens_refused_total",
            "interlock_budget_used_ratio",
        }

    told = " ".join(str(key) for key in found)
    assert not [name for name in (session.session_id, "ana", "acme", "made.up", "B1", "80.00") if name in told]
    made.shop.go_on.set()
    await slow


async def test_with_the_database_gone_the_figures_of_the_process_are_still_told(watched, database_urls):
    made, url = watched
    await made.call(await made.session(), "stock", item="tea")
    pool, made.system.database._pool = made.system.database._pool, await closed_pool(database_urls.app)
    made.system.figures._asked_s = float("-inf")
    found = await read(url)
    made.system.database._pool = pool
    assert found["interlock_database_up",] == 0
    assert found["interlock_calls_total", ("code", ""), ("operation", "shop.stock"), ("outcome", "returned")] == 1
    assert ("interlock_processes",) not in found


async def closed_pool(url):
    other = await open_database(url)
    await other.close()
    return other.pool()


async def ask(app, method="GET", path="/metrics", **headers):
    sent = []

    async def send(message):
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "method": method, "path": path, "headers": named}, None, send)
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"host": "127.0.0.1:9464"}, 200),
        ({"host": "[::1]:9464"}, 200),
        ({"host": "10.2.3.4"}, 200),
        ({"host": "gate.example:9464"}, 200),
        ({"host": "evil.example:9464"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({}, 403),
        ({"host": "127.0.0.1", "origin": "http://127.0.0.1"}, 403),
        ({"host": "127.0.0.1", "sec_fetch_site": "cross-site"}, 403),
        ({"host": "127.0.0.1", "path": "/v1/controls"}, 404),
        ({"host": "127.0.0.1", "method": "POST"}, 405),
    ],
)
async def test_pages_that_only_point_here_read_nothing_and_there_is_nothing_else_to_reach(request_, status):
    async def text():
        return b"interlock_up 1\n"

    assert await ask(MetricsApp(text, "text/plain", frozenset({"gate.example", "localhost"})), **request_) == status


def test_metrics_are_served_nowhere_unless_asked_for_and_then_on_this_machine_only():
    with metrics_listener("") as none:
        assert none is None
    with metrics_listener("0") as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
    with metrics_listener("[::1]:0") if socket.has_ipv6 else contextlib.nullcontext() as listening:
        assert listening is None or listening.getsockname()[0] == "::1"


@pytest.mark.parametrize("where", ["x", "127.0.0.1:", "127.0.0.1:99999", "nowhere.invalid.:1"])
def test_a_place_that_cannot_be_listened_on_is_said_at_the_start(where):
    with pytest.raises(Failure), metrics_listener(where):
        pass


def test_words_that_cannot_be_followed_are_said_at_the_start():
    for style, level in (("xml", "info"), ("json", "loud")):
        with pytest.raises(Failure):
            logs(style, level)
    with pytest.raises(Failure, match="http/protobuf"):
        collector({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


def test_series_have_an_end_and_what_comes_later_is_counted_together():
    count, spread = Count(), Spread(SECONDS)
    for number in range(MAX_SERIES + 10):
        count.add((str(number), "x"))
        spread.add(str(number), 0.01)
    assert (len(count.of), count.of["other", "other"]) == (MAX_SERIES + 1, 10)
    kept = {labels: counts for labels, counts, _ in spread.read()}
    assert (len(kept), sum(kept["other",])) == (MAX_SERIES + 1, 10)


def test_a_value_on_a_bound_is_within_it_and_a_long_one_in_the_last():
    spread = Spread((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        spread.add("x", value)
    assert list(spread.read()) == [(("x",), (2, 2, 1), 14.0)]


def test_the_text_is_what_the_client_library_reads_whatever_stands_in_a_label():
    names = ("orders.get", 'with "quotes"', "with\nlines", "with \\ and {braces}", "münchen 東京")
    count, kept = Count(), Spread((0.5, 1.0))
    for name in names:
        count.add((name, "returned", ""))
        kept.add(name, 0.25)
        kept.add(name, 7.0)
    gauge = Figure(IN_FLIGHT, {(): 3})
    figures = Figures(since_us=0, at_us=1, all=(counted(CALLS, count), gauge, spread(TOOL_SECONDS, kept)))
    read = {family.name: family for family in text_string_to_metric_families(Exposition().text(figures).decode())}
    assert {(sample.labels["operation"], sample.value) for sample in read["interlock_calls"].samples} == {(n, 1) for n in names}
    assert [sample.value for sample in read["interlock_calls_in_flight"].samples] == [3]
    tools = read["interlock_tool_duration_seconds"]
    assert (tools.type, tools.documentation) == ("histogram", TOOL_SECONDS.says)
    for name in names:
        own = [(s.name.rpartition("_")[2], s.labels.get("le"), s.value) for s in tools.samples if s.labels["operation"] == name]
        assert own == [
            ("bucket", "0.5", 1),
            ("bucket", "1.0", 1),
            ("bucket", "+Inf", 2),
            ("count", None, 2),
            ("sum", None, 7.25),
        ]
    assert "process_resident_memory_bytes" in read


async def test_a_storm_of_scrapes_is_written_once_and_never_on_the_loop():
    """Writing thousands of series takes longer than a call may wait."""
    clock, written, loops = Stopped(), [], threading.get_ident()

    async def gather():
        return len(written)

    def write(figures):
        assert threading.get_ident() != loops
        written.append(figures)
        return b"%d" % figures

    scraped = Scraped(gather, write, clock)
    assert set(await asyncio.gather(*(scraped.text() for _ in range(50)))) == {b"0"}
    clock.now_s += SCRAPE_EVERY_S
    assert await scraped.text() == b"1"
    assert written == [0, 1]


def test_the_reference_lists_every_metric_as_the_code_has_it():
    golden("../docs/reference/metrics.md", page())


def test_the_dashboard_and_the_guide_name_only_metrics_that_there_are():
    known = {metric.name for metric in ALL}
    for path in (ROOT / "examples/grafana/interlock.json", ROOT / "docs/how-to/telemetry.md"):
        text = path.read_text()
        named = {name.removesuffix("_bucket") for name in re.findall(r"\binterlock_[a-z_]+", text)}
        assert named
        assert named <= known, f"{path.name}: {named - known}"
    dashboard = json.loads((ROOT / "examples/grafana/interlock.json").read_text())
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(places) == len(dashboard["panels"])


def test_every_event_of_the_guide_is_one_of_the_code():
    code = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    told = re.findall(r"^\| (`[a-z_.]+`(?:, `[a-z_.]+`)*) \|", (ROOT / "docs/how-to/telemetry.md").read_text(), re.MULTILINE)
    events = {event for cell in told for event in re.findall(r"`([a-z_]+\.[a-z_]+)`", cell)}
    assert len(events) > 15
    assert not [event for event in events if f'"event": "{event}"' not in code]
