"""Tokens and keys: token exchange, the built-in issuer's grants for development, their metadata, public keys."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from litestar import Request, Response, get, post
from litestar.exceptions import HTTPException

from interlock.app.doors import MCP_PATH, METADATA_PATH, ResourceMetadata
from interlock.app.logins import GRANTS, DeviceAsked, Issued, LoginDesk
from interlock.app.plane import Plane
from interlock.identity.errors import ExchangeRefusedError
from interlock.identity.exchange import GRANT_TYPE, ExchangeRequest, ExchangeResponse
from interlock.server import asgi
from interlock.server.api.common import read
from interlock.server.api.who import NOBODY, door

_FORM: Final = "application/x-www-form-urlencoded"
# OAuth writes its errors in a form of its own (RFC 6749, section 5.2); without the built-in issuer there is nobody to ask.
_JSON: Final = "application/json"
_NO_LOGINS: Final = (404, 503)
_MAX_FORM_FIELDS: Final = 32
_MCP_PATH: Final = "/mcp"
# Cookies and tokens of a login are nothing that a cache, or a page that quotes an address, should keep.
_UNKEPT: Final = {"cache-control": "no-store", "pragma": "no-cache"}


class ClientMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says of itself (RFC 7591); what is not listed here has no meaning here and is left out."""

    redirect_uris: tuple[str, ...] = ()
    client_name: str = ""


class RegisteredClient(msgspec.Struct, frozen=True, kw_only=True):
    """A client as it is registered: public, so without a secret, whatever it asked for."""

    client_id: str
    client_id_issued_at: int
    client_name: str
    redirect_uris: tuple[str, ...]
    grant_types: tuple[str, ...]
    response_types: tuple[str, ...] = ("code",)
    token_endpoint_auth_method: str = "none"  # noqa: S105  # the name of a method


class TokenRequest(ExchangeRequest, frozen=True, kw_only=True):
    """The form of a token request: of the exchange, or of a grant of the built-in issuer."""

    client_id: str = ""
    code: str = ""
    code_verifier: str = ""
    redirect_uri: str = ""
    resource: str = ""
    device_code: str = ""
    refresh_token: str = ""
    assertion: str = ""


class DeviceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The form by which a device asks to be let in; `device_name` is what it calls itself."""

    client_id: str
    device_name: str = ""


class DeviceAnswer(DeviceAsked, frozen=True, kw_only=True):
    """What a device shows to a person, and what it asks again with (RFC 8628, section 3.2)."""

    verification_uri: str
    verification_uri_complete: str


class RevocationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The form that ends a login."""

    token: str


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @post(
        "/oauth/token",
        status_code=200,
        summary="Token exchange (RFC 8693), and the built-in issuer's grants",
        opt=door(NOBODY, body=TokenRequest, media=_FORM, refuses=_JSON),
    )
    async def token(request: Request[Any, Any, Any]) -> Response[ExchangeResponse | Issued]:
        form = read_form(request.headers.get("content-type", ""), await request.body())
        return Response(await plane.issue(form, base_of(request) + _MCP_PATH), headers=_UNKEPT)

    @post(
        "/oauth/register",
        status_code=201,
        summary="Register a client with the built-in issuer (RFC 7591)",
        opt=door(NOBODY, body=ClientMetadata, tells=_NO_LOGINS, refuses=_JSON),
    )
    async def register(request: Request[Any, Any, Any]) -> Response[RegisteredClient]:
        asked = await read(request, ClientMetadata)
        client = await _desk(plane).register(asked.client_name, asked.redirect_uris)
        answer = RegisteredClient(
            client_id=client.client_id,
            client_id_issued_at=plane.clock.wall_us() // 1_000_000,
            client_name=client.name,
            redirect_uris=client.redirect_uris,
            grant_types=tuple(name for name, kind in GRANTS.items() if kind != "proof"),
        )
        return Response(answer, status_code=201, headers=_UNKEPT)

    @post(
        "/oauth/device_authorization",
        status_code=200,
        summary="A device asks to be let in (RFC 8628)",
        opt=door(NOBODY, body=DeviceRequest, media=_FORM, tells=_NO_LOGINS, refuses=_JSON),
    )
    async def device(request: Request[Any, Any, Any]) -> Response[DeviceAnswer]:
        desk = _desk(plane)
        form = read_form(request.headers.get("content-type", ""), await request.body())
        asked_from = request.client.host if request.client else ""
        asked = await desk.ask_device(form.get("client_id", ""), form.get("device_name", ""), asked_from)
        there = f"{base_of(request)}/device"
        answer = DeviceAnswer(
            **msgspec.structs.asdict(asked),
            verification_uri=there,
            verification_uri_complete=f"{there}?user_code={asked.user_code}",
        )
        return Response(answer, headers=_UNKEPT)

    @post(
        "/oauth/revoke",
        status_code=200,
        summary="Log out: end the login of a refresh token (RFC 7009)",
        opt=door(NOBODY, body=RevocationRequest, media=_FORM, tells=_NO_LOGINS, refuses=_JSON),
    )
    async def revoke(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
        desk = _desk(plane)
        await desk.end(read_form(request.headers.get("content-type", ""), await request.body()).get("token", ""))
        # Whether there was such a login is nobody's business.
        return Response({}, headers=_UNKEPT)

    @get("/.well-known/oauth-authorization-server", summary="Where and how to get a token (RFC 8414)", opt=door(NOBODY))
    async def metadata(request: Request[Any, Any, Any]) -> dict[str, Any]:
        base = base_of(request)
        said = {
            "issuer": base,
            "token_endpoint": f"{base}/oauth/token",
            "jwks_uri": f"{base}/.well-known/jwks.json",
            "grant_types_supported": [GRANT_TYPE],
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": ["none"],
        }
        if plane.logins is None:
            return said
        return {
            **said,
            "authorization_endpoint": f"{base}/oauth/authorize",
            "registration_endpoint": f"{base}/oauth/register",
            "device_authorization_endpoint": f"{base}/oauth/device_authorization",
            "revocation_endpoint": f"{base}/oauth/revoke",
            "revocation_endpoint_auth_methods_supported": ["none"],
            "grant_types_supported": [GRANT_TYPE, *GRANTS],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }

    @get("/.well-known/jwks.json", summary="Public keys", opt=door(NOBODY))
    async def jwks() -> dict[str, Any]:
        return plane.jwks()

    @get(METADATA_PATH, summary="Who issues tokens for us (RFC 9728)", opt=door(NOBODY))
    async def resource(request: Request[Any, Any, Any]) -> ResourceMetadata:
        said = await plane.doors.metadata(base_of(request), "")
        return msgspec.structs.replace(said, interlock_logins=await plane.outside_logins.offers())

    @get(f"{METADATA_PATH}{MCP_PATH}", summary="Who issues tokens for the MCP endpoint (RFC 9728)", opt=door(NOBODY))
    async def mcp_resource(request: Request[Any, Any, Any]) -> ResourceMetadata:
        return await plane.doors.metadata(base_of(request), MCP_PATH)

    return [token, register, device, revoke, metadata, jwks, resource, mcp_resource]


def base_of(request: Request[Any, Any, Any]) -> str:
    """The address that clients know us by."""
    return asgi.base_of(request.scope)  # type: ignore[arg-type]  # Litestar's scope is a dictionary of known keys


def _desk(plane: Plane) -> LoginDesk:
    if plane.logins is None:
        raise HTTPException(status_code=404, detail="the built-in issuer logs in nobody here; see `up --directory`")
    return plane.logins


def read_form(content_type: str, body: bytes) -> dict[str, str]:
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
