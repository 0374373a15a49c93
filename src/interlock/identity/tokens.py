"""Read a token, believing nothing of it until everything about it has been checked."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from interlock.core.ports import Clock
from interlock.identity.errors import TokenCode, TokenRefusedError
from interlock.identity.remembered import Remembered

ALGORITHM: Final = "Ed25519"
OURS: Final = "interlock"
"""The issuer of session tokens, and of the tokens of people who logged in to the page at an issuer elsewhere."""
MAX_TOKEN_CHARS: Final = 8_192
MAX_CACHED_TOKENS: Final = 4_000
LEEWAY_S: Final = 5
_HEADER_KEYS: Final = frozenset({"alg", "kid", "typ"})
_PARTS: Final = 3


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of a token that was signed by whom it says, is meant for us, and is valid now."""

    issuer: str
    subject: str
    use: str
    expires_at_s: int
    claims: Mapping[str, Any]


class Verifier:
    """Checks tokens of known issuers for one audience. `keys` maps issuer to its public keys by key id."""

    def __init__(self, *, keys: Mapping[str, Mapping[str, OKPKey]], audience: str, clock: Clock, max_lifetime_s: int) -> None:
        self._keys = keys
        self._audience = audience
        self._clock = clock
        self._max_lifetime_s = max_lifetime_s
        self._known: Remembered[Checked] = Remembered(MAX_CACHED_TOKENS)

    def check(self, token: str, *, use: str) -> Checked:
        """The checked claims of a token made for `use` (`agent`, `user` or `session`). Raises `TokenRefusedError`."""
        known = self._known.get(token)
        if known is None:
            known = self._verify(token)
            self._known.keep(token, known, until_s=known.expires_at_s, now_s=self._now_s())
        if known.expires_at_s <= self._now_s():
            self._known.drop(token)
            raise TokenRefusedError(TokenCode.EXPIRED, issuer=known.issuer)
        if known.use != use:
            raise TokenRefusedError(TokenCode.WRONG_USE, f"a token for {known.use!r} where {use!r} belongs", known.issuer)
        return known

    def knows(self, issuer: str) -> bool:
        """Whether tokens of this issuer are checked here."""
        return issuer in self._keys

    def forget(self) -> None:
        """Check every token anew."""
        self._known.clear()

    def _now_s(self) -> float:
        return self._clock.wall_us() / 1e6

    def _verify(self, token: str) -> Checked:
        header, claimed_issuer = _peek(token)
        if header.get("alg") != ALGORITHM:
            raise TokenRefusedError(TokenCode.ALGORITHM, issuer=claimed_issuer)
        if set(header) - _HEADER_KEYS:
            # Keys that travel with the token (jwk, jku, x5c) and critical extensions have no meaning here.
            raise TokenRefusedError(TokenCode.MALFORMED, "header parameters that are not understood", claimed_issuer)
        issuer_keys = self._keys.get(claimed_issuer)
        if issuer_keys is None:
            raise TokenRefusedError(TokenCode.ISSUER, issuer=claimed_issuer)
        key = issuer_keys.get(str(header.get("kid")))
        if key is None:
            raise TokenRefusedError(TokenCode.UNKNOWN_KEY, issuer=claimed_issuer)
        try:
            claims = jwt.decode(token, key, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise TokenRefusedError(TokenCode.SIGNATURE, issuer=claimed_issuer) from error
        return self._claims(claims, claimed_issuer)

    def _claims(self, claims: Mapping[str, Any], issuer: str) -> Checked:
        subject, use = claims.get("sub"), claims.get("interlock_use")
        issued, expires = claims.get("iat"), claims.get("exp")
        if not isinstance(subject, str) or not subject or not isinstance(use, str) or claims.get("iss") != issuer:
            raise TokenRefusedError(TokenCode.CLAIMS, "sub, iss or interlock_use is missing", issuer)
        if not _is_time(issued) or not _is_time(expires):
            raise TokenRefusedError(TokenCode.CLAIMS, "iat or exp is missing", issuer)
        if claims.get("aud") != self._audience:
            raise TokenRefusedError(TokenCode.AUDIENCE, issuer=issuer)
        now_s = self._now_s()
        starts = claims.get("nbf", issued)
        if not _is_time(starts) or max(issued, starts) > now_s + LEEWAY_S:
            raise TokenRefusedError(TokenCode.NOT_YET, issuer=issuer)
        if expires <= now_s:
            raise TokenRefusedError(TokenCode.EXPIRED, issuer=issuer)
        if expires - issued > self._max_lifetime_s:
            raise TokenRefusedError(TokenCode.LIFETIME, "a token that is valid for too long", issuer)
        return Checked(issuer=issuer, subject=subject, use=use, expires_at_s=int(expires), claims=claims)


def sign(claims: Mapping[str, Any], key: OKPKey, *, kind: str = "JWT") -> str:
    """A signed token with these claims; `kind` becomes `typ`."""
    return jwt.encode({"alg": ALGORITHM, "typ": kind, "kid": str(key.kid)}, dict(claims), key, algorithms=[ALGORITHM])


def _peek(token: str) -> tuple[dict[str, Any], str]:
    """Header and claimed issuer of a token, unproven. Raises `TokenRefusedError`."""
    if not token:
        raise TokenRefusedError(TokenCode.MISSING)
    parts = token.split(".")
    if len(token) > MAX_TOKEN_CHARS or len(parts) != _PARTS or not token.isascii():
        raise TokenRefusedError(TokenCode.MALFORMED)
    try:
        header, claims = (msgspec.json.decode(_unbase64(part), type=dict[str, Any]) for part in parts[:2])
    except (ValueError, binascii.Error, RecursionError, msgspec.MsgspecError) as error:
        raise TokenRefusedError(TokenCode.MALFORMED) from error
    issuer = claims.get("iss")
    return header, issuer if isinstance(issuer, str) else ""


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
