"""The built-in issuer for development: agents and users of a `directory.yaml`, short-lived tokens. Not for production."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from interlock.core.ports import Clock, Ids
from interlock.core.who import AttributeValue
from interlock.identity.errors import DirectoryError
from interlock.identity.keys import KeyRing
from interlock.identity.tokens import sign

ISSUER: Final = "interlock-dev"
TOKEN_LIFETIME_S: Final = 300
LOGIN_CODE_LIFETIME_S: Final = 120
LOGIN_CLAIM: Final = "interlock_login"
FORM_CLAIM: Final = "interlock_form"
KEY: Final = "issuer"


class DirectoryUser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person of the development directory."""

    tenant: str
    roles: tuple[str, ...] = ()
    attributes: dict[str, AttributeValue] = {}


class DirectoryAgent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent of the development directory: its subject, by environment."""

    subjects: dict[str, str]


class Directory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The development directory: who exists, and what the issuer says of them."""

    users: dict[str, DirectoryUser] = {}
    agents: dict[str, DirectoryAgent] = {}


def load_directory(path: Path) -> Directory:
    """Read and check a `directory.yaml`. Raises `DirectoryError` naming file and place."""
    try:
        data = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        return msgspec.convert(data, Directory)
    except OSError as error:
        raise DirectoryError(f"{path} cannot be read: {error.strerror}; give --directory FILE") from error
    except (YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise DirectoryError(f"{path}: {error}") from error


class DevIssuer:
    """Signs what the directory says. Whoever holds the key folder can be anyone: that is what development means here."""

    def __init__(self, *, directory: Directory, keys: KeyRing, environment: str, clock: Clock, ids: Ids) -> None:
        self._directory = directory
        self._keys = keys
        self._environment = environment
        self._clock = clock
        self._ids = ids

    def agent_token(self, name: str) -> str:
        """A token by which an agent proves who it is. Raises `DirectoryError` for one the directory does not know here."""
        agent = self._directory.agents.get(name)
        subject = None if agent is None else agent.subjects.get(self._environment)
        if subject is None:
            known = ", ".join(sorted(self._directory.agents)) or "none"
            raise DirectoryError(f"the directory has no agent {name!r} in {self._environment}; it knows: {known}")
        return self._sign(subject, "agent", {})

    def user_token(self, name: str, *, login_id: str = "", form: str = "") -> str:
        """A token by which a person proves who they are. Raises `DirectoryError` for one the directory does not know.

        `login_id` names the login that it comes from and ends with; `form` is what the page's forms of that login carry.
        """
        user = self._user(name)
        said: dict[str, object] = {"tenant": user.tenant, "roles": list(user.roles), "attributes": dict(user.attributes)}
        if login_id:
            said |= {LOGIN_CLAIM: login_id, FORM_CLAIM: form}
        return self._sign(name, "user", said)

    def login_code(self, name: str) -> str:
        """A code that logs a person in once, within two minutes. Raises `DirectoryError` as `user_token`."""
        return self._sign(name, "login", {"tenant": self._user(name).tenant}, LOGIN_CODE_LIFETIME_S)

    def _user(self, name: str) -> DirectoryUser:
        user = self._directory.users.get(name)
        if user is None:
            known = ", ".join(sorted(self._directory.users)) or "none"
            raise DirectoryError(f"the directory has no user {name!r}; it knows: {known}")
        return user

    def _sign(self, subject: str, use: str, more: dict[str, object], lifetime_s: int = TOKEN_LIFETIME_S) -> str:
        now_s = self._clock.wall_us() // 1_000_000
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": f"interlock:{self._environment}",
            "iat": now_s,
            "exp": now_s + lifetime_s,
            "jti": self._ids.new("jti"),
            "interlock_use": use,
        }
        return sign({**claims, **more}, self._keys.signing(KEY))
