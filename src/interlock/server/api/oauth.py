"""Tokens and keys: token exchange, its metadata, public keys."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

from litestar import Request, Response, get, post

from interlock.app.plane import Plane
from interlock.identity.errors import ExchangeRefusedError
from interlock.identity.exchange import GRANT_TYPE, ExchangeRequest, ExchangeResponse
from interlock.server.api.who import NOBODY, door

_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FORM_FIELDS: Final = 32


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @post(
        "/oauth/token",
        status_code=200,
        summary="Token exchange (RFC 8693)",
        opt=door(NOBODY, body=ExchangeRequest, media=_FORM),
    )
    async def token(request: Request[Any, Any, Any]) -> Response[ExchangeResponse]:
        form = read_form(request.headers.get("content-type", ""), await request.body())
        known = {name: form.get(name, "") for name in ExchangeRequest.__struct_fields__}
        answer = await plane.exchange(ExchangeRequest(**known))
        return Response(answer, headers={"cache-control": "no-store"})

    @get("/.well-known/oauth-authorization-server", summary="Where and how to get a token (RFC 8414)", opt=door(NOBODY))
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

    @get("/.well-known/jwks.json", summary="Public keys", opt=door(NOBODY))
    async def jwks() -> dict[str, Any]:
        return plane.jwks()

    return [token, metadata, jwks]


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
