"""The database's password from somewhere else: a command, or a function, asked anew for each connection.

So a token of a managed identity can be used that is good for an hour. What either gives is never shown, logged or kept.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import shlex
import subprocess
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from interlock.store.errors import PasswordError

COMMAND_TIMEOUT_S: Final = 10.0
MAX_PASSWORD_CHARS: Final = 16_384

Password: TypeAlias = Callable[[], Awaitable[str]]


def from_command(line: str) -> Password:
    """What a command prints, run without a shell. Raises `PasswordError` for a line that is no command."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise PasswordError(f"the command for the database's password cannot be read: {error}") from error
    if not words:
        raise PasswordError("the command for the database's password is empty")

    async def fetch() -> str:
        # In a thread: the loop that asks may be the lease's, whose thread starts no processes of its own.
        return _checked(await asyncio.to_thread(_run, words), "the command for the database's password")

    return fetch


def from_function(name: str) -> Password:
    """What a Python function without arguments gives, `module:function`; it may be async. Raises `PasswordError`."""
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PasswordError(f"{name!r} cannot be imported; write module:function") from error
    if not callable(function):
        raise PasswordError(f"{name} is no function")

    async def fetch() -> str:
        try:
            if inspect.iscoroutinefunction(function):
                given = await function()
            else:
                given = await asyncio.to_thread(function)
        except Exception as error:  # noqa: BLE001  # whatever it is: its message may hold what must not be shown
            raise PasswordError(f"{name} gave no password: it raised {type(error).__name__}") from None
        return _checked(given, name)

    return fetch


def _run(words: list[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603  # the operator's own words, and no shell
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False, text=True
        )
    except subprocess.TimeoutExpired:
        raise PasswordError(f"{words[0]} gave no password within {COMMAND_TIMEOUT_S:.0f} s") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "what it printed is no text"
        raise PasswordError(f"{words[0]} cannot be run for the database's password: {why}") from None
    if done.returncode != 0:
        raise PasswordError(
            f"{words[0]} gave no password: it ended with {done.returncode}; its output is not shown: run it by hand to see why"
        )
    return done.stdout


def _checked(given: object, where: str) -> str:
    if not isinstance(given, str):
        raise PasswordError(f"{where} gave something that is no text")
    password = given.strip("\r\n")
    if not password or len(password) > MAX_PASSWORD_CHARS or "\n" in password or "\0" in password:
        raise PasswordError(f"{where} gave no password: one line is expected")
    return password
