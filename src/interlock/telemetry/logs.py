"""Log lines: one JSON object each, or text for a terminal. Written by a thread of their own, so that nobody waits for a pipe.

A line has an event's stable name and fields of a closed list; never an argument, an output, a token or a secret. The text of an
exception may quote any of these, so of an exception only its type and the places in the code are written; its text is at the
level `debug`, which is for a developer's own machine.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from interlock.gateway.telemetry import followed

MAX_LINES_QUEUED: Final = 10_000
MAX_MESSAGE_CHARS: Final = 2_000
MAX_FIELD_CHARS: Final = 300
MAX_PLACES: Final = 30
CLOSE_S: Final = 2.0
FIELDS: Final = (
    "call_id",
    "trace_id",
    "session_id",
    "claim_id",
    "process_id",
    "release",
    "environment",
    "agent",
    "operation",
    "tool",
    "issuer",
    "outcome",
    "code",
    "took_ms",
    "chore",
    "detector",
    "url",
)
LEVELS: Final = ("debug", "info", "warning", "error")
_OURS: Final = "interlock"
_OTHERS_EVENT: Final = "log"
_SPEAKS_OF_TASKS: Final = "asyncio"
_HIDDEN: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


_KEPT: Final = {code: text for code, text in _HIDDEN.items() if code != ord("\n")}


class Out(Protocol):
    """Where lines are written: a text stream."""

    def write(self, text: str, /) -> object:
        """Write; may block, may fail."""
        ...

    def flush(self) -> object:
        """Hand over."""
        ...


def entry(record: logging.LogRecord, *, debug: bool = False) -> dict[str, Any]:
    """A record as its fields, in their order. `debug` shows what exceptions say."""
    seconds, micros = divmod(int(record.created * 1e6), 1_000_000)
    found: dict[str, Any] = {
        "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{micros:06d}Z",
        "level": record.levelname.lower(),
        "event": str(getattr(record, "event", _OTHERS_EVENT)),
        "message": _message(record),
        "logger": record.name,
    }
    for name in FIELDS:
        value = getattr(record, name, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
        elif value:
            found[name] = str(value)[:MAX_FIELD_CHARS]
    if record.exc_info and record.exc_info[0] is not None:
        kind, error, _ = record.exc_info
        found["error"] = {"type": f"{kind.__module__}.{kind.__qualname__}", "at": _places(error)}
        if debug:
            found["error"]["says"] = str(error)[:MAX_MESSAGE_CHARS]
    return found


def json_line(found: Mapping[str, Any]) -> str:
    """One JSON object; ASCII only, so that no text in it means anything to a terminal."""
    return json.dumps(found, separators=(",", ":"))


def text_line(found: Mapping[str, Any]) -> str:
    """For people: time, level, message, then the fields."""
    told = [f"{name}={found[name]}" for name in FIELDS if name in found]
    line = f"{found['time']} {found['level'].upper():<8}{found['event']}: {found['message']}"
    if told:
        line += f"  [{' '.join(told)}]"
    line = line.translate(_HIDDEN)
    if "error" in found:
        error = found["error"]
        line += f"\n    {error['type']} {error.get('says', '')}".translate(_KEPT).rstrip()
        line += "".join(f"\n      at {place}" for place in error["at"])
    return line


FORMATS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {"json": json_line, "text": text_line}


class LogLines(logging.Handler):
    """Takes records and never waits; a thread writes them. When it cannot keep up, lines are given up and counted."""

    def __init__(self, style: str, out: Out | None = None, *, debug: bool = False) -> None:
        super().__init__()
        self._line = FORMATS[style]
        self._debug = debug
        self._out: Out = sys.stderr if out is None else out
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(MAX_LINES_QUEUED)
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Lines that are not written yet."""
        return self._queue.qsize()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record, with the call that it was made for."""
        path = followed()
        if path is not None:
            for name, value in (("call_id", path.call_id), ("trace_id", path.trace_id)):
                record.__dict__.setdefault(name, value)
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what is left, for two seconds at most."""
        super().close()
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return  # nobody reads what we write
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            try:
                self._out.write(self._line(entry(record, debug=self._debug)) + "\n")
                if self._queue.empty():
                    self._out.flush()
            except Exception:  # noqa: BLE001  # a line that cannot be written harms nobody; there is no place to say so
                self.dropped += 1


def start_logs(style: str, level: str, out: Out | None = None) -> LogLines:
    """Send every logger's lines through one handler: ours from `level` on, what libraries say from warnings on.

    Whoever starts them closes the handler at the end.
    """
    lines = LogLines(style, out, debug=level.lower() == "debug")
    root = logging.getLogger()
    root.handlers[:] = [lines]
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(level.upper())
    logging.captureWarnings(capture=True)
    return lines


def _message(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001  # a message that does not fit its arguments is still a line
        message = str(record.msg)
    if record.name.startswith(_SPEAKS_OF_TASKS):
        # asyncio goes on with the task and its exception, whose text may quote anything.
        message = message.partition("\n")[0]
    return message[:MAX_MESSAGE_CHARS]


def _places(error: BaseException | None) -> list[str]:
    """Where it was raised, the innermost last, and then where its causes were; no line shows a value."""
    found: list[str] = []
    while error is not None and len(found) < MAX_PLACES:
        frames = traceback.extract_tb(error.__traceback__)
        found += [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if error is not None:
            found.append(f"because of {type(error).__module__}.{type(error).__qualname__}")
    return found[-MAX_PLACES:]
