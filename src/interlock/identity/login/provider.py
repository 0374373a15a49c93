"""An issuer elsewhere, as somebody who logs people in with it sees it: its addresses, and the code that becomes tokens.

OpenID Connect Core 1.0 with PKCE (RFC 7636), state, nonce and the answer's `iss` (RFC 9207), as RFC 9700 wants it.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from interlock.core.ports import Clock
from interlock.identity.errors import IssuerUnreachableError
from interlock.identity.fetch import Source, fetch_json, is_safe, post_form, secret_of
from interlock.identity.outside import discovery_of
from interlock.release.issuers import Issuer, LoginRule

KEEP_S: Final = 300.0
MAX_KEPT: Final = 64
MAX_CODE_CHARS: Final = 4_000


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a discovery document says that a login needs. `says_iss`: its answers name it (RFC 9207)."""

    iss: str
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str = ""
    says_iss: bool = False
    basic: bool = True


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """What a code became. Nothing of it has been checked."""

    id_token: str
    access_token: str = ""


class Providers:
    """Asks issuers. Their addresses are kept for a few minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[tuple[Source, str], tuple[float, Metadata]] = {}

    async def metadata(self, issuer: Issuer) -> Metadata:
        """Where an issuer logs people in. Raises `IssuerUnreachableError`."""
        iss, url = discovery_of(issuer)
        source = _source(issuer)
        at_s, kept = self._kept.get((source, url), (float("-inf"), None))
        if kept is not None and self._clock.monotonic_s() - at_s < KEEP_S:
            return kept
        document = await fetch_json(Source(url=issuer.issuer, ca=issuer.ca, credential=issuer.credential), url)
        # INVARIANT: an issuer's addresses come from its own document alone, and it says whose document it is.
        if document.get("issuer") != iss:
            raise IssuerUnreachableError(f"{url} speaks for {str(document.get('issuer'))[:200]!r}")
        made = Metadata(
            iss=iss,
            authorization_endpoint=_endpoint(document, "authorization_endpoint", url),
            token_endpoint=_endpoint(document, "token_endpoint", url),
            userinfo_endpoint=_endpoint(document, "userinfo_endpoint", url) if "userinfo_endpoint" in document else "",
            says_iss=document.get("authorization_response_iss_parameter_supported") is True,
            basic="client_secret_basic" in (document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]),
        )
        while len(self._kept) >= MAX_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[source, url] = (self._clock.monotonic_s(), made)
        return made

    async def tokens(self, issuer: Issuer, login: LoginRule, *, code: str, verifier: str, redirect_uri: str) -> Tokens:
        """What a code becomes. Raises `IssuerUnreachableError`, also when the issuer refuses it."""
        metadata = await self.metadata(issuer)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": login.client_id,
            "code_verifier": verifier,
        }
        authorization = ""
        if login.secret:
            try:
                secret = await asyncio.to_thread(secret_of, login.secret)
            except (OSError, ValueError) as error:
                raise IssuerUnreachableError(f"the secret {login.secret} of {issuer.name} cannot be read: {error}") from error
            if metadata.basic:
                pair = f"{quote(login.client_id, safe='')}:{quote(secret, safe='')}"
                authorization = "Basic " + base64.b64encode(pair.encode()).decode()
            else:
                form["client_secret"] = secret
        answer = await post_form(_source(issuer), metadata.token_endpoint, form, authorization=authorization)
        id_token, access_token = answer.get("id_token"), answer.get("access_token", "")
        if not isinstance(id_token, str) or not isinstance(access_token, str):
            raise IssuerUnreachableError(f"{metadata.token_endpoint} gave no ID token; is openid among the scopes?")
        return Tokens(id_token=id_token, access_token=access_token)

    async def userinfo(self, issuer: Issuer, access_token: str) -> dict[str, Any]:
        """What the issuer says of the person whose access token this is. Raises `IssuerUnreachableError`."""
        metadata = await self.metadata(issuer)
        if not metadata.userinfo_endpoint or not access_token:
            raise IssuerUnreachableError(f"{issuer.name} has no userinfo_endpoint, or gave no access token")
        return await fetch_json(_source(issuer), metadata.userinfo_endpoint, bearer=access_token)


def authorize_url(metadata: Metadata, login: LoginRule, *, state: str, nonce: str, challenge: str, redirect_uri: str) -> str:
    """Where to send a browser to be logged in."""
    asked = {
        "response_type": "code",
        "client_id": login.client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(login.scopes),
        "state": state,
        "nonce": nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    at = metadata.authorization_endpoint
    return f"{at}{'&' if '?' in at else '?'}{urlencode(asked)}"


def _source(issuer: Issuer) -> Source:
    return Source(url=issuer.issuer, ca=issuer.ca)


def _endpoint(document: dict[str, Any], name: str, url: str) -> str:
    found = document.get(name)
    if not isinstance(found, str) or not is_safe(found) or "#" in found:
        raise IssuerUnreachableError(f"{url} names no {name} that is https")
    if url.startswith("https:") and not found.startswith("https:"):
        raise IssuerUnreachableError(f"{url} names a {name} that is not https")
    return found
