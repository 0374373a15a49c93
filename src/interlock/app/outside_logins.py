"""People log in to the page at an issuer elsewhere: by authorization code, and nothing that the issuer gave is kept.

What the browser gets is a token of ours with what the issuer said a moment ago, for an hour at most; then it goes through the
issuer again. So a role that was lost there is noticed within the hour, and there is no refresh token to be stolen.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Mapping
from typing import Final

import msgspec

from interlock.app.administration import AdminGate
from interlock.app.logins import KEY, PAGE, LoginRefusedError
from interlock.core.ports import Clock, Ids
from interlock.identity.errors import IssuerUnreachableError, TokenCode, TokenRefusedError
from interlock.identity.keys import KeyRing
from interlock.identity.login.codes import Sealer
from interlock.identity.login.provider import MAX_CODE_CHARS, Metadata, Providers, authorize_url
from interlock.identity.outside import Outside, Vouched, discovery_of
from interlock.identity.persons import Attempt, PersonTokens, logs_in
from interlock.identity.proofs import refuse_agents_client
from interlock.identity.reading import UserProof, logged_in_of, user_of
from interlock.identity.refusals import RefusalCounter
from interlock.ledger.drafts import draft
from interlock.ledger.events import LoginEnded, LoginStarted
from interlock.release.issuers import Issuer, LoginRule
from interlock.release.model import Release
from interlock.store.logins import Grant, Login, Logins

_log = logging.getLogger(__name__)
MAX_STATE_CHARS: Final = 200
_AGAIN: Final = "begin again"


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A login that begins: where the browser goes, and what it holds meanwhile, under a name of this very login."""

    url: str
    mark: str
    cookie: str


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A person who is logged in: their token, how long it holds, seconds, and where they were going."""

    token: str
    lifetime_s: int
    next_path: str


class LoginOffer(msgspec.Struct, frozen=True, kw_only=True):
    """What a program of a person needs to know to log them in at an issuer. No secret, and nothing that is not public there."""

    name: str
    title: str
    issuer: str
    discovery: str
    client_id: str
    scopes: tuple[str, ...]
    resource: str = ""


class OutsideLogins:
    """Logs people in at the issuers of the release in force that say `login`. For one environment."""

    def __init__(
        self,
        *,
        store: Logins,
        outside: Outside,
        tokens: PersonTokens,
        keys: KeyRing,
        admin: AdminGate,
        refusals: RefusalCounter,
        environment: str,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._outside = outside
        self._tokens = tokens
        self._admin = admin
        self._refusals = refusals
        self._environment = environment
        self._clock = clock
        self._ids = ids
        self._providers = Providers(clock)
        self._sealer = Sealer(keys.private_bytes(KEY)[1], ids)

    async def offered(self) -> tuple[Issuer, ...]:
        """The issuers that people log in at, by the release in force. Raises `StoreError` or `ReleaseError` without one."""
        release = await self._admin.release()
        return tuple(issuer for issuer in release.issuers.values() if logs_in(issuer, self._environment))

    async def offers(self) -> tuple[LoginOffer, ...]:
        """What the command line needs to know to log people in. Raises as `offered`."""
        found = []
        for issuer in await self.offered():
            cli = issuer.login.cli if issuer.login is not None else None
            if cli is None or issuer.login is None:
                continue
            iss, discovery = discovery_of(issuer)
            offer = LoginOffer(
                name=issuer.name,
                title=issuer.login.title or issuer.name,
                issuer=iss,
                discovery=discovery,
                client_id=cli.client_id,
                scopes=cli.scopes,
                resource=issuer.environments[self._environment][0] if cli.resource else "",
            )
            found.append(offer)
        return tuple(found)

    async def begin(self, name: str, redirect_uri: str, next_path: str) -> Begun:
        """Begin a login. `redirect_uri` is where the issuer sends the browser back to. Raises `LoginRefusedError`."""
        issuer, login, _ = await self._issuer(name)
        try:
            metadata = await self._providers.metadata(issuer)
        except IssuerUnreachableError as error:
            raise self._unreachable(issuer, error) from error
        state = self._sealer.secret()
        attempt = Attempt(issuer=name, iss=issuer.issuer, state=state, redirect_uri=redirect_uri, next_path=next_path)
        challenge = _base64(hashlib.sha256(self._derived("verifier", state).encode()).digest())
        url = authorize_url(
            metadata,
            login,
            state=state,
            nonce=self._derived("nonce", state),
            challenge=challenge,
            redirect_uri=redirect_uri,
        )
        return Begun(url=url, mark=mark_of(state), cookie=self._tokens.begin(attempt))

    async def finish(self, name: str, redirect_uri: str, answer: Mapping[str, str], cookie: str) -> Finished:
        """End a login with what the issuer sent back, in the browser that began it. Raises `LoginRefusedError`."""
        try:
            return await self._finished(name, redirect_uri, answer, cookie)
        except TokenRefusedError as error:
            self._refusals.add(error.code.value, error.issuer)
            _log.warning(
                "a login at %s is refused: %s",
                name,
                error,
                extra={"event": "login.refused", "issuer": name, "code": error.code.value},
            )
            raise LoginRefusedError(f"what {name} says of you is refused ({error.code.value})") from error

    async def refuse_ended(self, token: str) -> None:
        """Raises `TokenRefusedError` for a token of a login here that has ended; others pass, and are not checked."""
        login_id = self._tokens.login_of(token)
        if login_id and not await self._store.is_live(login_id):
            raise TokenRefusedError(TokenCode.EXPIRED, "its login has ended")

    async def end(self, token: str) -> None:
        """End the login that a token is of, if it is of any here."""
        try:
            login_id = self._tokens.login_of(token)
        except TokenRefusedError:
            return
        if login_id:
            body = LoginEnded(login_id=login_id, because="logged out")
            await self._store.end(login_id, "logged out", draft(body, ids=self._ids))

    async def forget(self) -> None:
        """Forget what is over."""
        await self._store.forget()

    async def _issuer(self, name: str) -> tuple[Issuer, LoginRule, Release]:
        release = await self._admin.release()
        issuer = release.issuers.get(name)
        if issuer is None or issuer.login is None or not logs_in(issuer, self._environment):
            raise LoginRefusedError("nobody logs in there; choose one of the ways below")
        return issuer, issuer.login, release

    async def _finished(self, name: str, redirect_uri: str, answer: Mapping[str, str], cookie: str) -> Finished:
        issuer, login, release = await self._issuer(name)
        state = answer.get("state", "")
        if not cookie or not 0 < len(state) <= MAX_STATE_CHARS:
            # Whoever has got hold of an answer has not got the browser that asked, and the other way round.
            raise LoginRefusedError(f"this browser did not begin this login, or too long ago; {_AGAIN}")
        try:
            attempt = self._tokens.attempt(cookie)
        except TokenRefusedError as error:
            raise LoginRefusedError(f"this login was begun too long ago; {_AGAIN}") from error
        if (
            not hmac.compare_digest(attempt.state.encode(), state.encode())
            or (attempt.issuer, attempt.iss) != (name, issuer.issuer)
            or attempt.redirect_uri != redirect_uri
        ):
            raise LoginRefusedError(f"this answer belongs to another login; {_AGAIN}")
        # INVARIANT: spent before anything else is looked at, so that of an answer there is one try, in all processes.
        if not await self._store.spend(self._sealer.digest("attempt", state), attempt.expires_at_s):
            raise LoginRefusedError(f"this answer was used before; {_AGAIN}")
        try:
            metadata = await self._providers.metadata(issuer)
            proof = await self._proof(issuer, login, metadata, answer, attempt)
        except IssuerUnreachableError as error:
            raise self._unreachable(issuer, error) from error
        refuse_agents_client(proof, release)
        return await self._started(issuer, proof, attempt.next_path)

    async def _proof(
        self, issuer: Issuer, login: LoginRule, metadata: Metadata, answer: Mapping[str, str], attempt: Attempt
    ) -> UserProof:
        said = answer.get("iss")
        if said != metadata.iss if said is not None else metadata.says_iss:
            # RFC 9207: an answer of one issuer must not be taken to another, with the code in it.
            raise LoginRefusedError("the answer comes from another issuer than the one that was asked")
        code = answer.get("code", "")
        if "error" in answer or not 0 < len(code) <= MAX_CODE_CHARS:
            denied = answer.get("error") == "access_denied"
            raise LoginRefusedError(f"{issuer.name} let nobody in" if denied else f"{issuer.name} gave no answer that holds")
        tokens = await self._providers.tokens(
            issuer,
            login,
            code=code,
            verifier=self._derived("verifier", attempt.state),
            redirect_uri=attempt.redirect_uri,
        )
        vouched = await self._outside.id_token(
            tokens.id_token,
            issuer,
            nonce=self._derived("nonce", attempt.state),
            access_token=tokens.access_token,
        )
        if vouched.iss != metadata.iss:
            # Another directory of the same Entra entry: trusted for tokens, and not the one that was asked to log in.
            raise TokenRefusedError(TokenCode.FOREIGN_TENANT, "another directory than the one that logs people in", vouched.iss)
        match login.claims:
            case "id_token":
                return logged_in_of(vouched)
            case "userinfo":
                return logged_in_of(_with_userinfo(vouched, await self._providers.userinfo(issuer, tokens.access_token)))
            case "access_token":
                said_of = await self._outside.check(tokens.access_token, {issuer.name: issuer})
                user = user_of(said_of)
                if user.client != login.client_id or said_of.claims.get("sub") != vouched.claims.get("sub"):
                    raise TokenRefusedError(TokenCode.CLIENT, "the access token is another client's or person's", vouched.iss)
                ends_at_s = min(user.expires_at_s, vouched.expires_at_s)
                return msgspec.structs.replace(user, expires_at_s=ends_at_s)

    async def _started(self, issuer: Issuer, proof: UserProof, next_path: str) -> Finished:
        login_id, person = self._ids.new("lgn"), proof.person
        token, lifetime_s = self._tokens.issue(proof, issuer, login_id)
        grant = Grant(login_id=login_id, client_id=PAGE, tenant=person.tenant, user=person.user)
        expires_at_us = self._clock.wall_us() + lifetime_s * 1_000_000
        event = LoginStarted(
            login_id=login_id,
            client_id=PAGE,
            client="the page of this server",
            how=f"the issuer {issuer.name}",
            tenant=person.tenant,
            user=person.user,
            environment=self._environment,
            expires_at_us=expires_at_us,
        )
        # No key opens this login: nothing but its token belongs to it, and nothing renews it.
        nothing = self._sealer.digest("none", self._sealer.secret())
        login = Login(grant=grant, session_id="", expires_at_us=expires_at_us)
        if not await self._store.start(login, nothing, draft(event, ids=self._ids)):
            raise LoginRefusedError(_AGAIN)
        return Finished(token=token, lifetime_s=lifetime_s, next_path=next_path)

    def _derived(self, kind: str, state: str) -> str:
        """A value of this login that whoever sees its `state` cannot know: 43 characters (RFC 7636, 4.1)."""
        return _base64(self._sealer.digest(kind, state))

    def _unreachable(self, issuer: Issuer, error: IssuerUnreachableError) -> LoginRefusedError:
        # The message says it all.
        _log.error(
            "nobody can log in at %s: %s", issuer.name, error, extra={"event": "login.impossible", "issuer": issuer.name}
        )
        self._refusals.add(TokenCode.ISSUER_UNREACHABLE.value, issuer.issuer)
        return LoginRefusedError(f"{issuer.name} does not answer, or refuses the login; the server's log says why")


def mark_of(state: str) -> str:
    """What the cookie of a login is named by: sixteen signs that tell nothing of its state."""
    return hashlib.sha256(f"interlock/login/mark/1\0{state}".encode()).hexdigest()[:16]


def _with_userinfo(vouched: Vouched, said: Mapping[str, object]) -> Vouched:
    if said.get("sub") != vouched.claims.get("sub"):
        raise TokenRefusedError(TokenCode.CLAIMS, "userinfo is about somebody else", vouched.iss)
    # What the ID token says, it says with a signature: userinfo only adds to it.
    return msgspec.structs.replace(vouched, claims={**said, **vouched.claims})


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
