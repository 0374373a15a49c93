from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from interlock.tools.directory import Connectors
from interlock.tools.fence import CalledLateError
from interlock.tools.limits import ToolLimits
from interlock.tools.port import Asks, Connector, ToolAnswer, ToolFailure, ToolResult, ToolUnavailableError
from interlock.tools.python import PythonFunction, PythonTools
from tests.support.patience import PATIENCE_S
from tests.tools.worlds import StillClock, invocation, release, shop


def connect(limits: ToolLimits | None = None, **functions: Callable[..., Any]) -> Connector:
    made = {f"app:{name}": PythonFunction(function=function, description=name) for name, function in functions.items()}
    limits = limits or ToolLimits()
    connectors = Connectors(environment="test", clock=StillClock(), python=PythonTools(made, limits=limits), limits=limits)
    connectors.replace(release(shop(python="app:")))
    found = connectors.get("shop")
    assert found is not None
    return found


def failed(result: ToolResult) -> tuple[str, bool]:
    assert isinstance(result, ToolFailure), result
    return result.code, result.sent


async def asynchronous(text: str) -> dict[str, str]:
    return {"said": text}


def in_a_thread(text: str) -> dict[str, str]:
    assert threading.current_thread() is not threading.main_thread()
    return {"said": text}


@pytest.mark.parametrize("function", [asynchronous, in_a_thread])
async def test_a_function_is_called_with_its_arguments_as_keywords(function: Callable[..., Any]) -> None:
    answer = await connect(echo=function).invoke(invocation())
    assert isinstance(answer, ToolAnswer)
    assert answer.structured == {"said": "hello"}
    assert answer.content == ({"type": "text", "text": '{"said":"hello"}'},)


@pytest.mark.parametrize(
    ("value", "structured", "texts"),
    [("plain", None, ["plain"]), (None, None, []), ([1, 2], {"result": [1, 2]}, ["[1,2]"])],
)
async def test_what_a_function_returns_becomes_content(value: object, structured: object, texts: list[str]) -> None:
    answer = await connect(echo=lambda **_: value).invoke(invocation())
    assert isinstance(answer, ToolAnswer)
    assert answer.structured == structured
    assert [block["text"] for block in answer.content] == texts


async def test_an_exception_is_an_error_that_tells_the_caller_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fails(text: str) -> None:
        raise SystemExit("password is hunter2")

    async def fails_too(text: str) -> None:
        raise KeyError("password is hunter2")

    for function in (fails, fails_too):
        answer = await connect(echo=function).invoke(invocation())
        assert isinstance(answer, ToolAnswer)
        assert answer.is_error
        assert "hunter2" not in str(answer)
    assert "hunter2" in caplog.text


async def test_wrong_arguments_are_an_error_of_the_tool() -> None:
    answer = await connect(echo=asynchronous).invoke(invocation(arguments=b'{"other":1}'))
    assert isinstance(answer, ToolAnswer)
    assert answer.is_error


async def test_a_function_that_is_not_registered_was_not_called() -> None:
    assert failed(await connect(other=asynchronous).invoke(invocation())) == ("unreachable", False)
    with pytest.raises(ToolUnavailableError):
        await connect().list_tools()


@pytest.mark.parametrize("function", [asynchronous, in_a_thread])
async def test_a_call_refused_at_the_first_byte_does_not_run(function: Callable[..., Any]) -> None:
    def stop() -> None:
        raise PermissionError("the lease has run out")

    assert failed(await connect(echo=function).invoke(invocation(before_first_byte=stop))) == ("refused", False)


async def test_a_function_out_of_time_may_have_done_its_work() -> None:
    gate = threading.Event()

    async def sleeps(text: str) -> None:
        await asyncio.Event().wait()

    async def will_not_be_cancelled(text: str) -> None:
        while not gate.is_set():
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                continue

    def blocks(text: str) -> None:
        gate.wait(10)

    for function in (sleeps, will_not_be_cancelled, blocks):
        assert failed(await connect(echo=function).invoke(invocation(timeout_ms=50))) == ("timeout", True)
    gate.set()


async def test_a_call_that_waits_for_a_thread_in_vain_did_not_run() -> None:
    gate = threading.Event()
    called: list[str] = []

    def blocks(text: str) -> None:
        called.append(text)
        gate.wait(10)

    connector = connect(ToolLimits(python_threads_max=1), echo=blocks)
    assert failed(await connector.invoke(invocation(timeout_ms=50))) == ("timeout", True)
    assert failed(await connector.invoke(invocation(timeout_ms=50))) == ("timeout", False)
    gate.set()
    assert isinstance(await connector.invoke(invocation()), ToolAnswer)
    assert len(called) == 2


async def test_closing_ends_a_call_in_flight() -> None:
    started = asyncio.Event()

    async def waits(text: str) -> None:
        started.set()
        await asyncio.Event().wait()

    connector = connect(echo=waits)
    call = asyncio.ensure_future(connector.invoke(invocation()))
    await asyncio.wait_for(started.wait(), PATIENCE_S)
    await connector.aclose()
    assert failed(await call) == ("cancelled", True)
    assert failed(await connector.invoke(invocation())) == ("cancelled", False)


async def test_a_function_that_cancels_itself_does_not_cancel_its_caller() -> None:
    async def cancels(text: str) -> None:
        raise asyncio.CancelledError

    assert failed(await connect(echo=cancels).invoke(invocation())) == ("cancelled", True)


def deep() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(100_000):
        found = {"a": found}
    return found


class Moody:
    """Neither JSON nor willing to be made so."""

    def __iter__(self) -> None:
        raise RuntimeError("hunter2")


NOT_JSON = {
    "an object": object(),
    "an object that raises": Moody(),
    "not a number": {"n": float("nan")},
    "infinity": [1, float("inf")],
    "what is too deep": deep(),
    "a text that no wire holds": {"text": "\ud800"},
    "an answer that holds an object": ToolAnswer(structured={"n": object()}),
    "an answer that holds no number": ToolAnswer(structured={"n": float("nan")}),
}


@pytest.mark.parametrize("name", NOT_JSON)
async def test_what_a_function_returns_that_is_not_json_is_done_and_not_kept(name: str) -> None:
    answer = await connect(echo=lambda **_: NOT_JSON[name]).invoke(invocation())
    assert isinstance(answer, ToolAnswer)
    assert "not JSON" in answer.unreadable
    assert "hunter2" not in answer.unreadable
    assert answer == ToolAnswer(unreadable=answer.unreadable)


async def test_an_error_that_is_not_json_is_an_error_all_the_same() -> None:
    answer = await connect(echo=lambda **_: ToolAnswer(structured={"n": object()}, is_error=True)).invoke(invocation())
    assert isinstance(answer, ToolAnswer)
    assert answer.is_error
    assert answer.unreadable


async def test_what_was_returned_to_be_run_has_not_run_so_nobody_says_that_it_is_done() -> None:
    async def later() -> None:
        raise AssertionError

    def steps() -> Any:
        yield 1

    for made in (lambda **_: later(), lambda **_: steps(), lambda **_: asyncio.Event().wait()):
        assert failed(await connect(echo=made).invoke(invocation())) == ("protocol", True)


async def test_a_question_that_cannot_be_asked_leaves_the_call_in_doubt() -> None:
    asks = Asks(requests={"a": {"method": "elicitation/create", "params": object()}})
    assert failed(await connect(echo=lambda **_: ToolAnswer(asks=asks)).invoke(invocation())) == ("protocol", True)
    asks = Asks(requests={"a": {"method": "elicitation/create", "params": {"message": "x" * 100}}})
    small = ToolLimits(response_max_bytes=10)
    assert failed(await connect(small, echo=lambda **_: ToolAnswer(asks=asks)).invoke(invocation())) == ("too_large", True)


async def test_an_answer_too_long_to_keep_is_told_to_be_done() -> None:
    small = ToolLimits(response_max_bytes=10)
    answer = await connect(small, echo=lambda **_: "x" * 100).invoke(invocation())
    assert answer == ToolAnswer(not_kept_bytes=102)
    answer = await connect(small, echo=lambda **_: ToolAnswer(structured={"n": "x" * 100}, is_error=True)).invoke(invocation())
    assert isinstance(answer, ToolAnswer)
    assert answer == ToolAnswer(not_kept_bytes=answer.not_kept_bytes, is_error=True)


async def test_the_listing_names_the_registered_functions() -> None:
    assert [tool.name for tool in await connect(b=asynchronous, a=in_a_thread).list_tools()] == ["a", "b"]


async def test_a_function_that_keeps_to_the_fence_says_that_nothing_was_done() -> None:
    def late(**_: Any) -> None:
        raise CalledLateError

    assert failed(await connect(echo=late).invoke(invocation())) == ("late", False)


class NotedGuard:
    """A guard that writes down what it is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def __getattr__(self, name: str) -> Callable[[], None]:
        return lambda: self.steps.append(name)


async def test_a_pause_between_the_check_and_the_first_step_is_guarded_and_a_slow_first_step_is_not_taken_for_one() -> None:
    guard = NotedGuard()

    async def function(text: str) -> None:
        guard.steps.append("first step")

    checked = invocation(pause_guard=guard, before_first_byte=lambda: guard.steps.append("checked"))
    await connect(echo=function).invoke(checked)
    assert guard.steps == ["arm", "checked", "begin", "first step", "leave"]


async def test_the_guard_is_put_down_when_the_check_says_no() -> None:
    guard = NotedGuard()

    def refuse() -> None:
        raise PermissionError("stopped")

    refused = invocation(pause_guard=guard, before_first_byte=refuse)
    assert failed(await connect(echo=asynchronous).invoke(refused)) == ("refused", False)
    assert guard.steps == ["arm", "disarm"]
