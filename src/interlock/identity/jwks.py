"""An issuer's public keys: found by discovery, kept for a bounded time, asked for anew when a stranger's key id comes by.

Fresh keys are used as they are. Older ones are used while new ones are fetched. Keys that could not be fetched anew for
`KEEP_S` are used no longer: an issuer that is unreachable for so long vouches for nobody (fail closed).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from interlock.core.ports import Clock
from interlock.identity.errors import IssuerUnreachableError, TokenCode, TokenRefusedError
from interlock.identity.fetch import Source

FRESH_S: Final = 300.0
KEEP_S: Final = 3_600.0
# However many unknown key ids come by, an issuer is asked no more often than this.
ASK_AGAIN_S: Final = 10.0
MAX_KEYS: Final = 100
MIN_RSA_BITS: Final = 2_048
_CURVES: Final[Mapping[str, tuple[str, str]]] = {
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}
_EC_OF_OLD: Final = {"Ed25519": "EdDSA", "EdDSA": "Ed25519"}

PublicKey: TypeAlias = "RSAKey | ECKey | OKPKey"
Fetch: TypeAlias = Callable[[Source, str], Awaitable[dict[str, Any]]]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where keys of one `iss` are: at `jwks`, or where the discovery document at `discovery` says; `use` is theirs."""

    source: Source
    issuer: str
    discovery: str = ""
    jwks: str = ""
    use: str = "sig"


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A key as published. `issuer` is set when the set says whose it is (Entra's shared set does)."""

    key: PublicKey
    kid: str
    algorithm: str
    thumbprint: str
    issuer: str = ""


class IssuerKeys:
    """The keys of one place. Every method may be called from many tasks; the network is asked by one at a time."""

    def __init__(self, place: Place, *, fetch: Fetch, clock: Clock) -> None:
        self._place = place
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, Known] = {}
        self._had_at_s = float("-inf")
        self._asked_at_s = float("-inf")
        self._asking = asyncio.Lock()
        self._behind: asyncio.Task[bool] | None = None
        self.problem = "never asked"

    def holds(self, kid: str, thumbprint: str) -> bool:
        """Whether a key that verified something is still published, as far as we may believe what we have."""
        known = self._keys.get(kid)
        return known is not None and known.thumbprint == thumbprint and self._age_s() < KEEP_S

    async def key(self, kid: str, algorithm: str) -> Known:
        """The published key with this id, for this algorithm. Raises `TokenRefusedError`."""
        if self._age_s() >= KEEP_S or kid not in self._keys:
            await self.refresh()
        elif self.is_due and (self._behind is None or self._behind.done()):
            self._behind = asyncio.create_task(self.refresh(), name="issuer-keys")
        if self._age_s() >= KEEP_S:
            raise TokenRefusedError(TokenCode.ISSUER_UNREACHABLE, self.problem, self._place.issuer)
        known = self._keys.get(kid)
        if known is None:
            raise TokenRefusedError(TokenCode.UNKNOWN_KEY, issuer=self._place.issuer)
        if not fits(known, algorithm):
            # INVARIANT: the key says what it is for; a token does not get to choose.
            raise TokenRefusedError(TokenCode.ALGORITHM, "another algorithm than the key is for", self._place.issuer)
        return known

    @property
    def is_due(self) -> bool:
        """Whether the keys are old enough to ask for them again."""
        return self._age_s() >= FRESH_S and self._may_ask()

    async def refresh(self) -> bool:
        """Ask the issuer, unless it was asked a moment ago. False when its last answer was of no use."""
        async with self._asking:
            if not self._may_ask():
                return not self.problem
            self._asked_at_s = self._clock.monotonic_s()
            try:
                keys = await self._read()
            except IssuerUnreachableError as error:
                self.problem = str(error)
                return False
            # Whatever is no longer published is gone from here on.
            self._keys = keys
            self._had_at_s = self._clock.monotonic_s()
            self.problem = ""
            return True

    def _age_s(self) -> float:
        return self._clock.monotonic_s() - self._had_at_s

    def _may_ask(self) -> bool:
        return self._clock.monotonic_s() - self._asked_at_s >= ASK_AGAIN_S

    async def _read(self) -> dict[str, Known]:
        place, url = self._place, self._place.jwks
        if not url:
            document = await self._fetch(place.source, place.discovery)
            if document.get("issuer") != place.issuer:
                raise IssuerUnreachableError(f"{place.discovery} speaks for {str(document.get('issuer'))[:200]!r}")
            found = document.get("jwks_uri")
            if not isinstance(found, str):
                raise IssuerUnreachableError(f"{place.discovery} names no jwks_uri")
            url = found
        keys = usable((await self._fetch(place.source, url)).get("keys"), place.use)
        if not keys:
            raise IssuerUnreachableError(f"{url} publishes no usable key")
        return keys


def usable(published: object, use: str) -> dict[str, Known]:
    """The keys of a JWK set (RFC 7517) that may check signatures, by id. Others are left out; of two with one id, both.

    Raises:
        IssuerUnreachableError: there are too many.
    """
    if not isinstance(published, list):
        return {}
    if len(published) > MAX_KEYS:
        raise IssuerUnreachableError(f"a set of more than {MAX_KEYS} keys")
    found: dict[str, Known] = {}
    twice: set[str] = set()
    for raw in published:
        known = _known(raw, use) if isinstance(raw, dict) else None
        if known is None:
            continue
        if known.kid in found and found[known.kid].thumbprint != known.thumbprint:
            twice.add(known.kid)
        found[known.kid] = known
    return {kid: known for kid, known in found.items() if kid not in twice}


def fits(known: Known, algorithm: str) -> bool:
    """Whether a key may check signatures of this algorithm."""
    if known.algorithm and known.algorithm not in {algorithm, _EC_OF_OLD.get(algorithm)}:
        return False
    if algorithm.startswith(("RS", "PS")):
        return known.key.key_type == "RSA"
    kind, curve = _CURVES.get(algorithm, ("", ""))
    return known.key.key_type == kind and getattr(known.key, "curve_name", "") == curve


def _known(raw: Mapping[str, Any], use: str) -> Known | None:
    kid, kind = raw.get("kid"), raw.get("kty")
    meant = raw.get("use")
    # A SPIFFE bundle says `jwt-svid`, and its other keys are not for tokens; elsewhere `use` may be left out.
    if not isinstance(kid, str) or not kid or (meant != use and not (meant is None and use == "sig")):
        return None
    operations = raw.get("key_ops", ["verify"])
    if "d" in raw or "k" in raw or not isinstance(operations, list) or "verify" not in operations:
        return None
    kinds: dict[str, type[RSAKey | ECKey | OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    made = kinds.get(kind) if isinstance(kind, str) else None
    if made is None:
        return None
    bare = {name: raw[name] for name in ("kty", "n", "e", "crv", "x", "y") if isinstance(raw.get(name), str)}
    if kind == "RSA" and len(bare.get("n", "")) * 6 < MIN_RSA_BITS:
        return None
    try:
        key = made.import_key(bare)
        if isinstance(key, RSAKey) and key.public_key.key_size < MIN_RSA_BITS:
            return None
        thumbprint = key.thumbprint()
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    algorithm, issuer = raw.get("alg", ""), raw.get("issuer", "")
    if not isinstance(algorithm, str) or not isinstance(issuer, str):
        return None
    return Known(key=key, kid=kid, algorithm=algorithm, thumbprint=thumbprint, issuer=issuer)
