"""The process that Postgres is a child of: it stops Postgres when nobody uses it any more, however the users ended.

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
_PR_SET_PDEATHSIG = 1


def main(order: dict[str, Any]) -> int:
    """Run Postgres until it ends, until a signal says stop, or until nobody holds the users' lock."""
    cluster = Path(order["cluster"])
    parameters = [] if order["durable"] else ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
    postgres = subprocess.Popen(
        [Path(order["programs"]) / "postgres", "-D", cluster / "data", "-k", order["sockets"], *parameters],
        stdin=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,  # noqa: PLW1509  # single-threaded here
        cwd="/",
        **({"user": order["uid"], "group": order["gid"], "extra_groups": []} if os.geteuid() != order["uid"] else {}),
    )
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: asked.append(received))
    (cluster / "supervisor.pid").write_text(str(os.getpid()))
    users = os.open(cluster / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while postgres.poll() is None:
        if asked or _nobody_uses_it(users, cluster / "keep"):
            postgres.send_signal(signal.SIGINT)
            postgres.wait()
            break
        time.sleep(POLL_S)
    return postgres.returncode or 0


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
