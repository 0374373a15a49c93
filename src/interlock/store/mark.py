"""The mark: what each process writes beside the database about keyed writes, so that after a restore none is made twice.

A file a process, in a folder a database: `FOLDER/DATABASE/PROCESS-PART.mark`. Each line is numbered and sealed (AES-256-GCM,
with database, process, part and number as associated data), so that none can be read without the key, changed, or left out in
between. A line is handed to the system before anything acts on it; a chore puts it on the disk (`sync`). So nothing is lost
when a process dies, and what is younger than that chore's pause when its machine loses power.
"""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from interlock.core.budget import Charge
from interlock.core.who import AttributeValue
from interlock.store.errors import MarkError

SUFFIX: Final = ".mark"
MAX_PART_BYTES: Final = 64 * 1024 * 1024
MAX_PART_AGE_S: Final = 24 * 3600
MAX_OUTCOME_BYTES: Final = 16 * 1024
_NONCE_BYTES: Final = 12
_MAX_NUMBER_BYTES: Final = 20
_PRIVATE_FOLDER: Final = 0o700


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """The first line of a part. `boot` names the machine's start, empty where the system does not tell."""

    environment: str
    at_us: int
    boot: str = ""


class Acting(msgspec.Struct, frozen=True, kw_only=True, tag="acting"):
    """A session that a later line names."""

    session_id: str
    tenant: str
    environment: str
    agent: str
    user: str
    task: str
    roles: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it was committed to."""

    kind: str
    body: str
    salt: bytes
    commitment: bytes


class Taken(msgspec.Struct, frozen=True, kw_only=True, tag="taken"):
    """A keyed write, or a call that a window counts, was claimed and may act. `proposed` is the event with its arguments.

    `charges` are what it took of budgets with a window; None from a version that did not keep that. `source` is empty when it
    may be repeated freely; its key is then nobody's.
    """

    claim_id: str
    call_id: str
    session_id: str
    lineage_id: str
    operation: str
    call_hash: str
    release_digest: str
    scopes: tuple[str, ...]
    key: bytes
    source: str
    window_s: int
    claimed_at_us: int
    proposed: Sealed
    charges: tuple[Charge, ...] | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """A write was settled. `outcome` is None when it has none, and `left_out` says that it was too long to be kept here."""

    claim_id: str
    attempt: int
    state: str
    not_done: bool
    outcome: str | None = None
    left_out: bool = False


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """A scope that is stopped, or more worried than `normal`: by whom, and why."""

    scope: str
    halted: bool
    reason: str
    by: str
    posture: str
    posture_reason: str
    posture_by: str


class Worry(msgspec.Struct, frozen=True, kw_only=True):
    """A lineage that is more worried than `normal`."""

    lineage_id: str
    tenant: str
    environment: str
    agent: str
    user: str
    posture: str
    reason: str
    by: str


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """What was issued to a user, an agent or a session before a time is refused."""

    environment: str
    target: str
    tenant: str
    name: str
    before_us: int
    by: str
    reason: str


class Standing(msgspec.Struct, frozen=True, kw_only=True, tag="standing"):
    """What was stopped, worried and revoked at one moment, and which release was in force. `cut`: there was more of it.

    Of several the one with the highest `epoch` is the latest; `seq` is the last event of the control chain that it knows.
    """

    at_us: int
    epoch: int
    seq: int
    release_digest: str
    stops: tuple[Stop, ...]
    worries: tuple[Worry, ...]
    revoked: tuple[Revoked, ...]
    cut: bool = False


class Closed(msgspec.Struct, frozen=True, kw_only=True, tag="closed"):
    """The last line of a part that was closed in peace."""

    at_us: int


Line: TypeAlias = Opened | Acting | Taken | Ended | Standing | Closed


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part as it was read. `fault` says what is wrong with it, empty when nothing is; `closed` that it has its last line."""

    path: Path
    process_id: str
    lines: tuple[Line, ...]
    fault: str
    closed: bool
    boot: str


class Last(msgspec.Struct, frozen=True, kw_only=True):
    """What a part tells of last: the claim that was taken last, and what stood after that; empty where it tells of none.

    `unread` names the part and how many lines it has when what it tells of last cannot be opened: nobody knows what that is.
    """

    claim_id: str = ""
    standing: Standing | None = None
    unread: str = ""


class Mark:
    """Appends for one process. Belongs to one event loop; `sync` may be called from a thread.

    Raises `MarkError` when a line cannot be written: then nothing may act on it.
    """

    def __init__(self, folder: Path, *, process_id: str, environment: str, secret: bytes) -> None:
        self._all = self._folder = folder
        self.database_id = ""
        self._process_id = process_id
        self._environment = environment
        self._cipher = AESGCM(_key(secret))
        self._part = 0
        self._number = 0
        self._bytes = 0
        self._written_us = 0
        self._descriptor = -1
        self._boot = boot()
        self._synced = True

    @property
    def part(self) -> int:
        """Which part is written to now; 0 before the first."""
        return self._part

    def belongs_to(self, database_id: str) -> None:
        """Say which database it is beside; before that nothing can be written."""
        self.database_id = database_id
        self._folder = self._all / database_id

    def write(self, line: Line, *, at_us: int) -> bool:
        """Append one line. True when it began a part, so that sessions must be named anew."""
        if not self.database_id:
            raise MarkError("which database this is, is not known yet")
        # INVARIANT: no part is written to that is old enough to be forgotten by another process of this folder.
        old = at_us - self._written_us > MAX_PART_AGE_S * 1_000_000
        fresh = self._descriptor < 0 or self._bytes > MAX_PART_BYTES or old
        self._written_us = at_us
        if fresh:
            self._begin(at_us)
        self._append(line)
        return fresh

    def sync(self) -> None:
        """Put what was written on the disk."""
        if not self._synced and self._descriptor >= 0:
            self._synced = True
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._synced = False
                raise MarkError(f"the mark in {self._folder} cannot be put on the disk: {error.strerror}") from error

    def close(self, at_us: int) -> None:
        """End in peace. A mark that was never written leaves no file."""
        if self._descriptor >= 0:
            with contextlib.suppress(MarkError):
                self._append(Closed(at_us=at_us))
                self.sync()
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self, at_us: int) -> None:
        if self._descriptor >= 0:
            self.close(at_us)
        self._part += 1
        path = self._folder / f"{self._process_id}-{self._part:04}{SUFFIX}"
        try:
            self._folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MarkError(f"no mark can be kept in {self._folder}: {error.strerror}; give another --mark folder") from error
        self._number, self._bytes = 0, 0
        self._append(Opened(environment=self._environment, at_us=at_us, boot=self._boot))

    def _append(self, line: Line) -> None:
        number = self._number + 1
        nonce = os.urandom(_NONCE_BYTES)
        about = _about(self.database_id, self._process_id, self._part, number)
        sealed = nonce + self._cipher.encrypt(nonce, msgspec.json.encode(line), about)
        written = b"%d %s\n" % (number, base64.b64encode(sealed))
        self._synced = False
        try:
            taken, why = os.write(self._descriptor, written), "the disk is full"
        except OSError as error:
            taken, why = 0, error.strerror or ""
        if taken != len(written):
            # What follows half a line could not be told from it: the next one begins another part.
            os.close(self._descriptor)
            self._descriptor = -1
            raise MarkError(f"the mark in {self._folder} cannot be written: {why}")
        self._number = number
        self._bytes += len(written)


def parts_of(folder: Path, database_id: str) -> tuple[Path, ...]:
    """The parts that are kept of a database, by process and number. Raises `MarkError` where that is not seen."""
    return tuple(path for path in _listed(folder / database_id) if path.suffix == SUFFIX)


def other_databases(folder: Path, database_id: str) -> tuple[str, ...]:
    """Other databases that marks are kept of in this folder. Raises `MarkError` when it cannot be looked into."""
    found = (entry for entry in _listed(folder) if entry.is_dir() and entry.name != database_id)
    return tuple(entry.name for entry in found if parts_of(folder, entry.name))


def read_part(path: Path, *secrets: bytes) -> Part:
    """A whole part, with whichever of the keys opens a line; what cannot be read is left out, and told as its fault."""
    process_id, number = _named(path)
    ciphers = _ciphers(secrets)
    database_id = path.parent.name
    text, fault, lines = _text(path), "", []
    if text and not text.endswith(b"\n"):
        fault = "its last line is cut off"
    for expected, written in enumerate(text.split(b"\n")[:-1], start=1):
        line = _opened_line(ciphers, written, _about(database_id, process_id, number, expected), expected)
        if line is None:
            fault = fault or f"line {expected} was changed, left out, or sealed with another key"
            continue
        lines.append(line)
    first = lines[0] if lines else None
    return Part(
        path=path,
        process_id=process_id,
        lines=tuple(lines),
        fault=fault,
        closed=bool(lines) and isinstance(lines[-1], Closed),
        boot=first.boot if isinstance(first, Opened) else "",
    )


def last_of(path: Path, *secrets: bytes) -> Last:
    """What a part tells of last, by whichever of the keys opens a line. Raises `MarkError` when the file cannot be read.

    A last line without its end was never written to the end, so nothing acted on it: a crash leaves that, it counts for none.
    """
    process_id, number = _named(path)
    ciphers = _ciphers(secrets)
    lines, standing, unread = _text(path).split(b"\n")[:-1], None, ""
    for written in reversed(lines):
        told = written[:_MAX_NUMBER_BYTES].partition(b" ")[0]
        at = int(told) if told.isdigit() else 0
        match _opened_line(ciphers, written, _about(path.parent.name, process_id, number, at), at):
            case Taken(claim_id=claim_id):
                return Last(claim_id=claim_id, standing=standing, unread=unread)
            case Standing() as found:
                standing = standing or found
            case None:
                unread = f"{path.name}:{len(lines)}"
            case _:
                pass
    return Last(standing=standing, unread=unread)


def forget_older(folder: Path, database_id: str, before_s: float) -> int:
    """Remove the parts that were last written before a time (seconds since the epoch); gives how many."""
    forgotten = 0
    for path in parts_of(folder, database_id):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before_s:
                path.unlink()
                forgotten += 1
    return forgotten


def boot() -> str:
    """A name for this start of this machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MarkError(f"the folder of marks {folder} cannot be looked into: {error.strerror}") from error


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""  # another process has forgotten it meanwhile
    except OSError as error:
        raise MarkError(f"the mark {path} cannot be read: {error.strerror}") from error


def _ciphers(secrets: Sequence[bytes]) -> tuple[AESGCM, ...]:
    return tuple(AESGCM(_key(secret)) for secret in secrets)


def _opened_line(ciphers: Sequence[AESGCM], written: bytes, about: bytes, number: int) -> Line | None:
    told, _, rest = written.partition(b" ")
    if told != b"%d" % number:
        return None
    for cipher in ciphers:
        with contextlib.suppress(InvalidTag, ValueError, msgspec.MsgspecError):
            sealed = base64.b64decode(rest, validate=True)
            return _DECODER.decode(cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about))
    return None


def _named(path: Path) -> tuple[str, int]:
    process_id, _, number = path.name.removesuffix(SUFFIX).rpartition("-")
    return process_id, int(number) if number.isdigit() else 0


def _about(database_id: str, process_id: str, part: int, number: int) -> bytes:
    return f"interlock/mark/1\n{database_id}\n{process_id}\n{part}\n{number}".encode()


def _key(secret: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"interlock/mark/1").derive(secret)


_DECODER: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)
