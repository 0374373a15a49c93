"""The process that Postgres is a child of: it stops Postgres when nobody uses it any more, however the users ended.

A Postgres that ends by itself (a disk without room for its log, a crash) is started again, for as long as somebody uses it.

Started as `python -m interlock.store.embedded.supervisor <order as JSON>`. It imports nothing of Interlock, so that it is small
and cannot fail with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

POLL_S = 0.25
RESTART_PAUSE_S = 2.0
_PR_SET_PDEATHSIG = 1


def main(order: dict[str, Any]) -> int:
    """Run Postgres until it is stopped, until a signal says stop, or until nobody holds the users' lock.

    One that never was ready is not started again: whoever starts it is told why.
    """
    cluster = Path(order["cluster"])
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: asked.append(received))
    (cluster / "supervisor.pid").write_text(str(os.getpid()))
    users = os.open(cluster / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    was_ready = False
    while True:
        postgres = _started(order, cluster)
        while postgres.poll() is None:
            if asked or _nobody_uses_it(users, cluster / "keep"):
                postgres.send_signal(signal.SIGINT)
                return postgres.wait()
            was_ready = was_ready or _is_ready(cluster)
            time.sleep(POLL_S)
        was_ready = was_ready or _is_ready(cluster)  # it may have been so for a moment between two looks
        if postgres.returncode == 0 or not was_ready:
            return postgres.returncode
        again_s = time.monotonic() + RESTART_PAUSE_S
        while time.monotonic() < again_s:
            if asked or _nobody_uses_it(users, cluster / "keep"):
                return postgres.returncode
            time.sleep(POLL_S)


def _started(order: dict[str, Any], cluster: Path) -> subprocess.Popen[bytes]:
    parameters = [] if order["durable"] else ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
    return subprocess.Popen(
        [Path(order["programs"]) / "postgres", "-D", cluster / "data", "-k", order["sockets"], *parameters],
        stdin=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,  # noqa: PLW1509  # single-threaded here
        cwd="/",
        **({"user": order["uid"], "group": order["gid"], "extra_groups": []} if os.geteuid() != order["uid"] else {}),
    )


def _is_ready(cluster: Path) -> bool:
    """As Postgres itself says in the last line of its pid file."""
    try:
        return (cluster / "data" / "postmaster.pid").read_text().split("\n")[7].strip() == "ready"
    except (OSError, IndexError):
        return False


def _nobody_uses_it(users: int, keep: Path) -> bool:
    if keep.exists():
        return False
    try:
        # Held until this process ends, so that whoever comes now waits until Postgres is down and then starts it again.
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _die_with_parent() -> None:
    # After the change of user, which would undo it: if this supervisor is killed, Postgres shuts down cleanly.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
