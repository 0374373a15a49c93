"""MCP servers that are processes: a real one made with the SDK, and small ones that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from interlock.core.changes import Listing
from interlock.release.model import Tool
from interlock.tools.port import ConnectionKey, Line, ToolAnswer, ToolFailure, ToolResult, ToolUnavailableError
from tests.support.patience import PATIENCE_S
from tests.tools.conftest import Connect
from tests.tools.worlds import StillClock, invocation, shop

REAL = (sys.executable, str(Path(__file__).with_name("sdk_server.py")))

# Speaks line by line; `handle` is the body of a function of (message, answer).
FAKE = """
import json, os, sys
def answer(message, result): print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
def text(message, text): answer(message, {"content": [{"type": "text", "text": text}]})
for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method == "server/discover": answer(message, {"supportedVersions": ["2026-07-28"]})
    elif method == "initialize": answer(message, {"protocolVersion": "2025-11-25", "capabilities": {}})
    elif method == "tools/call":
        HANDLE
"""


def fake(handle: str, program: str = FAKE, **source: str) -> Tool:
    return shop(command=(sys.executable, "-c", program.replace("HANDLE", handle)), **source)


def text(answer: ToolResult) -> str:
    assert isinstance(answer, ToolAnswer), answer
    return str(answer.content[0]["text"])


def failed(result: ToolResult) -> tuple[str, bool]:
    assert isinstance(result, ToolFailure), result
    return result.code, result.sent


def is_running(pid: int) -> bool:
    """Whether it is still there a moment after it was killed; a zombie waits for its parent only."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and not psutil.wait_procs([process], timeout=5)[0]
    except psutil.NoSuchProcess:
        return False


async def test_a_real_server_is_called_listed_restarted_and_stopped_with_all_it_started(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_SECRET", "x")
    connector = connect(shop(command=REAL))
    added = await connector.invoke(invocation("add", b'{"a":1,"b":2}'))
    assert isinstance(added, ToolAnswer)
    assert added.structured == {"total": 3}
    assert "echo" in {tool.name for tool in await connector.list_tools()}
    answers = await asyncio.gather(*(connector.invoke(invocation(arguments=b'{"text":"%d"}' % n)) for n in range(20)))
    assert [text(answer) for answer in answers] == [str(n) for n in range(20)]
    names = set(text(await connector.invoke(invocation("environment", b"{}"))).split())
    assert names <= {"PATH", "LC_CTYPE"}
    first = int(text(await connector.invoke(invocation("process", b"{}"))))
    assert failed(await connector.invoke(invocation("die", b"{}"))) == ("unreachable", True)
    second = int(text(await connector.invoke(invocation("process", b"{}"))))
    assert second != first
    grandchild = int(text(await connector.invoke(invocation("spawn", b"{}"))))
    await connector.aclose()
    assert not is_running(second)
    assert not is_running(grandchild)
    assert failed(await connector.invoke(invocation())) == ("cancelled", False)


async def test_a_real_server_of_the_older_revision_is_called(connect: Connect) -> None:
    assert text(await connect(shop("2025-11-25", command=REAL)).invoke(invocation())) == "hello"


async def test_the_bytes_that_were_hashed_are_the_bytes_written_to_the_process(connect: Connect, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    odd = '{"a":1.10,"b":"\\u00e9 é","c":{ "z":1,"a":2 }}'.encode()
    connector = connect(fake(f"open({str(seen)!r}, 'w').write(line); text(message, 'ok')"))
    assert text(await connector.invoke(invocation(arguments=odd))) == "ok"
    assert b'"arguments":' + odd in seen.read_bytes()


async def test_a_call_refused_at_the_first_byte_is_not_written(connect: Connect, tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    def stop() -> None:
        raise PermissionError("the lease has run out")

    connector = connect(fake(f"open({str(seen)!r}, 'a').write('x'); text(message, 'ok')"))
    await connector.invoke(invocation())
    assert failed(await connector.invoke(invocation(before_first_byte=stop))) == ("refused", False)
    await connector.invoke(invocation())
    assert seen.read_text() == "xx"


@pytest.mark.parametrize(
    ("handle", "code"),
    [
        ("os._exit(1)", "unreachable"),
        ("print('{broken', flush=True)", "protocol"),
        ("message['id'] = str(message['id']); text(message, 'x')", "timeout"),
        ("message['id'] += 1; text(message, 'x')", "timeout"),
        ("pass", "timeout"),
        ("answer(message, {'content': 'x'})", "protocol"),
        ("print('x' * 200_000, flush=True)", "too_large"),
        ("sys.stdout.write('x' * 200_000); sys.stdout.flush()", "too_large"),
    ],
)
async def test_after_the_line_is_written_every_failure_says_that_the_call_may_have_arrived(
    handle: str, code: str, connect: Connect
) -> None:
    connector = connect(fake(handle), response_max_bytes=100_000)
    # Negotiated first, so that the time of the call is not spent on starting Python.
    await connector.invoke(invocation(before_first_byte=lambda: 1 / 0))  # type: ignore[arg-type,return-value]  # it raises
    assert failed(await connector.invoke(invocation(timeout_ms=200 if code == "timeout" else 10_000))) == (code, True)


async def test_stray_output_and_late_replies_disturb_nobody(connect: Connect) -> None:
    handle = "print('debugging'); print(json.dumps({'jsonrpc':'2.0','id':77,'result':{}})); text(message, 'ok')"
    assert text(await connect(fake(handle)).invoke(invocation())) == "ok"


HUGE = "1" + "0" * 400


async def test_numbers_that_nobody_can_hold_disturb_nobody(connect: Connect) -> None:
    told = f"""
        about = message["params"]["_meta"]["progressToken"]
        print('{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":%d,"progress":{HUGE}}}}}' % about)
        print('{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":{HUGE}}}}}')
        print('{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":%d,"progress":1}}}}' % about)
        text(message, "ok")"""
    reached: list[float] = []
    line = Line(progress=lambda done, total: reached.append(done), log_level="info")
    assert text(await connect(fake(told)).invoke(invocation(line=line))) == "ok"
    assert reached == [1]


async def test_where_what_a_process_says_breaks_its_reader_nobody_waits_and_the_next_call_has_another(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    connector = connect(fake("print(json.dumps({'jsonrpc':'2.0','method':'notifications/tools/list_changed'}), flush=True)"))

    def broken(listing: object, uri: str) -> None:
        raise ValueError("a defect of whoever listens")

    listening = asyncio.ensure_future(connector.listen((), broken))
    asked = invocation(timeout_ms=PATIENCE_S * 1000)
    async with asyncio.timeout(PATIENCE_S):
        assert failed(await connector.invoke(asked)) == ("protocol", True)
    await asyncio.gather(listening, return_exceptions=True)
    assert "what a process said could not be read" in caplog.text


async def test_a_server_that_asks_for_sampling_is_told_that_there_is_no_such_method(connect: Connect) -> None:
    handle = (
        "print(json.dumps({'jsonrpc':'2.0','id':'s','method':'sampling/createMessage'}), flush=True);"
        " text(message, sys.stdin.readline())"
    )
    told = json.loads(text(await connect(fake(handle)).invoke(invocation())))
    assert told["id"] == "s"
    assert told["error"]["code"] == -32601


async def test_a_server_that_dies_of_the_newer_revisions_question_is_started_again_for_the_handshake(
    connect: Connect,
) -> None:
    program = FAKE.replace('answer(message, {"supportedVersions": ["2026-07-28"]})', "os._exit(1)")
    assert text(await connect(fake("text(message, 'old')", program)).invoke(invocation())) == "old"


async def test_a_command_that_does_not_exist_or_dies_at_once_was_not_sent(connect: Connect) -> None:
    for command in (("/no/such/program",), (sys.executable, "-c", "pass")):
        assert failed(await connect(shop(command=command)).invoke(invocation())) == ("unreachable", False)


async def test_a_server_that_never_negotiates_is_stopped_and_was_not_sent(connect: Connect, tmp_path: Path) -> None:
    seen = tmp_path / "pid"
    program = f"import os,sys\nopen({str(seen)!r}, 'w').write(str(os.getpid()))\nsys.stdin.read()"
    connector = connect(shop(command=(sys.executable, "-c", program)), negotiate_timeout_ms=500)
    assert failed(await connector.invoke(invocation())) == ("unreachable", False)
    assert not is_running(int(seen.read_text()))


async def test_a_server_that_ignores_the_end_of_its_input_and_sigterm_is_killed(connect: Connect) -> None:
    program = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAKE + "\nwhile True: signal.pause()"
    connector = connect(fake("text(message, str(os.getpid()))", program), close_timeout_ms=50)
    pid = int(text(await connector.invoke(invocation())))
    await connector.aclose()
    assert not is_running(pid)


async def test_the_credential_reaches_the_process_and_nobody_else(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "tok-0123456789")
    caplog.set_level("DEBUG", "interlock")
    handle = "t = os.environ['SHOP_TOKEN']; print(t, file=sys.stderr, flush=True); text(message, str(len(t)) + t)"
    connector = connect(fake(handle, credential="env:SHOP_TOKEN"))
    assert text(await connector.invoke(invocation())) == "14[credential withheld]"
    await connector.aclose()
    assert "[credential withheld]" in caplog.text
    assert "tok-0123456789" not in caplog.text


async def test_users_of_a_stateful_tool_have_a_process_each_and_the_number_is_bounded(
    connect: Connect, clock: StillClock
) -> None:
    tool = shop(command=fake("text(message, str(os.getpid()))").sources["test"].command, stateless=False)
    connector = connect(tool, processes_max=2)

    async def pid_of(user: str) -> int:
        key = ConnectionKey(tool="shop", tenant="acme", user=user, agent="bot")
        return int(text(await connector.invoke(invocation(key=key))))

    ana, ben = await pid_of("ana"), await pid_of("ben")
    assert ana != ben
    assert await pid_of("ana") == ana
    await pid_of("cem")
    assert await pid_of("ana") == ana, "the least recently used made room"
    assert await pid_of("ben") != ben


# Says that something has changed once somebody listens (2026-07-28) or has subscribed (2025-11-25), and on each call.
TELLING = """
import json, os, sys
def tell(method, **params): print(json.dumps({"jsonrpc": "2.0", "method": "notifications/" + method, "params": params}), flush=True)
def answer(message, result): print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
def changes(): tell("tools/list_changed"); tell("resources/updated", uri="test://a"); tell("message", level="info", data="hello")
for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method == "server/discover": answer(message, {"supportedVersions": [os.environ["SPEAKS"]]})
    elif method == "initialize": answer(message, {"protocolVersion": "2025-11-25", "capabilities": {}})
    elif method in ("subscriptions/listen", "resources/subscribe"):
        assert method == "resources/subscribe" or message["params"]["notifications"]["resourceSubscriptions"] == ["test://a"]
        if method == "resources/subscribe": answer(message, {})
        changes()
    elif method == "tools/call":
        name = message["params"]["name"]
        if name == "end": os._exit(1)
        answer(message, {"content": [{"type": "text", "text": str(os.getpid())}]})
        changes()
"""


@pytest.mark.parametrize("speaks", ["2026-07-28", "2025-11-25"])
async def test_what_a_process_says_of_changes_is_heard_from_the_one_that_is_called(
    connect: Connect, tmp_path: Path, speaks: str
) -> None:
    program = TELLING.replace('os.environ["SPEAKS"]', repr(speaks))
    connector = connect(shop(command=(sys.executable, "-c", program)))
    heard: asyncio.Queue[tuple[object, str]] = asyncio.Queue()
    listening = asyncio.ensure_future(connector.listen(("test://a",), lambda listing, uri: heard.put_nowait((listing, uri))))
    assert [await heard.get() for _ in range(2)] == [(Listing.TOOLS, ""), (None, "test://a")]
    first = text(await connector.invoke(invocation("echo")))
    assert [await heard.get() for _ in range(2)] == [(Listing.TOOLS, ""), (None, "test://a")]
    assert text(await connector.invoke(invocation("echo"))) == first
    failed(await connector.invoke(invocation("end")))
    with pytest.raises(ToolUnavailableError, match="the process ended"):
        await listening


async def test_who_listens_no_more_hears_nothing_and_the_process_serves_on(connect: Connect) -> None:
    connector = connect(shop(command=(sys.executable, "-c", TELLING.replace('os.environ["SPEAKS"]', "'2026-07-28'"))))
    heard: asyncio.Queue[tuple[object, str]] = asyncio.Queue()
    listening = asyncio.ensure_future(connector.listen(("test://a",), lambda listing, uri: heard.put_nowait((listing, uri))))
    await heard.get()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    while not heard.empty():
        heard.get_nowait()
    assert text(await connector.invoke(invocation("echo")))
    assert text(await connector.invoke(invocation("echo")))
    assert heard.empty()


async def test_a_process_that_tells_no_changes_is_not_asked_again(connect: Connect) -> None:
    refuses = (
        'print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}), flush=True)'
    )
    program = FAKE.replace(
        'elif method == "tools/call":', f'elif method == "subscriptions/listen": {refuses}\n    elif method == "tools/call":'
    )
    connector = connect(fake("pass", program))
    assert await connector.listen((), lambda *_: None) is False


def test_no_test_left_a_process_behind() -> None:
    everyone = psutil.Process(os.getpid()).children(recursive=True)
    children = [child for child in everyone if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert [child for child in children if "sdk_server" in " ".join(child.cmdline())] == []
