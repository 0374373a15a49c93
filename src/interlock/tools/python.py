"""Tools that are Python functions of the application itself."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final

import msgspec

from interlock.core.contract import Kind
from interlock.core.listing import ListedTool
from interlock.tools import fence
from interlock.tools.attempt import Attempt
from interlock.tools.errors import AnswerNotKeptError, CalledLateError, CallFailedError, ToolUnavailableError
from interlock.tools.limits import DEFAULT_LIMITS, ToolLimits
from interlock.tools.listening import Hear
from interlock.tools.listings import TOOLS
from interlock.tools.port import Invocation, ToolAnswer, ToolResult

_LOG: Final = logging.getLogger(__name__)
_FAILED_TEXT: Final = "The tool failed. Its error is in the operator's log."


class PythonFunction(msgspec.Struct, frozen=True, kw_only=True):
    """One registered function, called with the arguments as keywords.

    `function` may be a coroutine function; else it runs in a thread. It returns an object (structured content), a string
    (text), None, any other JSON value (wrapped as `{"result": ...}`), or a `ToolAnswer`. What is not JSON is not given to the
    caller; a write is recorded as done all the same.
    """

    function: Callable[..., Any]
    input_schema: str = '{"type":"object"}'
    output_schema: str | None = None
    title: str = ""
    description: str = ""
    hints: Mapping[str, object] = {}


class PythonTools:
    """The functions an application offers, by full name `module:function`. Belongs to one event loop."""

    def __init__(self, functions: Mapping[str, PythonFunction], *, limits: ToolLimits = DEFAULT_LIMITS) -> None:
        self._functions = dict(functions)
        self._limits = limits
        self._threads: ThreadPoolExecutor | None = None
        self._free_threads = asyncio.Semaphore(limits.python_threads_max)

    def connector(self, prefix: str) -> PythonConnector:
        """The tool whose operations are the functions that begin with `prefix` (`ToolSource.python`)."""
        found = {name.removeprefix(prefix): made for name, made in self._functions.items() if name.startswith(prefix)}
        return PythonConnector(prefix=prefix, functions=found, run_in_thread=self._run_in_thread, limits=self._limits)

    def close(self) -> None:
        """Start no more threads. Those that run end with their function."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run_in_thread(self, attempt: Attempt, work: Callable[[], Any]) -> Any:
        """Run `work` in a thread that is free now, so that the first byte is checked when it starts and not before."""
        await self._free_threads.acquire()
        guard = attempt.invocation.pause_guard
        leave = guard.leave if guard is not None else _nothing

        def begin() -> Any:
            leave()
            return work()

        try:
            if guard is not None:
                guard.enter()
            attempt.first_byte()
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._limits.python_threads_max, thread_name_prefix="interlock-tool")
            started = self._threads.submit(begin)
        except BaseException:
            leave()
            self._free_threads.release()
            raise
        started.add_done_callback(lambda _: leave())  # also when it was given up before a thread took it
        ended = asyncio.wrap_future(started)
        # The thread counts until its function is done, however early the caller gave up.
        loop = asyncio.get_running_loop()
        started.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(self._free_threads.release))
        return await asyncio.shield(ended)


class PythonConnector:
    """The `Connector` of functions in process. A function that is out of time goes on in its thread: Python cannot stop it."""

    def __init__(
        self,
        *,
        prefix: str,
        functions: Mapping[str, PythonFunction],
        run_in_thread: Callable[[Attempt, Callable[[], Any]], Awaitable[Any]],
        limits: ToolLimits,
    ) -> None:
        self._prefix = prefix
        self._functions = functions
        self._coroutines = {name for name, made in functions.items() if inspect.iscoroutinefunction(made.function)}
        self._run_in_thread = run_in_thread
        self._limits = limits
        self._calls: set[asyncio.Task[ToolAnswer]] = set()
        self._closed = False

    async def invoke(self, invocation: Invocation) -> ToolResult:
        """Call once, within `invocation.timeout_ms`."""
        attempt = Attempt(invocation)
        function = self._functions.get(invocation.upstream_name)
        if self._closed:
            return attempt.failed("cancelled", "the connector was closed")
        if function is None or invocation.kind is not Kind.TOOL:
            return attempt.failed("unreachable", f"no function {self._prefix}{invocation.upstream_name} is registered")
        task = asyncio.get_running_loop().create_task(self._call(attempt, function))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return await attempt.end(self._wait(task))

    async def list_tools(self, kinds: frozenset[Kind] = TOOLS) -> tuple[ListedTool, ...]:  # noqa: ARG002  # they are all tools
        """The registered functions; raises `ToolUnavailableError` when there is none."""
        if not self._functions:
            raise ToolUnavailableError(f"no function whose name begins with {self._prefix} is registered in this process")
        return tuple(
            ListedTool(
                name=name,
                title=function.title,
                description=function.description,
                input_schema=function.input_schema,
                output_schema=function.output_schema,
                hints=function.hints,
            )
            for name, function in sorted(self._functions.items())
        )

    async def listen(self, uris: tuple[str, ...], hear: Hear) -> bool:  # noqa: ARG002  # the port's signature
        """Nothing changes here unasked."""
        return False

    async def quiet(self) -> None:
        """Wait until no call is under way."""
        while self._calls:
            await asyncio.wait(self._calls)

    async def aclose(self) -> None:
        """Take no more calls; those under way end as `cancelled`."""
        self._closed = True
        for task in self._calls:
            task.cancel()

    async def _wait(self, task: asyncio.Task[ToolAnswer]) -> ToolAnswer:
        # A task of its own: a function that swallows its cancellation must not hold the caller.
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and not _is_cancelled():
                raise CallFailedError("cancelled", "the call was cancelled by the function or by closing") from None
            task.cancel()
            raise

    async def _call(self, attempt: Attempt, function: PythonFunction) -> ToolAnswer:
        try:
            arguments = msgspec.json.decode(attempt.invocation.arguments, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise CallFailedError("refused", f"the arguments are not a JSON object: {error}") from None
        try:
            asked = attempt.invocation
            fence.enter(None if asked.fence is None else asked.fence(), asked.idempotency_key)
            if asked.upstream_name in self._coroutines:
                value = await _Begun(attempt, partial(function.function, **arguments))
            else:
                value = await self._run_in_thread(attempt, partial(copy_context().run, function.function, **arguments))
        except (CallFailedError, CalledLateError):
            raise
        except (Exception, SystemExit):  # noqa: BLE001  # whatever a function raises is an answer of the tool
            # What a function raises may hold anything, so it goes to the log and not to the caller.
            operation = f"{self._prefix}{attempt.invocation.upstream_name}"
            _LOG.exception("%s raised", operation, extra={"event": "tool.raised", "operation": operation})
            return ToolAnswer(content=({"type": "text", "text": _FAILED_TEXT},), is_error=True)
        return self._answer(value)

    def _answer(self, value: Any) -> ToolAnswer:
        """What the function returned, or that it returned what cannot be given: it has run all the same."""
        if value is None:
            return ToolAnswer()
        if inspect.isawaitable(value) or inspect.isgenerator(value) or inspect.isasyncgen(value):
            if inspect.iscoroutine(value):
                value.close()
            raise CallFailedError("protocol", "the function returned something to be run, and nobody runs it")
        is_error = isinstance(value, ToolAnswer) and value.is_error
        try:
            text = _json(value)
            plain = msgspec.json.decode(text)
            why, code = f"{len(text)} bytes long, which is more than is kept", "too_large"
        except Exception as error:  # noqa: BLE001  # what is returned may do anything when it is looked at
            text, plain = b"", None
            why, code = f"not JSON ({type(error).__name__})", "protocol"
        if text and len(text) <= self._limits.response_max_bytes:
            return value if isinstance(value, ToolAnswer) else _of(plain, text)
        # INVARIANT: a question is no answer yet, so nobody says of it that the call was done.
        if isinstance(value, ToolAnswer) and value.asks is not None:
            raise CallFailedError(code, f"what the function asks is {why}")
        if text:
            raise AnswerNotKeptError(is_error=is_error, size_bytes=len(text))
        return ToolAnswer(is_error=is_error, unreadable=f"what the function returned is {why}")


def _of(plain: Any, text: bytes) -> ToolAnswer:
    if isinstance(plain, str):
        return ToolAnswer(content=({"type": "text", "text": plain},))
    structured = plain if isinstance(plain, dict) else {"result": plain}
    return ToolAnswer(content=({"type": "text", "text": text.decode()},), structured=structured)


def _json(value: Any) -> bytes:
    """As JSON. Raises whatever the value raises, and `ValueError` for numbers that JSON does not have."""
    text = msgspec.json.encode(value)
    if b"null" in text:  # which is what such a number is written as
        json.dumps(msgspec.to_builtins(value), allow_nan=False)
    return text


class _Begun:
    """A coroutine function whose first step follows the check at once: no control change is acknowledged in between.

    What it does after it has waited for something is no longer its beginning. A process that is paused between the check and
    the first step does not go on to it, but for the instant in which the guard is put down.
    """

    def __init__(self, attempt: Attempt, function: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._attempt = attempt
        self._function = function

    def __await__(self) -> Generator[Any, Any, Any]:
        guard = self._attempt.invocation.pause_guard
        if guard is not None:
            guard.arm()
        try:
            self._attempt.first_byte()
            coroutine = self._function()
        except BaseException:
            if guard is not None:
                guard.disarm()
            raise
        try:
            if guard is not None:
                guard.begin()
            waits_for = coroutine.send(None)
        except StopIteration as done:
            return done.value
        finally:
            if guard is not None:
                guard.leave()
        while True:
            try:
                got = yield waits_for
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001  # also a cancellation: it is for the coroutine to deal with
                step = partial(coroutine.throw, error)
            else:
                step = partial(coroutine.send, got)
            try:
                waits_for = step()
            except StopIteration as done:
                return done.value


def _nothing() -> None:
    """Without a guard there is nothing to leave."""


def _is_cancelled() -> bool:
    """Whether it is our own task that was asked to stop, and not one that we waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
