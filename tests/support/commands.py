"""The command line, typed: all of `interlock` but a process of its own, which costs more to start than most commands to run."""

import asyncio
import contextlib
import io
import sys
from unittest.mock import patch

from interlock.cli.main import main


def typed(*words):
    """The exit code, and what was printed and said of errors. One at a time: the words and the outputs are the process's own."""
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (
        patch.object(sys, "argv", ["interlock", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    return code, *(printed.buffer.getvalue().decode() for printed in (out, errors))


async def typed_aside(*words):
    """The same while this loop goes on, for a command that speaks to what it serves."""
    return await asyncio.to_thread(typed, *words)
