"""Tokens of issuers elsewhere: who is said to vouch, with which key, for which audience, and for how long.

Nothing of a token is believed before its signature has been checked with a key that the release's issuer publishes; only
`iss` (and, for SPIFFE, the trust domain in `sub`) is looked at before, to know whose keys to take.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeGuard

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from interlock.core.canonical import AmbiguousJsonError, parse_strict
from interlock.core.ports import Clock
from interlock.identity.errors import TokenCode, TokenRefusedError
from interlock.identity.fetch import Source, fetch_json
from interlock.identity.jwks import Fetch, IssuerKeys, Place
from interlock.identity.remembered import Remembered
from interlock.release.issuers import Issuer

MAX_TOKEN_CHARS: Final = 16_384
MAX_CACHED_TOKENS: Final = 4_000
MAX_PLACES: Final = 256
# One is opened several times in one request. They are anybody's, and kept whole: 2 MB at the most.
MAX_OPENED_TOKENS: Final = 128
MAX_LOGIN_ANSWER_S: Final = 600
_PARTS: Final = 3
# Thumbprints of certificates only help to find a key. Keys that travel with the token (jwk, jku, x5u, x5c) and critical
# extensions have no meaning here.
_HEADER_KEYS: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
_GUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class Vouched(msgspec.Struct, frozen=True, kw_only=True):
    """A token that an issuer of the release signed, for us, valid now. `claims` are as signed; nothing is mapped yet.

    `issued_at_s` is the earliest it can have been issued at, where the token does not say.
    """

    issuer: Issuer
    iss: str
    kind: str
    claims: Mapping[str, Any]
    issued_at_s: float
    expires_at_s: float
    directory: str = ""
    kid: str = ""
    thumbprint: str = ""


class Outside:
    """Checks tokens for one environment. Keys are kept by where they come from, and outlive a change of the release."""

    def __init__(self, *, environment: str, clock: Clock, fetch: Fetch = fetch_json) -> None:
        self._environment = environment
        self._clock = clock
        self._fetch = fetch
        self._places: OrderedDict[Place, IssuerKeys] = OrderedDict()
        self._known: Remembered[tuple[Vouched, Place]] = Remembered(MAX_CACHED_TOKENS)

    async def check(self, token: str, issuers: Mapping[str, Issuer]) -> Vouched:
        """What a token says, checked. Raises `TokenRefusedError`."""
        known = self.remembered(token, issuers)
        if known is not None:
            return known
        header, claims, claimed = _open(token)
        issuer, directory = self._issuer(claims, claimed, issuers)
        place = _place(issuer, claimed, directory)
        vouched = await self._verify(token, header, claims, issuer, place, directory)
        self._known.keep(token, (vouched, place), until_s=vouched.expires_at_s, now_s=self._now_s())
        return vouched

    async def id_token(self, token: str, issuer: Issuer, *, nonce: str, access_token: str) -> Vouched:
        """What an ID token says that this very issuer signed for a login that began with `nonce` (OIDC Core, 3.1.3.7).

        It is remembered nowhere: an ID token is good for the login that it was asked for, and for nothing else.
        Raises `TokenRefusedError`.
        """
        if issuer.login is None:
            raise TokenRefusedError(TokenCode.ISSUER, "people do not log in there", issuer.issuer)
        header, claims, claimed = _open(token)
        # INVARIANT: only the issuer that the login began at can end it, whoever else the release trusts.
        found, directory = self._issuer(claims, claimed, {issuer.name: issuer})
        audience, said = claims.get("aud"), claims.get("nonce")
        client_id = issuer.login.client_id
        if audience not in (client_id, [client_id]) or claims.get("azp", client_id) != client_id:
            raise TokenRefusedError(TokenCode.AUDIENCE, "an ID token for another client", claimed)
        if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
            raise TokenRefusedError(TokenCode.CLAIMS, "an ID token of another login (nonce)", claimed)
        vouched = await self._verify(token, header, claims, found, _place(found, claimed, directory), directory, for_login=True)
        if vouched.kind not in ("", "JWT", "jwt"):
            raise TokenRefusedError(TokenCode.ID_TOKEN, "no ID token", claimed)
        expected = claims.get("at_hash")
        if expected is not None and expected != _half_hash(access_token, str(header.get("alg"))):
            raise TokenRefusedError(TokenCode.CLAIMS, "the access token is not the one that came with the ID token", claimed)
        return vouched

    def remembered(self, token: str, issuers: Mapping[str, Issuer]) -> Vouched | None:
        """A token that was checked before, as long as it is valid, its key published and its issuer trusted as it was."""
        known = self._known.get(token)
        if known is None:
            return None
        vouched, place = known
        keys = self._places.get(place)
        if (
            vouched.expires_at_s > self._now_s()
            and issuers.get(vouched.issuer.name) == vouched.issuer
            and keys is not None
            and keys.holds(vouched.kid, vouched.thumbprint)
        ):
            return vouched
        self._known.drop(token)
        return None

    async def refresh_due(self) -> None:
        """Ask for keys that are no longer fresh, so that a key that was withdrawn is not believed for long."""
        for keys in list(self._places.values()):
            if keys.is_due:
                await keys.refresh()

    def problems(self) -> dict[str, str]:
        """For operators: what was wrong when an issuer was asked last, by issuer."""
        return {place.issuer: keys.problem for place, keys in self._places.items() if keys.problem}

    def _now_s(self) -> float:
        return self._clock.wall_us() / 1e6

    def _issuer(self, claims: Mapping[str, Any], claimed: str, issuers: Mapping[str, Issuer]) -> tuple[Issuer, str]:
        elsewhere = False
        for issuer in issuers.values():
            directory = _directory(issuer, claimed)
            if issuer.kind == "spiffe":
                mine = not claimed and _is_within(claims.get("sub"), issuer.trust_domain)
            elif issuer.kind == "entra":
                mine = bool(directory)
            else:
                mine = claimed == issuer.issuer
            if not mine:
                continue
            if self._environment not in issuer.environments:
                elsewhere = True
            elif issuer.kind == "entra" and directory not in issuer.tenants:
                raise TokenRefusedError(TokenCode.FOREIGN_TENANT, "a directory that issuers.yaml does not name", claimed)
            else:
                return issuer, directory
        # SPIFFE's tokens may name an issuer, which means nothing: the trust domain in `sub` says whose they are.
        for issuer in issuers.values():
            here = issuer.kind == "spiffe" and self._environment in issuer.environments
            if here and not elsewhere and _is_within(claims.get("sub"), issuer.trust_domain):
                return issuer, ""
        detail = f"not trusted in {self._environment}" if elsewhere else ""
        raise TokenRefusedError(TokenCode.ISSUER, detail, claimed)

    async def _verify(
        self,
        token: str,
        header: Mapping[str, Any],
        claims: Mapping[str, Any],
        issuer: Issuer,
        place: Place,
        directory: str,
        *,
        for_login: bool = False,
    ) -> Vouched:
        iss, algorithm, kid = place.issuer, header.get("alg"), header.get("kid")
        if algorithm not in issuer.algorithms:
            raise TokenRefusedError(TokenCode.ALGORITHM, issuer=iss)
        if set(header) - _HEADER_KEYS:
            raise TokenRefusedError(TokenCode.MALFORMED, "header parameters that are not understood", iss)
        if not isinstance(kid, str) or not kid:
            raise TokenRefusedError(TokenCode.UNKNOWN_KEY, "the token names no key", iss)
        # Whatever can be refused without asking anybody is refused first.
        issued_at_s, expires_at_s = self._times(claims, issuer, iss, just_now=for_login)
        if not for_login:
            self._audience(claims, issuer, iss)
        known = await self._keys(place).key(kid, algorithm)
        if known.issuer and known.issuer.replace("{tenantid}", directory) not in {iss, f"{issuer.issuer}/{directory}/v2.0"}:
            raise TokenRefusedError(TokenCode.UNKNOWN_KEY, "the key is published for another issuer", iss)
        try:
            jws.deserialize_compact(token, known.key, algorithms=[algorithm])
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise TokenRefusedError(TokenCode.SIGNATURE, issuer=iss) from error
        return Vouched(
            issuer=issuer,
            iss=iss,
            kind=str(header.get("typ", "")),
            claims=claims,
            issued_at_s=issued_at_s,
            expires_at_s=expires_at_s,
            directory=directory,
            kid=kid,
            thumbprint=known.thumbprint,
        )

    def _times(self, claims: Mapping[str, Any], issuer: Issuer, iss: str, *, just_now: bool) -> tuple[float, float]:
        issued, expires, now_s = claims.get("iat"), claims.get("exp"), self._now_s()
        if not _is_time(expires):
            raise TokenRefusedError(TokenCode.CLAIMS, "exp is missing", iss)
        if issued is None and issuer.kind == "spiffe":
            # A JWT-SVID need not say when it was issued: as early as its longest life allows.
            issued = min(now_s, expires - issuer.max_lifetime_s)
        if not _is_time(issued):
            raise TokenRefusedError(TokenCode.CLAIMS, "iat is missing", iss)
        starts = claims.get("nbf", issued)
        if not _is_time(starts) or max(issued, starts) > now_s + issuer.leeway_s:
            raise TokenRefusedError(TokenCode.NOT_YET, issuer=iss)
        if expires <= now_s:
            raise TokenRefusedError(TokenCode.EXPIRED, issuer=iss)
        if just_now:
            # However long it is said to hold, it tells of this login only: what was told before it began is no answer.
            if issued < now_s - MAX_LOGIN_ANSWER_S - issuer.leeway_s:
                raise TokenRefusedError(TokenCode.EXPIRED, "an ID token of an earlier login", iss)
        elif expires - issued > issuer.max_lifetime_s:
            raise TokenRefusedError(TokenCode.LIFETIME, "a token that is valid for too long", iss)
        return issued, expires

    def _audience(self, claims: Mapping[str, Any], issuer: Issuer, iss: str) -> None:
        audience = claims.get("aud")
        named = {audience} if isinstance(audience, str) else set(audience) if _are_texts(audience) else set()
        if not named & set(issuer.environments[self._environment]):
            raise TokenRefusedError(TokenCode.AUDIENCE, issuer=iss)
        others = (several for name, several in issuer.environments.items() if name != self._environment)
        if any(named & set(several) for several in others):
            raise TokenRefusedError(TokenCode.AUDIENCE, "a token for two environments", iss)

    def _keys(self, place: Place) -> IssuerKeys:
        keys = self._places.get(place)
        if keys is None:
            keys = self._places[place] = IssuerKeys(place, fetch=self._fetch, clock=self._clock)
            while len(self._places) > MAX_PLACES:
                self._places.popitem(last=False)
        return keys


@lru_cache(MAX_OPENED_TOKENS)
def claimed_issuer(token: str) -> str:
    """Who a token says vouches for it, unproven; empty when it does not say or is no token."""
    try:
        return _open(token)[2]
    except TokenRefusedError:
        return ""


def _open(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Header, claims and claimed issuer of a token, unproven, read strictly. Raises `TokenRefusedError`."""
    if not token:
        raise TokenRefusedError(TokenCode.MISSING)
    parts = token.split(".")
    if len(token) > MAX_TOKEN_CHARS or len(parts) != _PARTS or not token.isascii():
        raise TokenRefusedError(TokenCode.MALFORMED)
    try:
        header, claims = (
            parse_strict(
                base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True), max_bytes=MAX_TOKEN_CHARS
            )
            for part in parts[:2]
        )
    except (ValueError, binascii.Error, AmbiguousJsonError) as error:
        raise TokenRefusedError(TokenCode.MALFORMED) from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise TokenRefusedError(TokenCode.MALFORMED)
    issuer = claims.get("iss", "")
    if not isinstance(issuer, str):
        raise TokenRefusedError(TokenCode.MALFORMED, "iss is no text")
    return header, claims, issuer


def discovery_of(issuer: Issuer) -> tuple[str, str]:
    """The `iss` and the address of the discovery document of the issuer that people log in at."""
    if issuer.kind != "entra":
        return issuer.issuer, _place(issuer, issuer.issuer, "").discovery
    directory = (issuer.login.directory if issuer.login is not None else "") or next(iter(issuer.tenants), "")
    claimed = f"{issuer.issuer}/{directory}/v2.0"
    return claimed, _place(issuer, claimed, directory).discovery


def _half_hash(access_token: str, algorithm: str) -> str:
    """`at_hash`: the left half of the access token's hash, of the kind that the signature's algorithm uses."""
    size = "512" if algorithm in ("EdDSA", "Ed25519") else algorithm[-3:]
    if not access_token or not access_token.isascii() or size not in ("256", "384", "512"):
        return ""
    digest = hashlib.new(f"sha{size}", access_token.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def _directory(issuer: Issuer, claimed: str) -> str:
    """The Entra directory that `iss` is of; empty when it is none of Entra's."""
    if issuer.kind != "entra":
        return ""
    newer = re.fullmatch(re.escape(issuer.issuer) + f"/({_GUID})/v2\\.0", claimed)
    older = re.fullmatch(re.escape(issuer.sts) + f"/({_GUID})/", claimed)
    found = newer or older
    return found.group(1) if found else ""


def _place(issuer: Issuer, claimed: str, directory: str) -> Place:
    source = Source(url=issuer.issuer or issuer.jwks, ca=issuer.ca, credential=issuer.credential)
    match issuer.kind:
        case "spiffe":
            source = msgspec.structs.replace(source, url=issuer.jwks)
            return Place(source=source, issuer=f"spiffe://{issuer.trust_domain}", jwks=issuer.jwks, use="jwt-svid")
        case "entra":
            version = "/v2.0" if claimed.endswith("/v2.0") else ""
            discovery = f"{issuer.issuer}/{directory}{version}/.well-known/openid-configuration"
            return Place(source=source, issuer=claimed, discovery=discovery)
        case _ if issuer.jwks:
            return Place(source=source, issuer=issuer.issuer, jwks=issuer.jwks)
        case _:
            discovery = issuer.issuer.rstrip("/") + "/.well-known/openid-configuration"
            return Place(source=source, issuer=issuer.issuer, discovery=discovery)


def _is_within(subject: object, trust_domain: str) -> bool:
    return isinstance(subject, str) and subject.startswith(f"spiffe://{trust_domain}/")


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
