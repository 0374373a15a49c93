"""The HTTP API beside MCP: tokens, keys, health, controls and releases. Errors are problem documents."""

from __future__ import annotations

import logging
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import msgspec
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.config.app import AppConfig
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig

from interlock import __version__
from interlock.app.plane import NotPermittedError, UnknownScopeError
from interlock.core.who import Person
from interlock.identity.errors import ExchangeRefusedError, TokenRefusedError
from interlock.identity.exchange import GRANT_TYPE, ExchangeRequest, ExchangeResponse
from interlock.release.errors import ReleaseError
from interlock.server.limits import MAX_FORM_BYTES, MAX_REASON_CHARS, MAX_RELEASE_BYTES, MAX_SCOPE_CHARS
from interlock.store.errors import StoreError, StoreUnavailableError

_log = logging.getLogger(__name__)
_PROBLEM: Final = "application/problem+json"
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FORM_FIELDS: Final = 32
_SCHEME: Final = "Bearer"


class ControlRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of kill and resume. `scope` is `fleet` or `tenant:acme`, `agent:support-bot`, `operation:payments.refund`..."""

    scope: str
    reason: str


class ActivateRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of activate: the files of a release by their path in its folder."""

    files: dict[str, str]


class ControlPlane(Protocol):
    """What the API needs. Implemented by the composition root."""

    def person(self, token: str) -> Person:
        """Raises `TokenRefusedError`."""
        ...

    async def exchange(self, request: ExchangeRequest) -> ExchangeResponse:
        """Raises `ExchangeRefusedError`, `TokenRefusedError`, `StoreUnavailableError`."""
        ...

    def jwks(self) -> dict[str, Any]:
        """Public keys of session tokens and signed heads."""
        ...

    async def status(self, person: Person) -> Any:
        """Raises `NotPermittedError`."""
        ...

    async def kill(self, person: Person, scope: str, reason: str) -> Any:
        """Raises `NotPermittedError`, `UnknownScopeError`."""
        ...

    async def resume(self, person: Person, scope: str, reason: str) -> Any:
        """Raises `NotPermittedError`, `UnknownScopeError`."""
        ...

    async def activate(self, person: Person, files: dict[str, str]) -> Any:
        """Raises `NotPermittedError`, `ReleaseError`."""
        ...

    async def ready(self) -> dict[str, Any]:
        """Raises when the process cannot serve."""
        ...


def make_api(plane: ControlPlane) -> Litestar:
    """The API as an ASGI application."""

    def person_of(request: Request[Any, Any, Any]) -> Person:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return plane.person(token.strip() if scheme == _SCHEME else "")

    @post("/oauth/token", status_code=200, summary="Token exchange (RFC 8693)")
    async def token(request: Request[Any, Any, Any]) -> Response[Any]:
        form = _form(request.headers.get("content-type", ""), await request.body())
        known = {name: form.get(name, "") for name in ExchangeRequest.__struct_fields__}
        answer = await plane.exchange(ExchangeRequest(**known))
        return Response(answer, headers={"cache-control": "no-store"})

    @get("/.well-known/oauth-authorization-server", summary="Where and how to get a token (RFC 8414)")
    async def metadata(request: Request[Any, Any, Any]) -> dict[str, Any]:
        # The host was compared with the allowed ones before the request came here.
        base = f"{request.scope['scheme']}://{request.headers['host']}"
        return {
            "issuer": base,
            "token_endpoint": f"{base}/oauth/token",
            "jwks_uri": f"{base}/.well-known/jwks.json",
            "grant_types_supported": [GRANT_TYPE],
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": ["none"],
        }

    @get("/.well-known/jwks.json", summary="Public keys")
    async def jwks() -> dict[str, Any]:
        return plane.jwks()

    @get("/livez", summary="Is the process alive?")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @get("/readyz", summary="Can the process serve?")
    async def readyz() -> dict[str, Any]:
        try:
            return await plane.ready()
        except (StoreError, ReleaseError) as error:
            raise HTTPException(status_code=503, detail="not ready: no database, or no release that loads") from error

    @get("/v1/controls", summary="What is stopped, and what is in flight")
    async def controls(request: Request[Any, Any, Any]) -> Any:
        return await plane.status(person_of(request))

    @post("/v1/controls/kill", status_code=200, summary="Stop execution in a scope")
    async def kill(request: Request[Any, Any, Any]) -> Any:
        person, body = person_of(request), await _body(request, ControlRequest)
        return await plane.kill(person, *_control(body))

    @post("/v1/controls/resume", status_code=200, summary="Let execution go on in a scope")
    async def resume(request: Request[Any, Any, Any]) -> Any:
        person, body = person_of(request), await _body(request, ControlRequest)
        return await plane.resume(person, *_control(body))

    @post("/v1/releases/activate", status_code=200, summary="Make a release decide", request_max_body_size=MAX_RELEASE_BYTES)
    async def activate(request: Request[Any, Any, Any]) -> Any:
        person, body = person_of(request), await _body(request, ActivateRequest)
        return await plane.activate(person, body.files)

    @get("/v1/releases/active", summary="Which release decides")
    async def active(request: Request[Any, Any, Any]) -> Any:
        return (await plane.status(person_of(request)))["release"]

    return Litestar(
        route_handlers=[token, metadata, jwks, livez, readyz, controls, kill, resume, activate, active],
        request_max_body_size=MAX_FORM_BYTES,
        openapi_config=OpenAPIConfig(title="Interlock", version=__version__),
        exception_handlers=_handlers(),
        on_app_init=[_quiet],
        logging_config=None,
    )


def _quiet(config: AppConfig) -> AppConfig:
    config.debug = False
    config.pdb_on_exception = False
    return config


async def _body(request: Request[Any, Any, Any], kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.MsgspecError as error:
        raise HTTPException(status_code=400, detail=str(error)) from error


def _form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a form. Raises `ExchangeRefusedError` for what is none, and for fields that stand more than once."""
    if content_type.partition(";")[0].strip().lower() != _FORM:
        raise ExchangeRefusedError("invalid_request", f"send the parameters as {_FORM}")
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FORM_FIELDS)
    except ValueError as error:
        raise ExchangeRefusedError("invalid_request", "the form cannot be read") from error
    if len(dict(fields)) != len(fields):
        raise ExchangeRefusedError("invalid_request", "a parameter stands more than once")
    return dict(fields)


def _control(body: ControlRequest) -> tuple[str, str]:
    if not 0 < len(body.scope) <= MAX_SCOPE_CHARS or not 0 < len(body.reason.strip()) <= MAX_REASON_CHARS:
        raise HTTPException(status_code=400, detail="scope and reason are needed, and of a reasonable length")
    return body.scope, body.reason.strip()


def _problem(status: int, title: str, **more: Any) -> Response[Any]:
    content = {"type": "about:blank", "title": title, "status": status, **more}
    headers = {"www-authenticate": _SCHEME} if status == 401 else None  # noqa: PLR2004  # Unauthorized
    return Response(content, status_code=status, media_type=_PROBLEM, headers=headers)


def _handlers() -> dict[Any, Any]:
    def refused_token(_: Any, __: TokenRefusedError) -> Response[Any]:
        # Why exactly is counted for operators and told to nobody.
        return _problem(401, "the token is refused")

    def refused_exchange(_: Any, error: ExchangeRefusedError) -> Response[Any]:
        content = {"error": error.error, "error_description": error.description}
        return Response(content, status_code=400, media_type=MediaType.JSON, headers={"cache-control": "no-store"})

    def not_permitted(_: Any, error: NotPermittedError) -> Response[Any]:
        return _problem(403, str(error))

    def unknown_scope(_: Any, error: UnknownScopeError) -> Response[Any]:
        return _problem(400, str(error))

    def bad_release(_: Any, error: ReleaseError) -> Response[Any]:
        problems = [msgspec.to_builtins(problem) for problem in error.problems]
        return _problem(422, "the release has problems", problems=problems)

    def unavailable(_: Any, error: StoreUnavailableError) -> Response[Any]:
        return _problem(503, f"the control plane cannot answer right now: {error}")

    def http(_: Any, error: HTTPException) -> Response[Any]:
        return _problem(error.status_code, error.detail)

    def anything(_: Any, error: Exception) -> Response[Any]:
        _log.error("an API request failed", exc_info=error)
        return _problem(500, "an unexpected error; look into the server's log")

    return {
        TokenRefusedError: refused_token,
        ExchangeRefusedError: refused_exchange,
        NotPermittedError: not_permitted,
        UnknownScopeError: unknown_scope,
        ReleaseError: bad_release,
        StoreUnavailableError: unavailable,
        HTTPException: http,
        Exception: anything,
    }
