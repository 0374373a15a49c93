"""What several commands share: where state lives, how variables are read, how the server is spoken to as a person."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from interlock.cli.output import NO, UNREACHABLE, USAGE, Failure

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"
TIMEOUT_S: Final = 60.0
CHUNK_BYTES: Final = 64 * 1024

State = Annotated[Path, Parameter(help="Folder of keys, embedded Postgres and signed heads.", env_var="INTERLOCK_STATE")]
Directory = Annotated[Path, Parameter(help="directory.yaml of the development issuer.", env_var="INTERLOCK_DIRECTORY")]
Environment = Annotated[str, Parameter(help="The environment this is about, such as prod.", env_var="INTERLOCK_ENVIRONMENT")]
Server = Annotated[str, Parameter(help="Where `interlock up` listens.", env_var="INTERLOCK_SERVER")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")]
# What lists and stories are narrowed to.
OfAgent = Annotated[str, Parameter(help="Only of this agent.")]
OfUser = Annotated[str, Parameter(help="Only of this user.")]
OfSession = Annotated[str, Parameter(help="Only of this session.")]
OfTask = Annotated[str, Parameter(help="Only of this task.")]
OfOperation = Annotated[str, Parameter(help="Only of this operation, as tool.operation.")]
Limit = Annotated[int, Parameter(help="How many at most; the next page is said at the end.")]
DEFAULT_STATE: Final = Path(".interlock")
DEFAULT_DIRECTORY: Final = Path("directory.yaml")
DEFAULT_ENVIRONMENT: Final = "prod"


def read_variables(path: Path | None) -> dict[str, str]:
    """`NAME=value` lines; empty lines and `#` comments are skipped."""
    if path is None:
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", code=USAGE) from error
    found = {}
    for number, line in enumerate(lines, start=1):
        name, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals:
            raise Failure(f"{path}:{number}: not of the form NAME=value", code=USAGE)
        found[name.strip()] = value.strip()
    return found


def dev_token(state: Path, directory: Path, environment: str, *, user: str = "", agent: str = "", login: str = "") -> str:
    """A token of the development issuer for a user or an agent, or a login code for a user. Raises `Failure`."""
    from interlock.app.sources import SystemClock, SystemIds  # noqa: PLC0415  # not needed for --help
    from interlock.identity.dev_issuer import DevIssuer, load_directory  # noqa: PLC0415
    from interlock.identity.errors import IdentityError  # noqa: PLC0415
    from interlock.identity.keys import KeyRing  # noqa: PLC0415

    try:
        issuer = DevIssuer(
            directory=load_directory(directory),
            keys=KeyRing(state / "keys"),
            environment=environment,
            clock=SystemClock(),
            ids=SystemIds(),
        )
        if login:
            return issuer.login_code(login)
        return issuer.agent_token(agent) if agent else issuer.user_token(user)
    except IdentityError as error:
        raise Failure(str(error), code=USAGE) from error


def ask(server: str, path: str, *, token: str = "", body: Any = None, form: Mapping[str, str] | None = None) -> Any:
    """One request to the server; gives its JSON. Raises `Failure` with what the server said."""
    with _opened(server, path, token=token, body=body, form=form) as answer:
        return json.loads(answer.read())


def stream(server: str, path: str, *, token: str) -> Iterator[bytes]:
    """What the server sends, as it comes. Raises `Failure` with what the server said, or when it breaks off."""
    with _opened(server, path, token=token) as answer:
        while chunk := answer.read(CHUNK_BYTES):
            yield chunk


@contextlib.contextmanager
def _opened(server: str, path: str, *, token: str, body: Any = None, form: Mapping[str, str] | None = None) -> Iterator[Any]:
    headers = {"accept": "application/json"}
    data: bytes | None = None
    if token:
        headers["authorization"] = f"Bearer {token}"
    if form is not None:
        data = urllib.parse.urlencode(form).encode()
        headers["content-type"] = "application/x-www-form-urlencoded"
    elif body is not None:
        data = json.dumps(body).encode()
        headers["content-type"] = "application/json"
    if not server.startswith(("http://", "https://")):
        raise Failure(f"{server!r} is no http URL", code=USAGE)
    request = urllib.request.Request(server.rstrip("/") + path, data=data, headers=headers)  # noqa: S310  # checked above
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        raise Failure(**_said(error)) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        hint = "is `interlock up` running there? give --server URL"
        raise Failure(f"{server} does not answer: {getattr(error, 'reason', error)}", hint=hint, code=UNREACHABLE) from error


def _said(error: urllib.error.HTTPError) -> dict[str, Any]:
    try:
        content = json.loads(error.read())
    except ValueError:
        content = {}
    message = content.get("error_description") or content.get("title") or f"the server answered {error.code}"
    problems = content.get("problems")
    if problems:
        message += "".join(f"\n  {item['file']}:{item['line']}: {item['message']}" for item in problems)
    return {"message": message, "code": UNREACHABLE if error.code >= 500 else NO, "details": content}  # noqa: PLR2004
