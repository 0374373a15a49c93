"""What a browser holds of a person who logged in at an issuer elsewhere: a token of ours, of an hour at most.

It speaks for the person to the control plane and for nobody anywhere else: it has a key and a use of its own, so it opens no
session and proves no agent. It ends with the login that it names, and when the release trusts the issuer no longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from interlock.core.ports import Clock, Ids
from interlock.core.who import Person
from interlock.identity.dev_issuer import LOGIN_CLAIM
from interlock.identity.errors import TokenCode, TokenRefusedError
from interlock.identity.keys import KeyRing
from interlock.identity.outside import claimed_issuer
from interlock.identity.reading import MAX_ROLES, UserProof
from interlock.identity.tokens import OURS, Checked, Verifier, sign
from interlock.release.issuers import Issuer

KEY: Final = "person"
MAX_PERSON_TOKEN_S: Final = 3_600
ATTEMPT_S: Final = 600


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A login that a browser began: at which issuer, by which state, and where it is answered and goes on."""

    issuer: str
    iss: str
    state: str
    redirect_uri: str
    next_path: str
    expires_at_s: int = 0


class PersonTokens:
    """Issues and checks the tokens of people who logged in elsewhere, and what their browser holds until they have."""

    def __init__(self, *, keys: KeyRing, environment: str, clock: Clock, ids: Ids) -> None:
        self._keys = keys
        self._environment = environment
        self._clock = clock
        self._ids = ids
        self._verifier = Verifier(
            keys={OURS: keys.verifying(KEY)},
            audience=f"interlock:{environment}",
            clock=clock,
            max_lifetime_s=MAX_PERSON_TOKEN_S,
        )

    def issue(self, proof: UserProof, issuer: Issuer, login_id: str) -> tuple[str, int]:
        """A person's token, and how long it holds, seconds: never longer than the issuer's own."""
        now_s = self._now_s()
        lifetime_s = min(MAX_PERSON_TOKEN_S, int(proof.expires_at_s) - now_s)
        claims = {
            "sub": proof.person.user,
            "interlock_use": "user",
            "tenant": proof.person.tenant,
            "roles": list(proof.person.roles),
            LOGIN_CLAIM: login_id,
            "interlock_told_us": proof.person.told_at_us,
            "interlock_by": issuer.name,
            "interlock_iss": issuer.issuer,
        }
        return self._sign(claims, lifetime_s), lifetime_s

    def person(self, token: str, issuers: Mapping[str, Issuer]) -> Person:
        """The person of a token, while the release lets people log in at its issuer. Raises `TokenRefusedError`."""
        checked = self._verifier.check(token, use="user")
        claims = checked.claims
        issuer = issuers.get(str(claims.get("interlock_by")))
        if issuer is None or not logs_in(issuer, self._environment) or issuer.issuer != claims.get("interlock_iss"):
            raise TokenRefusedError(TokenCode.ISSUER, "people do not log in there any more", checked.issuer)
        tenant, roles, told_at_us = claims.get("tenant"), claims.get("roles"), claims.get("interlock_told_us")
        if (
            not isinstance(tenant, str)
            or not tenant
            or not isinstance(roles, list)
            or not all(isinstance(role, str) for role in roles)
            or len(roles) > MAX_ROLES
            or not isinstance(told_at_us, int)
            or self.login_of(token) == ""
        ):
            raise TokenRefusedError(TokenCode.CLAIMS, "tenant, roles or the login are missing", checked.issuer)
        return Person(user=checked.subject, tenant=tenant, roles=tuple(sorted(set(roles))), told_at_us=told_at_us)

    def login_of(self, token: str) -> str:
        """The login that a token of ours comes from; empty for what is no such token. Raises `TokenRefusedError`."""
        if claimed_issuer(token) != OURS:
            return ""
        return str(self._verifier.check(token, use="user").claims.get(LOGIN_CLAIM) or "")

    def begin(self, attempt: Attempt) -> str:
        """What the browser holds while its person is at the issuer."""
        claims = {
            "sub": attempt.issuer,
            "interlock_use": "attempt",
            "interlock_iss": attempt.iss,
            "state": attempt.state,
            "redirect_uri": attempt.redirect_uri,
            "next": attempt.next_path,
        }
        return self._sign(claims, ATTEMPT_S)

    def attempt(self, token: str) -> Attempt:
        """The login that a browser began. Raises `TokenRefusedError`."""
        checked: Checked = self._verifier.check(token, use="attempt")
        claims = checked.claims
        return Attempt(
            issuer=checked.subject,
            iss=str(claims.get("interlock_iss")),
            state=str(claims.get("state")),
            redirect_uri=str(claims.get("redirect_uri")),
            next_path=str(claims.get("next")),
            expires_at_s=checked.expires_at_s,
        )

    def _now_s(self) -> int:
        return self._clock.wall_us() // 1_000_000

    def _sign(self, claims: dict[str, Any], lifetime_s: int) -> str:
        now_s = self._now_s()
        times = {"iat": now_s, "exp": now_s + lifetime_s, "jti": self._ids.new("jti")}
        said = {"iss": OURS, "aud": f"interlock:{self._environment}", **times, **claims}
        return sign(said, self._keys.signing(KEY))


def logs_in(issuer: Issuer, environment: str) -> bool:
    """Whether people log in to the page at an issuer, in an environment."""
    return issuer.login is not None and issuer.people is not None and environment in issuer.environments
