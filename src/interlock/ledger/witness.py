"""The witness: a file outside the database with every signed head, so that what is cut off there is missed.

A line is there whole or not at all. What a crash or a full disk has left of a last line counts as not written; a line that
cannot be read anywhere else means that somebody changed the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from interlock.store.errors import WitnessError

_BLOCK_BYTES = 64 * 1024


class _Line(msgspec.Struct, kw_only=True):
    n: int
    body: str
    key_id: str
    signature: str


def append_witness(path: Path, *lines: Mapping[str, Any]) -> None:
    """Append lines, on disk before this returns. Keep copies of the file where the database cannot reach.

    Raises `OSError`, and then the file is as it was.
    """
    written = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Processes may share a state folder: what another one is writing is not half a line that was left behind.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        kept = _whole_bytes(descriptor, size)
        if kept < size:
            os.ftruncate(descriptor, kept)
        try:
            _write(descriptor, written, path)
        except OSError:
            if kept < os.fstat(descriptor).st_size:
                os.ftruncate(descriptor, kept)
            raise
    finally:
        os.close(descriptor)


def last_witnessed(path: Path) -> Mapping[str, Any] | None:
    """The last whole line; None when there is none, or it cannot be read. Raises `OSError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        end = _whole_bytes(descriptor, os.fstat(descriptor).st_size)
        start = _whole_bytes(descriptor, max(0, end - 1))
        return _read(path, 0, os.pread(descriptor, end - start, start).removesuffix(b"\n"))
    except WitnessError:
        return None
    finally:
        os.close(descriptor)


def read_witness(path: Path | None) -> list[Mapping[str, Any]] | None:
    """The lines of a witness file; None when there is none. Raises `WitnessError` when it was damaged."""
    if path is None or not path.exists():
        return None
    try:
        # Without its end the last line was not written to the end.
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise WitnessError(f"the witness {path} cannot be read: {error.strerror}") from error
    return [_read(path, number, text) for number, text in enumerate(lines, start=1)]


def _write(descriptor: int, written: bytes, path: Path) -> None:
    if os.write(descriptor, written) != len(written):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    os.fsync(descriptor)


def _whole_bytes(descriptor: int, size: int) -> int:
    """How much of the file are whole lines."""
    at = size
    while at:
        start = max(0, at - _BLOCK_BYTES)
        end = os.pread(descriptor, at - start, start).rfind(b"\n")
        if end >= 0:
            return start + end + 1
        at = start
    return 0


def _read(path: Path, number: int, text: bytes) -> Mapping[str, Any]:
    try:
        line = msgspec.json.decode(text, type=_Line)
        bytes.fromhex(line.signature)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise WitnessError(
            f"line {number} of the witness {path} cannot be read: it was changed, or its disk is damaged. Put a copy of the "
            "file in its place, or take that line out if you know how it came about"
        ) from error
    return msgspec.structs.asdict(line)
