"""Log lines: stable names, a closed list of fields, nothing of what calls carry; and nobody waits for whoever reads them."""

import ast
import io
import json
import logging
import threading
from pathlib import Path

import pytest

from interlock.core.trace_context import read_traceparent
from interlock.gateway.messages import Proposal
from interlock.gateway.telemetry import Path as CallPath
from interlock.gateway.telemetry import follow
from interlock.telemetry.logs import FIELDS, MAX_LINES_QUEUED, LogLines, start_logs
from tests.support.shop import Shop, counter

SOURCE = Path(__file__).resolve().parents[2] / "src" / "interlock"
TRACED = read_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
_log = logging.getLogger("interlock.test")


@pytest.fixture
def loggers():
    """What `start_logs` changes, given back."""
    root, ours = logging.getLogger(), logging.getLogger("interlock")
    before = (root.handlers[:], root.level, ours.level)
    # As in a process that has just started, whatever servers other tests ran in this one.
    for name in ("uvicorn", "uvicorn.error"):
        library = logging.getLogger(name)
        library.handlers[:], library.propagate, library.disabled = [], True, False
        library.setLevel(logging.NOTSET)
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = before[0], before[1]
    ours.setLevel(before[2])


def written(style, level, log):
    out = io.StringIO()
    lines = start_logs(style, level, out)
    log()
    lines.close()
    return out.getvalue()


def test_a_line_is_one_json_object_with_its_event_and_its_fields(loggers):
    def log():
        _log.warning("in doubt: %s", "call_1", extra={"event": "call.in_doubt", "call_id": "call_1", "took_ms": 1.5})

    (line,) = written("json", "info", log).splitlines()
    told = json.loads(line)
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "warning",
        "event": "call.in_doubt",
        "message": "in doubt: call_1",
        "logger": "interlock.test",
        "call_id": "call_1",
        "took_ms": 1.5,
    }


def test_fields_that_are_not_of_the_list_are_not_written(loggers):
    text = written("json", "info", lambda: _log.error("x", extra={"event": "a.b", "arguments": "canary", "token": "canary"}))
    assert "canary" not in text


def test_a_line_says_for_which_call_it_was_written(loggers):
    def log():
        follow(CallPath("call_7", TRACED, 0.0))
        _log.error("x", extra={"event": "a.b"})
        follow(None)

    told = json.loads(written("json", "info", log))
    assert (told["call_id"], told["trace_id"]) == ("call_7", TRACED.trace_id)


def breaks():
    try:
        int("canary in the cause")
    except ValueError as error:
        raise LookupError("canary in the error") from error


@pytest.mark.parametrize("style", ["json", "text"])
def test_of_an_exception_the_type_and_the_place_are_told_and_not_what_it_says(loggers, style):
    def log():
        try:
            breaks()
        except LookupError:
            _log.exception("it broke", extra={"event": "a.b"})

    text = written(style, "info", log)
    assert "canary" not in text
    assert "builtins.LookupError" in text
    assert "because of builtins.ValueError" in text
    assert "test_telemetry_logs.py" in text
    assert "canary in the error" in written(style, "debug", log)


def test_what_asyncio_says_of_a_lost_task_does_not_quote_its_exception(loggers):
    def log():
        logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task exception=ValueError('canary')>")

    text = written("text", "info", log)
    assert "canary" not in text
    assert "never retrieved" in text


@pytest.mark.parametrize("style", ["json", "text"])
def test_no_text_in_a_line_is_a_line_of_its_own_or_a_command_to_the_terminal(loggers, style):
    text = written(style, "info", lambda: _log.error("one\n{}\x1b[2J\x9b31m\u202etwo", extra={"event": "a.b", "tool": "x\ny"}))
    assert len(text.splitlines()) == 1
    assert not {"\x1b", "\x9b", "\u202e"} & set(text)


def test_libraries_speak_from_warnings_on_and_uvicorn_in_the_same_form(loggers):
    def log():
        logging.getLogger("httpx").info("GET https://x/?token=canary")
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")

    told = json.loads(written("json", "debug", log))
    assert (told["logger"], told["event"]) == ("uvicorn.error", "log")


class Pipe:
    """A pipe that nobody reads."""

    def __init__(self):
        self.stuck, self.go_on, self.lines = threading.Event(), threading.Event(), []

    def write(self, text):
        self.stuck.set()
        self.go_on.wait()
        self.lines.append(text)

    def flush(self):
        raise OSError("gone")


def test_a_pipe_that_nobody_reads_makes_nobody_wait_and_what_is_lost_is_counted():
    pipe = Pipe()
    lines = LogLines("json", pipe)
    record = logging.LogRecord("interlock.test", logging.ERROR, "", 0, "x", (), None)
    lines.emit(record)
    pipe.stuck.wait()
    for _ in range(MAX_LINES_QUEUED + 5):
        lines.emit(record)
    assert (lines.waiting, lines.dropped) == (MAX_LINES_QUEUED, 5)
    lines.close()
    pipe.go_on.set()


async def test_what_calls_carry_is_in_no_line_whatever_happens_to_them(loggers, database_urls, tmp_path):
    out = io.StringIO()
    lines = start_logs("json", "info", out)
    shop = Shop()

    async def cannot():
        raise RuntimeError("canary-output")

    async with counter(database_urls.app, tmp_path, shop) as made:
        made.system.telemetry.logs_calls = True
        session = await made.session()
        await made.call(session, "note", text="canary-argument")
        await made.call(session, "note", raw=b'{"text": "canary-raw"')
        await made.call(session, "pay", order_id="canary-order", amount="13.00", key="canary-key")
        shop.after_effect = cannot
        await made.call(session, "pay", order_id="canary-order", amount="14.00")
        await made.gate.call(session, Proposal(operation="canary.operation", arguments=b"{}"))
        writer = made.system.writer
        accounts, writer._accounts = writer._accounts, None  # commits break in a way that nobody has thought of
        await made.call(session, "note", text="canary-late")
        writer._accounts = accounts
    lines.close()
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert "canary" not in out.getvalue()
    assert "jane@private.example" not in out.getvalue()
    ended = [line for line in told if line["event"] == "call.ended"]
    assert [line["outcome"] for line in ended] == ["returned", "invalid", "tool_error", "tool_error", "invalid", "unavailable"]
    assert {"call.ended", "store.batch_failed", "tool.raised"} <= {line["event"] for line in told}


def test_every_line_of_ours_has_an_event_and_only_fields_of_the_list():
    """So that whoever searches for one finds it next year."""
    wrong = []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        if "_log." not in text and "_LOG." not in text:
            continue
        tree = ast.parse(text)
        known = {
            node.targets[0].id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(tree):
            if is_log_call(node):
                extra = next((word.value for word in node.keywords if word.arg == "extra"), None)
                said = known.get(extra.id) if isinstance(extra, ast.Name) else extra
                names = {key.value for key in said.keys} if isinstance(said, ast.Dict) else set()
                if "event" not in names or not names <= {"event", *FIELDS}:
                    wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno} names {sorted(names)}")
    assert not wrong, "give each line extra={'event': 'what.happened'} with fields of telemetry.logs.FIELDS"


def is_log_call(node):
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"_log", "_LOG"}
        and node.func.attr in {"debug", "info", "warning", "error", "exception", "critical"}
    )
