"""Logins kept on this machine: a file a server in the user's configuration folder, for nobody else's eyes, renewed silently."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from interlock.cli.common import DEFAULT_SERVER, ask
from interlock.cli.output import NO, USAGE, Failure

CLIENT: Final = "interlock-cli"
RENEW_BEFORE_S: Final = 30
_LOCAL: Final = ("http://127.0.0.1", "http://localhost", "http://[::1]")


class StoredLogin(msgspec.Struct, frozen=True, kw_only=True):
    """A login at one server. The access token is a person's own; the refresh token is good for one renewal.

    Of a login at an issuer elsewhere, `token_endpoint` and `client_id` renew it and `revocation_endpoint` ends it; where the
    issuer gives no refresh token, it ends with its access token.
    """

    server: str
    access_token: str
    expires_at_s: float
    refresh_token: str
    token_endpoint: str = ""
    client_id: str = ""
    revocation_endpoint: str = ""


def keep(server: str, answer: dict[str, Any], **elsewhere: str) -> StoredLogin:
    """Store what a token endpoint answered, `elsewhere` that of an issuer. Raises `Failure` when it cannot be kept safely."""
    made = StoredLogin(
        server=_plain(server),
        access_token=answer["access_token"],
        expires_at_s=_ends_at_s(answer),
        refresh_token=answer.get("refresh_token", "") if elsewhere else answer["refresh_token"],
        **elsewhere,
    )
    with _locked(server) as path:
        _write(path, made)
    return made


def token_of(server: str, *, renew: bool = False) -> str:
    """A person's token from the login kept for a server, renewed when it is about to end. Raises `Failure`."""
    with _locked(server) as path:
        # Read under the lock: a refresh token used by two commands at once would end the login.
        kept = _read(path)
        if kept is None:
            raise Failure(f"nobody is logged in at {server}", hint=f"run `interlock login{_option(server)}`", code=USAGE)
        if kept.expires_at_s - time.time() > RENEW_BEFORE_S and not renew:
            return kept.access_token
        if kept.token_endpoint and not kept.refresh_token:
            if kept.expires_at_s > time.time():
                return kept.access_token
            path.unlink(missing_ok=True)
            raise Failure(f"the login at {server} has ended", hint="run `interlock login` as before", code=USAGE)
        try:
            answer = _renewed(server, kept)
        except Failure as failure:
            if failure.code == NO and (failure.details or {}).get("error") == "invalid_grant":
                path.unlink(missing_ok=True)
                raise Failure(
                    f"the login at {server} has ended", hint=f"run `interlock login{_option(server)}`", code=USAGE
                ) from failure
            raise
        made = msgspec.structs.replace(
            kept,
            access_token=answer["access_token"],
            expires_at_s=_ends_at_s(answer),
            # An issuer that gives no new one means the old one to go on (RFC 6749, section 6).
            refresh_token=answer.get("refresh_token", kept.refresh_token),
        )
        _write(path, made)
        return made.access_token


def forget(server: str) -> StoredLogin | None:
    """Take the login kept for a server off this machine; gives what was kept."""
    with _locked(server) as path:
        kept = _read(path)
        path.unlink(missing_ok=True)
        return kept


def _renewed(server: str, kept: StoredLogin) -> dict[str, Any]:
    form = {"grant_type": "refresh_token", "client_id": kept.client_id or CLIENT, "refresh_token": kept.refresh_token}
    if not kept.token_endpoint:
        answer: dict[str, Any] = ask(server, "/oauth/token", form=form)
        return answer
    from interlock.cli.outside import ask_at  # noqa: PLC0415  # not needed for --help

    renewed: dict[str, Any] = ask_at(kept.token_endpoint, form)
    return renewed


def _ends_at_s(answer: dict[str, Any]) -> float:
    """When an access token ends: as its issuer says, else as it says itself."""
    lifetime_s = answer.get("expires_in")
    if isinstance(lifetime_s, (int, float)):
        return time.time() + lifetime_s
    return float(claims_of(answer["access_token"]).get("exp", 0))


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, unchecked: for showing it to the person whose it is."""
    try:
        part = token.split(".")[1]
        return msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), type=dict[str, Any])
    except (ValueError, IndexError) as error:
        raise Failure("the server gave something that is no token") from error


def refuse_in_the_open(server: str) -> None:
    """Raises `Failure` for a server elsewhere without TLS: whoever is in between would be logged in too."""
    base = _plain(server)
    if not base.startswith("https://") and not any(base == local or base.startswith(f"{local}:") for local in _LOCAL):
        raise Failure(f"{server} is another computer and not https", hint="give --server https://…", code=USAGE)


def _folder() -> Path:
    import platformdirs  # noqa: PLC0415  # not needed for --help

    return Path(os.environ.get("INTERLOCK_CONFIG") or platformdirs.user_config_path("interlock")) / "logins"


@contextlib.contextmanager
def _locked(server: str) -> Iterator[Path]:
    folder = _folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = hashlib.sha256(_plain(server).encode()).hexdigest()[:24]
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder / f"{name}.json"
    except OSError as error:
        raise Failure(f"logins cannot be kept in {folder}: {error.strerror}", hint="set INTERLOCK_CONFIG") from error


def _read(path: Path) -> StoredLogin | None:
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise Failure(f"{path} may be read by others, or is not yours", hint="remove it and run `interlock login`")
        return msgspec.json.decode(path.read_bytes(), type=StoredLogin)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise Failure(f"{path} cannot be read", hint="remove it and run `interlock login`") from error


def _write(path: Path, login: StoredLogin) -> None:
    # mkstemp makes files that nobody else may read; the rename makes the change whole or not at all.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(login))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _plain(server: str) -> str:
    return server.rstrip("/").lower()


def _option(server: str) -> str:
    return "" if _plain(server) == DEFAULT_SERVER else f" --server {server}"
