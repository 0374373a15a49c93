"""Logins as rows: clients, what people agreed to, and the logins that came of it. Digests only, no secret is stored."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from interlock.core.event import EventDraft
from interlock.store.database import Database


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A program that logs people in. `agent` is the one it is bound to, empty while it is bound to none."""

    client_id: str
    name: str
    redirect_uris: tuple[str, ...] = ()
    agent: str = ""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a person agreed to: that a client logs in as themselves, or (`agent`, `task`) acts as an agent for them."""

    login_id: str
    client_id: str
    tenant: str
    user: str
    agent: str = ""
    task: str = ""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A login that goes on, until `expires_at_us` at the latest; `session_id` is the session it holds, if any."""

    grant: Grant
    session_id: str
    expires_at_us: int
    live: bool = True


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """What became of fetching a code.

    `answer` is `approved` (then there is a grant), `waiting`, `denied`, `too_soon`, `expired`, `replayed` or `unknown`; the
    rest is what an authorization code is bound to.
    """

    answer: str
    grant: Grant | None = None
    redirect_uri: str = ""
    challenge: str = ""
    resource: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What waits under a user code: which client asked, under which words of its own, from where, and when."""

    client_id: str
    asked_as: str
    asked_from: str
    asked_at_us: int


class Logins:
    """Reads and writes logins of one environment. Every method raises `StoreUnavailableError`."""

    def __init__(self, database: Database, environment: str) -> None:
        self._database = database
        self._environment = environment

    async def register(self, client: Client, *, most_a_minute: int, most: int) -> bool:
        """Register a client; False when too many came lately or are registered."""
        uris = list(client.redirect_uris)
        arguments = (client.client_id, self._environment, client.name, uris, most_a_minute, most)
        return await self._database.row("register_client", *arguments) is not None

    async def client(self, client_id: str) -> Client | None:
        """A registered client."""
        row = await self._database.row("oauth_client", client_id, self._environment)
        if row is None:
            return None
        return Client(
            client_id=row["client_id"], name=row["name"], redirect_uris=tuple(row["redirect_uris"]), agent=row["agent"]
        )

    async def bind(self, client_id: str, agent: str) -> bool:
        """Bind a client to an agent for good; False when it is bound to another."""
        return await self._database.row("bind_client", client_id, self._environment, agent) is not None

    async def save_code(
        self, digest: bytes, grant: Grant, *, redirect_uri: str, challenge: str, resource: str, lifetime_s: int
    ) -> None:
        """Keep what a person agreed to until the client fetches it."""
        who = (grant.login_id, self._environment, grant.client_id, grant.tenant, grant.user, grant.agent, grant.task)
        await self._database.rows("save_code", digest, *who, redirect_uri, challenge, resource, float(lifetime_s))

    async def ask(
        self,
        digest: bytes,
        user_digest: bytes,
        *,
        login_id: str,
        client_id: str,
        asked_as: str,
        asked_from: str,
        pause_s: int,
        lifetime_s: int,
        most_open: int,
    ) -> bool:
        """Keep a device's question; False when the user code is taken or too many questions are open."""
        arguments = (digest, login_id, self._environment, client_id, user_digest, asked_as, asked_from, pause_s)
        return await self._database.row("ask_device", *arguments, float(lifetime_s), most_open) is not None

    async def asked(self, user_digest: bytes) -> Asked | None:
        """What waits under a user code."""
        row = await self._database.row("find_device", user_digest, self._environment)
        return None if row is None else Asked(**dict(row))

    async def answer(
        self, user_digest: bytes, *, approve: bool, tenant: str, user: str, agent: str = "", task: str = ""
    ) -> bool:
        """Answer a device's question; False when it is not open any more. Of several answers the first one counts."""
        arguments = (user_digest, self._environment, approve, tenant, user, agent, task)
        return await self._database.row("answer_device", *arguments) is not None

    async def fetch(self, digest: bytes, *, kind: str, client_id: str, if_replayed: Callable[[str], EventDraft]) -> Fetched:
        """Fetch a code (`code` or `device`). A second fetch ends the login that came of the first, with the event given."""
        known = await self._database.row("login_of_code", digest, self._environment)
        if known is None:
            return Fetched(answer="unknown")
        event = _columns(if_replayed(known["login_id"]))
        row = await self._database.row("fetch_code", digest, kind, self._environment, client_id, *event)
        if row is None or row["answer"] != "approved":
            return Fetched(answer="unknown" if row is None else row["answer"])
        grant = Grant(
            login_id=row["login_id"],
            client_id=client_id,
            tenant=row["tenant"],
            user=row["user_id"],
            agent=row["agent"],
            task=row["task"],
        )
        bound = {name: row[name] for name in ("redirect_uri", "challenge", "resource")}
        return Fetched(answer="approved", grant=grant, **bound)

    async def spend(self, digest: bytes, expires_at_s: int) -> bool:
        """Use a one-time proof; False when it was used before."""
        return await self._database.row("spend_proof", digest, expires_at_s) is not None

    async def start(self, login: Login, key: bytes, event: EventDraft) -> bool:
        """Begin a login that `key` opens; False when its code was fetched a second time meanwhile."""
        grant = login.grant
        who = (grant.tenant, grant.user, grant.agent, grant.task, login.session_id)
        arguments = (grant.login_id, self._environment, grant.client_id, *who, float(login.expires_at_us), key)
        row = await self._database.row("start_login", *arguments, *_columns(event))
        return row is not None and bool(row[0])

    async def of_key(self, key: bytes) -> Login | None:
        """The login that a key was made for; `live` is False when the key is spent or the login over."""
        row = await self._database.row("login_of_key", key, self._environment)
        if row is None:
            return None
        grant = Grant(
            login_id=row["login_id"],
            client_id=row["client_id"],
            tenant=row["tenant"],
            user=row["user_id"],
            agent=row["agent"],
            task=row["task"],
        )
        return Login(grant=grant, session_id=row["session_id"], expires_at_us=row["expires_at_us"], live=row["live"])

    async def is_live(self, login_id: str) -> bool:
        """Whether a login goes on."""
        return await self._database.row("login_is_live", login_id, self._environment) is not None

    async def rotate(self, old: bytes, new: bytes, *, client_id: str, if_replayed: EventDraft) -> str:
        """Change a key for the next: `rotated`, `ended`, `unknown`, or `replayed`, which has ended the login."""
        row = await self._database.row("rotate_login", old, new, self._environment, client_id, *_columns(if_replayed))
        return "unknown" if row is None else str(row[0])

    async def end(self, login_id: str, because: str, event: EventDraft) -> bool:
        """End a login and the session it holds; False when it had ended before."""
        row = await self._database.row("end_login", login_id, because, *_columns(event))
        return row is not None and bool(row[0])

    async def typed_codes(self, tenant: str, user: str, within_s: int) -> int:
        """Note that a person types a user code; gives how many they have typed lately, this one included."""
        # Noted before it is counted, so that no number of guesses at once gets past the count.
        await self._database.rows("note_typed_code", self._environment, tenant, user)
        row = await self._database.row("typed_codes", self._environment, tenant, user, float(within_s))
        # INVARIANT: no answer counts as too many.
        return 2**31 if row is None else int(row[0])

    async def forget(self) -> None:
        """Forget what is over."""
        await self._database.rows("forget_logins")


def _columns(event: EventDraft) -> tuple[str, str, bytes, bytes]:
    return event.kind, event.body, event.salt, event.commitment
