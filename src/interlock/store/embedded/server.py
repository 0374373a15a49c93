"""Start, find, share and stop the embedded server of a state folder."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from interlock.store.embedded.layout import Layout, binaries, layout_of
from interlock.store.errors import EmbeddedError

OWNER: Final = "interlock_owner"
APP: Final = "interlock_app"
AUDITOR: Final = "interlock_auditor"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.02

_CONFIGURATION = """\
# Written by Interlock when the cluster was made.
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 128MB
wal_level = replica
max_wal_size = 1GB
checkpoint_completion_target = 0.9
timezone = 'UTC'
log_min_messages = warning
"""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A running server: URLs by role, and the process id of Postgres."""

    owner_url: str
    app_url: str
    auditor_url: str
    superuser_url: str
    pid: int


class Lease:
    """Keeps the server running while it is held. Dies with the process, whatever kills it."""

    def __init__(self, layout: Layout, running: Running, lock_fd: int) -> None:
        self.layout = layout
        self.running = running
        self._lock_fd = lock_fd

    def release(self) -> None:
        """Let go; the server stops when nobody holds it and `db start` has not asked it to stay."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def acquire(state: Path, *, durable: bool = True) -> Lease:
    """Use the server of a state folder, starting it if need be. `durable=False` turns fsync off: for tests only.

    Raises:
        EmbeddedError: it cannot be started or kept private; the message says what to do.
    """
    layout = layout_of(state)
    lock_fd = os.open(layout.users_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Waits while a supervisor that found no users is stopping the server.
        fcntl.flock(lock_fd, fcntl.LOCK_SH)
        with _exclusive(layout.start_lock):
            running = status_of(layout) or _start(layout, durable=durable)
    except BaseException:
        os.close(lock_fd)
        raise
    return Lease(layout, running, lock_fd)


def start_and_stay(state: Path) -> Running:
    """Start the server and let it run until `stop`."""
    lease = acquire(state)
    lease.layout.keep.touch(mode=0o600)
    lease.release()
    return lease.running


def stop(state: Path) -> bool:
    """Stop the server whoever uses it; False when it was not running."""
    layout = layout_of(state)
    with _exclusive(layout.start_lock):
        layout.keep.unlink(missing_ok=True)
        running, supervisor = status_of(layout), _supervisor(layout)
        if supervisor is not None:
            # First, so that it does not start again what is stopped now; without a Postgres it may be about to.
            _signal(supervisor, signal.SIGTERM)
        if running is not None:
            _signal(running.pid, signal.SIGINT)
        stopped = running is not None or supervisor is not None
        if stopped:
            _wait_until(lambda: not _is_there(layout), STOP_TIMEOUT_S, "Postgres does not stop")
    return stopped


def status(state: Path) -> Running | None:
    """The running server of a state folder, or None."""
    return status_of(layout_of(state))


def status_of(layout: Layout) -> Running | None:
    """The running server, or None. A process id that now belongs to another program does not count."""
    pid = _postmaster_pid(layout)
    if pid is None or not _is_our_postgres(pid, layout):
        return None
    return Running(
        owner_url=layout.url(OWNER),
        app_url=layout.url(APP),
        auditor_url=layout.url(AUDITOR),
        superuser_url=layout.url("postgres", "postgres"),
        pid=pid,
    )


def _start(layout: Layout, *, durable: bool) -> Running:
    programs = binaries(layout)
    _make_cluster(layout, programs)
    _check_major(layout, programs)
    # INVARIANT: we hold the start lock and no Postgres of ours runs, so a pid file that is here is a dead one's, even when
    # its number belongs to somebody else by now.
    # One whose supervisor is there comes back by itself, or ends with it.
    complaint = f"an earlier Postgres neither comes back nor goes away (look into {layout.log})"
    _wait_until(lambda: status_of(layout) or not _remains(layout), STOP_TIMEOUT_S, complaint)
    if (back := status_of(layout)) is not None:
        _wait_until(lambda: _answers(layout, programs), START_TIMEOUT_S, f"Postgres is not ready; look into {layout.log}")
        return back
    (layout.data / "postmaster.pid").unlink(missing_ok=True)
    for leftover in layout.sockets.glob(".s.PGSQL.*"):
        leftover.unlink()
    order = {
        "programs": str(programs),
        "cluster": str(layout.cluster),
        "sockets": str(layout.sockets),
        "uid": layout.uid,
        "gid": layout.gid,
        "durable": durable,
    }
    with layout.log.open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "interlock.store.embedded.supervisor", json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )

    def is_ready() -> bool:
        if supervisor.poll() is not None:
            raise EmbeddedError(f"Postgres did not start; its last words: {_last_words(layout)}")
        return status_of(layout) is not None and _answers(layout, programs)

    _wait_until(is_ready, START_TIMEOUT_S, f"Postgres is not ready; look into {layout.log}")
    _make_roles(layout, programs)
    running = status_of(layout)
    if running is None:
        raise EmbeddedError(f"Postgres stopped again; its last words: {_last_words(layout)}")
    supervisor.returncode = 0  # it goes on by itself; nobody waits for it
    return running


def _make_cluster(layout: Layout, programs: Path) -> None:
    if (layout.data / "PG_VERSION").exists():
        return
    fresh = layout.cluster / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    command: list[str | Path] = [
        programs / "initdb",
        "-D",
        fresh,
        "-U",
        "postgres",
        "-A",
        "peer",
        "-E",
        "UTF8",
        "--locale=C",
        "--data-checksums",
    ]
    made = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", env={"LC_ALL": "C"}, **_as_service_user(layout)
    )
    if made.returncode != 0:
        raise EmbeddedError(f"the database cluster could not be made: {made.stderr.strip()[-500:]}")
    names = sorted({"root" if os.geteuid() == 0 else getpass.getuser(), layout.user})
    roles = ("postgres", OWNER, APP, AUDITOR)
    _write(fresh / "pg_ident.conf", "".join(f"interlock {name} {role}\n" for name in names for role in roles), layout)
    _write(fresh / "pg_hba.conf", "local all all peer map=interlock\n", layout)
    _write(fresh / "postgresql.auto.conf", _CONFIGURATION, layout)
    fresh.rename(layout.data)


def _check_major(layout: Layout, programs: Path) -> None:
    have = (layout.data / "PG_VERSION").read_text().strip()
    words = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout.split()
    ours = words[2].split(".")[0]
    if have != ours:
        raise EmbeddedError(
            f"this data was made by Postgres {have}, and this installation has Postgres {ours}; "
            f"dump it with an installation that has Postgres {have} (pg_dumpall), move {layout.cluster} away, and load the dump"
        )


def _make_roles(layout: Layout, programs: Path) -> None:
    script = f"""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{OWNER}') THEN CREATE ROLE {OWNER} LOGIN NOSUPERUSER; END IF;
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP}') THEN CREATE ROLE {APP} LOGIN NOSUPERUSER; END IF;
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{AUDITOR}') THEN
                CREATE ROLE {AUDITOR} LOGIN NOSUPERUSER;
            END IF;
        END $$;
        SELECT 'CREATE DATABASE interlock OWNER {OWNER}'
        WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'interlock') \\gexec
    """
    done = subprocess.run(
        [programs / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", layout.sockets, "-U", "postgres", "-d", "postgres"],
        input=script, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise EmbeddedError(f"the database roles could not be made: {done.stderr.strip()[-500:]}")


def _as_service_user(layout: Layout) -> dict[str, Any]:
    return {"user": layout.uid, "group": layout.gid, "extra_groups": []} if os.geteuid() != layout.uid else {}


def _answers(layout: Layout, programs: Path) -> bool:
    asked = subprocess.run([programs / "pg_isready", "-q", "-h", layout.sockets], check=False)
    return asked.returncode == 0


def _postmaster_pid(layout: Layout) -> int | None:
    try:
        return int((layout.data / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def _is_our_postgres(pid: int, layout: Layout) -> bool:
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return bool(words) and Path(words[0]).name == "postgres" and str(layout.data) in words


def _supervisor(layout: Layout) -> int | None:
    try:
        pid = int(layout.supervisor_pid.read_text())
        words = psutil.Process(pid).cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    ours = "interlock.store.embedded.supervisor" in words and any(str(layout.cluster) in word for word in words)
    return pid if ours else None


def _is_there(layout: Layout) -> bool:
    return status_of(layout) is not None or _supervisor(layout) is not None


def _remains(layout: Layout) -> bool:
    """Whether the supervisor or any process of an earlier Postgres, killed or stopping, is still there."""
    data, cluster = str(layout.data), str(layout.cluster)
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        words = process.info["cmdline"] or []
        supervises = "interlock.store.embedded.supervisor" in words and any(cluster in word for word in words)
        if supervises or (process.info["cwd"] == data and process.info["status"] != psutil.STATUS_ZOMBIE):
            return True
    return False


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_until(done: object, timeout_s: float, complaint: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise EmbeddedError(f"{complaint} after {timeout_s:.0f} s")
        time.sleep(POLL_S)


def _last_words(layout: Layout) -> str:
    try:
        return layout.log.read_text(errors="replace").strip()[-500:]
    except OSError:
        return "(no log)"


def _write(path: Path, text: str, layout: Layout) -> None:
    path.write_text(text)
    path.chmod(0o600)
    if os.geteuid() != layout.uid:
        os.chown(path, layout.uid, layout.gid)


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
