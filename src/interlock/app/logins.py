"""The built-in issuer's desk, for development: who may log in with which client, and what they get for it.

It gives out two things. A person's own token, for the page and the command line; and session tokens for clients that act as an
agent for a person, by the same exchange as every other session: the same checks, the same lineage. Both are renewed while the
login goes on, with what the directory says at that moment.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from interlock.app.administration import AdminGate
from interlock.core.event import EventDraft
from interlock.core.ports import Clock, Ids
from interlock.core.who import Person
from interlock.identity.dev_issuer import (
    ISSUER,
    LOGIN_CLAIM,
    LOGIN_CODE_LIFETIME_S,
    TOKEN_LIFETIME_S,
    DevIssuer,
    Directory,
)
from interlock.identity.errors import DirectoryError, ExchangeRefusedError, TokenCode, TokenRefusedError
from interlock.identity.exchange import GRANT_TYPE, SESSION_TOKEN_LIFETIME_S, ExchangeRequest, TokenExchange
from interlock.identity.keys import KeyRing
from interlock.identity.login import codes
from interlock.identity.login.directory import DirectoryFile
from interlock.identity.login.redirects import MAX_REDIRECTS, is_registered, may_register
from interlock.identity.tokens import Verifier
from interlock.ledger.drafts import draft
from interlock.ledger.events import LoginEnded, LoginStarted
from interlock.release.model import Release
from interlock.store.logins import Asked, Client, Grant, Login, Logins
from interlock.store.sessions import Sessions

_log = logging.getLogger(__name__)
KEY: Final = "login"
CLI: Final = "interlock-cli"
PAGE: Final = "interlock-page"
PERSON_LOGIN_LIFETIME_S: Final = 12 * 3_600
MAX_NAME_CHARS: Final = 100
BUILT_IN: Final = {
    CLI: Client(client_id=CLI, name="the interlock command line"),
    PAGE: Client(client_id=PAGE, name="the page of this server"),
}
GRANTS: Final = {
    "authorization_code": "code",
    "urn:ietf:params:oauth:grant-type:device_code": "device",
    "refresh_token": "refresh",
    "urn:ietf:params:oauth:grant-type:jwt-bearer": "proof",
}


class LoginRefusedError(Exception):
    """A person cannot go on here; the message is for them. Nobody is sent anywhere."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What a person may let a client be: an agent on a task that their roles open."""

    agent: str
    task: str
    purpose: str


class Issued(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A token answer (RFC 6749, 5.1)."""

    access_token: str
    expires_in: int
    token_type: str = msgspec.field(default_factory=lambda: "Bearer")
    refresh_token: str = ""
    session_id: str = ""


class DeviceAsked(msgspec.Struct, frozen=True, kw_only=True):
    """What a device gets to go on with (RFC 8628, 3.2), without addresses."""

    device_code: str
    user_code: str
    expires_in: int = codes.DEVICE_CODE_LIFETIME_S
    interval: int = codes.DEVICE_PAUSE_S


class LoginDesk:
    """Logs people in who stand in the directory, and clients that they let act for them. For one environment."""

    def __init__(
        self,
        *,
        store: Logins,
        sessions: Sessions,
        directory: DirectoryFile,
        keys: KeyRing,
        proofs: Verifier,
        exchange: TokenExchange,
        admin: AdminGate,
        environment: str,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._directory = directory
        self._keys = keys
        self._proofs = proofs
        self._exchange = exchange
        self._admin = admin
        self._environment = environment
        self._clock = clock
        self._ids = ids
        self._sealer = codes.Sealer(keys.private_bytes(KEY)[1], ids)

    # Clients

    async def register(self, name: str, redirect_uris: tuple[str, ...]) -> Client:
        """Register a client (RFC 7591): public, for what `redirect_uris` say. Raises `ExchangeRefusedError`."""
        if not 0 < len(redirect_uris) <= MAX_REDIRECTS or not all(may_register(uri) for uri in redirect_uris):
            raise ExchangeRefusedError(
                "invalid_redirect_uri",
                f"give 1 to {MAX_REDIRECTS} redirect_uris: https, http to this machine, or a scheme of your own",
            )
        plain = "".join(sign for sign in name if sign.isprintable())[:MAX_NAME_CHARS].strip()
        client = Client(client_id=self._ids.new("cli"), name=plain or "a client without a name", redirect_uris=redirect_uris)
        if not await self._store.register(client, most_a_minute=codes.MAX_CLIENTS_A_MINUTE, most=codes.MAX_CLIENTS):
            raise ExchangeRefusedError("temporarily_unavailable", "too many clients register; try again in a minute")
        return client

    async def client(self, client_id: str) -> Client | None:
        """A registered client, or one of our own."""
        return BUILT_IN.get(client_id) or await self._store.client(client_id)

    async def client_to_return_to(self, client_id: str, redirect_uri: str) -> Client:
        """The client that an authorization request names. Raises `LoginRefusedError`: then nobody may be sent anywhere."""
        client = await self._store.client(client_id)
        if client is None:
            raise LoginRefusedError("this client is not registered here; let it register again")
        if not is_registered(redirect_uri, client.redirect_uris):
            raise LoginRefusedError("this client asks to be answered at an address that it has not registered")
        return client

    # Consent

    async def person(self, token: str) -> Person:
        """The person of the directory who looks. Raises `LoginRefusedError` for people of elsewhere."""
        try:
            checked = self._proofs.check(token, use="user")
        except TokenRefusedError as error:
            raise LoginRefusedError("the built-in issuer logs in people of its own directory only") from error
        user = self._people().users.get(checked.subject)
        if user is None or user.tenant != checked.claims.get("tenant"):
            raise LoginRefusedError("the directory does not know you any more")
        return Person(user=checked.subject, tenant=user.tenant, roles=tuple(sorted(set(user.roles))))

    async def choices(self, person: Person, client: Client) -> tuple[Choice, ...]:
        """What this person may let this client be; only the agent it is bound to, once it is bound."""
        release = await self._admin.release()
        known = {name for name in self._agents(release) if client.agent in ("", name)}
        return tuple(
            Choice(agent=agent, task=task.name, purpose=task.purpose)
            for task in release.tasks.values()
            if set(task.open_to) & set(person.roles)
            for agent in task.agents
            if agent in known
        )

    async def consent(
        self, person: Person, client: Client, choice: Choice, *, redirect_uri: str, challenge: str, resource: str
    ) -> str:
        """The person lets the client be an agent on a task: an authorization code. Raises `LoginRefusedError`."""
        grant = await self._granted(person, client, choice)
        code = self._sealer.secret()
        await self._store.save_code(
            self._sealer.digest("code", code),
            grant,
            redirect_uri=redirect_uri,
            challenge=challenge,
            resource=resource,
            lifetime_s=codes.CODE_LIFETIME_S,
        )
        return code

    async def ask_device(self, client_id: str, asked_as: str, asked_from: str) -> DeviceAsked:
        """A device asks to be let in (RFC 8628). Raises `ExchangeRefusedError`."""
        client = await self.client(client_id)
        if client is None or client_id == PAGE:
            raise ExchangeRefusedError("invalid_client", "this client is not registered here")
        device_code, user_code = self._sealer.secret(), self._sealer.user_code()
        saved = await self._store.ask(
            self._sealer.digest("device", device_code),
            self._sealer.digest("user", user_code),
            login_id=self._ids.new("lgn"),
            client_id=client_id,
            asked_as="".join(sign for sign in asked_as if sign.isprintable())[:MAX_NAME_CHARS].strip(),
            asked_from=asked_from[:MAX_NAME_CHARS],
            pause_s=codes.DEVICE_PAUSE_S,
            lifetime_s=codes.DEVICE_CODE_LIFETIME_S,
            most_open=codes.MAX_OPEN_DEVICES,
        )
        if not saved:
            raise ExchangeRefusedError("temporarily_unavailable", "too many devices wait to be let in; try again in a minute")
        return DeviceAsked(device_code=device_code, user_code=codes.shown_code(user_code))

    async def asked(self, person: Person, typed: str) -> tuple[Asked, Client] | None:
        """What waits under a user code that a person typed; None when nothing does. Raises `LoginRefusedError` after many."""
        count = await self._store.typed_codes(person.tenant, person.user, codes.TYPED_WITHIN_S)
        if count > codes.MAX_TYPED_CODES:
            raise LoginRefusedError(f"too many codes were typed; try again in {codes.TYPED_WITHIN_S // 60} minutes")
        code = codes.typed_code(typed)
        asked = await self._store.asked(self._sealer.digest("user", code)) if code else None
        client = None if asked is None else await self.client(asked.client_id)
        return None if asked is None or client is None else (asked, client)

    async def answer_device(self, person: Person, typed: str, client: Client, choice: Choice | None, *, approve: bool) -> bool:
        """Let a device in, or not; False when it does not wait any more. Raises `LoginRefusedError`."""
        user_digest = self._sealer.digest("user", codes.typed_code(typed))
        who = {"tenant": person.tenant, "user": person.user}
        if not approve:
            return await self._store.answer(user_digest, approve=False, **who)
        if client.client_id in BUILT_IN:
            return await self._store.answer(user_digest, approve=True, **who)
        if choice is None:
            raise LoginRefusedError("choose what the client may be")
        grant = await self._granted(person, client, choice)
        return await self._store.answer(user_digest, approve=True, **who, agent=grant.agent, task=grant.task)

    async def _granted(self, person: Person, client: Client, choice: Choice) -> Grant:
        if choice not in await self.choices(person, client):
            raise LoginRefusedError("you may not let this client be that")
        if not await self._store.bind(client.client_id, choice.agent):
            raise LoginRefusedError("this client is another agent already; let it register again")
        return Grant(
            login_id=self._ids.new("lgn"),
            client_id=client.client_id,
            tenant=person.tenant,
            user=person.user,
            agent=choice.agent,
            task=choice.task,
        )

    # Tokens

    async def token(self, form: dict[str, str], resource: str) -> Issued:
        """Answer a token request. `resource` is what tokens of this server are for. Raises `ExchangeRefusedError`."""
        match GRANTS.get(form.get("grant_type", "")):
            case "code":
                return await self._by_code(form, resource)
            case "device":
                return await self._by_device(form)
            case "refresh":
                return await self._by_refresh(form, resource)
            case "proof":
                if form.get("client_id", CLI) != CLI:
                    raise ExchangeRefusedError("unauthorized_client", "only the command line logs in by a proof")
                return await self.by_proof(form.get("assertion", ""), CLI)
            case _:
                raise ExchangeRefusedError("unsupported_grant_type", "this grant type is not offered here")

    async def by_proof(self, code: str, client_id: str) -> Issued:
        """Log a person in by a login code of the built-in issuer. Raises `ExchangeRefusedError`, `TokenRefusedError`."""
        checked = self._proofs.check(code, use="login")
        if checked.expires_at_s - checked.claims["iat"] > LOGIN_CODE_LIFETIME_S or not checked.claims.get("jti"):
            raise TokenRefusedError(TokenCode.LIFETIME, "a login code that is valid for too long", checked.issuer)
        user = self._people().users.get(checked.subject)
        if user is None or user.tenant != checked.claims.get("tenant"):
            raise TokenRefusedError(TokenCode.CLAIMS, "nobody of the directory", checked.issuer)
        # By its signed name, not by its text: a signature's last letter can be written in several ways.
        if not await self._store.spend(self._sealer.digest("proof", str(checked.claims["jti"])), checked.expires_at_s):
            raise ExchangeRefusedError("invalid_grant", "this login code was used before", counted_as="login_code_reused")
        grant = Grant(login_id=self._ids.new("lgn"), client_id=client_id, tenant=user.tenant, user=checked.subject)
        return await self._started(grant, "login code")

    async def _by_code(self, form: dict[str, str], resource: str) -> Issued:
        fetched = await self._store.fetch(
            self._sealer.digest("code", form.get("code", "")),
            kind="code",
            client_id=form.get("client_id", ""),
            if_replayed=lambda login_id: self._ended(login_id, "its code was used twice"),
        )
        grant = fetched.grant
        if (
            grant is None
            or form.get("redirect_uri", "") != fetched.redirect_uri
            or not codes.verifies(form.get("code_verifier", ""), fetched.challenge)
            or form.get("resource", resource).rstrip("/") not in (resource, resource.removesuffix("/mcp"))
        ):
            # One answer for all: which part was wrong is nothing that a thief should learn. The code is spent.
            counted = "code_replayed" if fetched.answer == "replayed" else "code_refused"
            raise ExchangeRefusedError("invalid_grant", "the code is refused", counted_as=counted)
        return await self._started(grant, "authorization code")

    async def _by_device(self, form: dict[str, str]) -> Issued:
        fetched = await self._store.fetch(
            self._sealer.digest("device", form.get("device_code", "")),
            kind="device",
            client_id=form.get("client_id", ""),
            if_replayed=lambda login_id: self._ended(login_id, "its device code was used twice"),
        )
        match fetched.answer:
            case "waiting":
                raise ExchangeRefusedError("authorization_pending", "nobody has answered yet")
            case "too_soon":
                raise ExchangeRefusedError("slow_down", "ask less often: five seconds more between two requests")
            case "denied":
                raise ExchangeRefusedError("access_denied", "a person said no")
            case "expired":
                raise ExchangeRefusedError("expired_token", "nobody answered in time; begin again")
        if fetched.grant is None:
            raise ExchangeRefusedError("invalid_grant", "the device code is refused", counted_as=f"device_{fetched.answer}")
        return await self._started(fetched.grant, "device code")

    async def _by_refresh(self, form: dict[str, str], resource: str) -> Issued:
        if form.get("resource", resource).rstrip("/") not in (resource, resource.removesuffix("/mcp")):
            raise ExchangeRefusedError("invalid_target", "tokens of this server are for its own MCP endpoint")
        client_id, old = form.get("client_id", ""), self._sealer.digest("refresh", form.get("refresh_token", ""))
        login = await self._store.of_key(old)
        if login is None:
            raise ExchangeRefusedError("invalid_grant", "the refresh token is refused", counted_as="refresh_refused")
        # What it opens is made first: if that fails for a reason that passes, the client may come again with the same one.
        issued = await self._made(login) if login.live and login.grant.client_id == client_id else None
        new = self._sealer.secret()
        ended = self._ended(login.grant.login_id, "a refresh token was used twice, or by another client")
        said = await self._store.rotate(old, self._sealer.digest("refresh", new), client_id=client_id, if_replayed=ended)
        if said != "rotated" or issued is None:
            raise ExchangeRefusedError("invalid_grant", "the refresh token is refused", counted_as=f"refresh_{said}")
        return msgspec.structs.replace(issued, refresh_token=new)

    async def _started(self, grant: Grant, how: str) -> Issued:
        until_us = self._clock.wall_us() + PERSON_LOGIN_LIFETIME_S * 1_000_000
        login = Login(grant=grant, session_id="", expires_at_us=until_us)
        issued = await self._made(login)
        if issued.session_id:
            session = await self._sessions.get(issued.session_id)
            if session is None:
                raise ExchangeRefusedError("invalid_grant", "the session has ended")
            login = Login(grant=grant, session_id=session.session_id, expires_at_us=session.expires_at_us)
        client = await self.client(grant.client_id)
        event = LoginStarted(
            login_id=grant.login_id,
            client_id=grant.client_id,
            client="" if client is None else client.name,
            how=how,
            tenant=grant.tenant,
            user=grant.user,
            environment=self._environment,
            expires_at_us=login.expires_at_us,
            agent=grant.agent,
            task=grant.task,
            session_id=login.session_id,
        )
        key = self._sealer.secret()
        if not await self._store.start(login, self._sealer.digest("refresh", key), draft(event, ids=self._ids)):
            if login.session_id:
                await self._sessions.revoke(login.session_id)
            raise ExchangeRefusedError("invalid_grant", "the code is refused", counted_as="code_replayed")
        return msgspec.structs.replace(issued, refresh_token=key)

    async def _made(self, login: Login) -> Issued:
        """The token that a login gives at this moment. Raises `ExchangeRefusedError`."""
        grant = login.grant
        issuer = self._issuer()
        user = self._people().users.get(grant.user)
        if user is None or user.tenant != grant.tenant:
            await self._store.end(grant.login_id, "nobody of the directory any more", self._ended(grant.login_id, "not listed"))
            raise ExchangeRefusedError("invalid_grant", "the directory does not know this person any more")
        if not grant.agent:
            form = self._sealer.digest("form", grant.login_id).hex()
            token = issuer.user_token(grant.user, login_id=grant.login_id, form=form)
            return Issued(access_token=token, expires_in=TOKEN_LIFETIME_S)
        release = await self._admin.release()
        agent = self._agents(release).get(grant.agent)
        if agent is None:
            raise ExchangeRefusedError("invalid_grant", "the agent is not known here any more")
        request = ExchangeRequest(
            grant_type=GRANT_TYPE,
            subject_token=issuer.user_token(grant.user),
            actor_token=issuer.agent_token(agent),
            task=grant.task,
            session_id=login.session_id,
        )
        answer = await self._exchange.exchange(request, release)
        left_s = (login.expires_at_us - self._clock.wall_us()) // 1_000_000
        lifetime_s = min(SESSION_TOKEN_LIFETIME_S, max(0, left_s))
        return Issued(access_token=answer.access_token, expires_in=lifetime_s, session_id=answer.session_id)

    # A login that goes on

    async def browser(self, key: str) -> tuple[str, int] | None:
        """A person's token for the browser that holds this key, and how long its login goes on, seconds; None: it is over."""
        login = await self._store.of_key(self._sealer.digest("refresh", key))
        if login is None or not login.live or login.grant.client_id != PAGE:
            return None
        try:
            issued = await self._made(login)
        except ExchangeRefusedError:
            return None
        return issued.access_token, max(0, (login.expires_at_us - self._clock.wall_us()) // 1_000_000)

    async def end(self, key: str) -> None:
        """End the login that a refresh token or a browser's key is of, if it is of any (RFC 7009)."""
        login = await self._store.of_key(self._sealer.digest("refresh", key))
        if login is not None:
            login_id = login.grant.login_id
            await self._store.end(login_id, "logged out", self._ended(login_id, "logged out"))

    async def refuse_ended(self, token: str) -> None:
        """Raises `TokenRefusedError` for a token of a login that has ended.

        This is one condition more, and no check of the token: what is none of ours passes, and must be checked by the caller.
        """
        try:
            checked = self._proofs.check(token, use="user")
        except TokenRefusedError:
            return
        login_id = checked.claims.get(LOGIN_CLAIM)
        if login_id is not None and not await self._store.is_live(str(login_id)):
            raise TokenRefusedError(TokenCode.EXPIRED, "its login has ended", checked.issuer)

    async def forget(self) -> None:
        """Forget what is over."""
        await self._store.forget()

    def _people(self) -> Directory:
        try:
            return self._directory.now()
        except DirectoryError as error:
            # The message says it all.
            _log.error("nobody can log in: %s", error, extra={"event": "login.impossible"})
            raise ExchangeRefusedError(
                "temporarily_unavailable", "the directory of people cannot be read; nobody logs in until it can"
            ) from error

    def _issuer(self) -> DevIssuer:
        return DevIssuer(
            directory=self._people(), keys=self._keys, environment=self._environment, clock=self._clock, ids=self._ids
        )

    def _agents(self, release: Release) -> dict[str, str]:
        """Agents of the release that the built-in issuer vouches for here, with their names in the directory."""
        named = {agent.subjects.get(self._environment): name for name, agent in self._people().agents.items()}
        return {
            identity.agent: named[identity.subject]
            for identity in release.identities
            if identity.issuer == ISSUER and identity.environment == self._environment and identity.subject in named
        }

    def _ended(self, login_id: str, because: str) -> EventDraft:
        return draft(LoginEnded(login_id=login_id, because=because), ids=self._ids)
