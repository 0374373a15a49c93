"""The dead man's switch between the last check and the first write.

No check can be at the same instant as the write that it allows: a process that is stopped in between (SIGSTOP, a debugger, a
machine asleep) would write when it wakes up, however late. So for those microseconds the kernel holds a timer that kills the
process when its lease ends. It fires also while the process is stopped, and a killed process does not wake up. What it
held is then in doubt or unsent like that of any process that dies.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

_log = logging.getLogger(__name__)

_SIGEV_SIGNAL: Final = 0
_TIMER_ABSTIME: Final = 1
_NS: Final = 1_000_000_000
_CLOSED: Final = 1 << 30


class _SigEvent(ctypes.Structure):
    # sigevent(3type): 64 bytes on Linux, of which the first three members matter here.
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class DeadMan:
    """Implements `tools.port.PauseGuard` with timer_create(2). Belongs to one event loop; sections may overlap.

    `until_s` tells when the lease ends, on CLOCK_BOOTTIME; a section begun without a lease is not guarded, for it is refused.
    """

    def __init__(self, until_s: Callable[[], float]) -> None:
        self._until_s = until_s
        self._sections = 0
        self._set_s = 0.0
        self._library: Any = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._library, "timer_create"):
            self._library = ctypes.CDLL("librt.so.1", use_errno=True)  # glibc before 2.34
        self._timer = ctypes.c_void_p()
        event = _SigEvent(signo=signal.SIGKILL, notify=_SIGEV_SIGNAL)
        if self._library.timer_create(time.CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(self._timer)) != 0:
            raise OSError(ctypes.get_errno(), "timer_create")
        self._none = _TimerSpec()
        self._spec = _TimerSpec()
        self._settime = self._library.timer_settime
        self._spec_ref = ctypes.byref(self._spec)
        self._none_ref = ctypes.byref(self._none)

    def arm(self) -> None:
        """From here on, a pause that outlasts the lease ends this process."""
        self._sections += 1
        until_s = self._until_s()
        if self._sections > 1 and until_s <= self._set_s:
            return
        # A renewed lease moves the end also of sections begun before: whoever stops us waits for the lease that was renewed
        # last. Without that, sections that overlap for longer than a lease would end a process that nobody has paused.
        if until_s > time.clock_gettime(time.CLOCK_BOOTTIME):
            self._set_s = until_s
            self._spec.value.seconds, self._spec.value.nanoseconds = divmod(int(until_s * _NS), _NS)
            self._set(self._spec_ref)

    def disarm(self) -> None:
        """The write has been handed to the kernel, or will not happen."""
        self._sections -= 1
        if self._sections == 0:
            self._set(self._none_ref)

    def close(self) -> None:
        """Give the timer back."""
        self._sections = _CLOSED
        self._library.timer_delete(self._timer)

    def _set(self, spec: Any) -> None:
        if self._settime(self._timer, _TIMER_ABSTIME, spec, None) != 0:
            # INVARIANT: no first byte without the switch, once there is one.
            raise OSError(ctypes.get_errno(), "timer_settime")


def pause_guard(until_s: Callable[[], float]) -> DeadMan | None:
    """The switch where the system has what it takes (Linux), else None; then the fence of the tools is what remains."""
    if sys.platform != "linux" or not hasattr(os, "register_at_fork"):
        return None
    try:
        return DeadMan(until_s)
    except (OSError, AttributeError) as error:
        why = "no dead man's switch here (%s): a process paused in the instant before a write may write late"
        _log.warning(why, error, extra={"event": "pause.unguarded"})
        return None
