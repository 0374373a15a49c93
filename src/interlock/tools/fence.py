"""For functions in process: the fence of the call they are made for, so that one that can may refuse a call that comes late."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from interlock.tools.errors import CalledLateError
from interlock.tools.port import Fence

__all__ = ["CalledLateError", "current", "current_key", "enter"]

_KEY: Final[ContextVar[str]] = ContextVar("interlock_key", default="")
_CURRENT: Final[ContextVar[Fence | None]] = ContextVar("interlock_fence", default=None)


def current() -> Fence | None:
    """The fence of the call that this function was called for; None outside of one."""
    return _CURRENT.get()


def current_key() -> str:
    """The idempotency key of the call that this function was called for; empty for a read, and outside of a call."""
    return _KEY.get()


def enter(fence: Fence | None, key: str = "") -> None:
    """Set both for the rest of this context. For connectors only."""
    _CURRENT.set(fence)
    _KEY.set(key)
