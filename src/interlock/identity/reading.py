"""What the claims of a checked token come to: a person, an agent, or an agent acting for a person. Pure.

Each kind of issuer says in its own way whether a token speaks for an application alone; the rest follows the release's mapping.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, assert_never

import msgspec

from interlock.core.who import Person
from interlock.identity.errors import TokenCode, TokenRefusedError
from interlock.identity.outside import Vouched
from interlock.release.issuers import AgentsRule, PeopleRule

MAX_ROLES: Final = 100
MAX_NAME_CHARS: Final = 256
_ACCESS_TOKEN: Final = frozenset({"at+jwt", "application/at+jwt"})
_PLAIN: Final = frozenset({"", "JWT", "jwt", *_ACCESS_TOKEN})
_OF_ID_TOKENS: Final = ("nonce", "at_hash", "c_hash")
# xms_sub_fct, a list of numbers: 11 is an agent identity, 13 an agent's user account.
_AGENT_SUBJECTS: Final = frozenset({"11", "13"})
_SPIFFE_PATH: Final = re.compile(r"^(/[A-Za-z0-9._-]+)+$")


class UserProof(msgspec.Struct, frozen=True, kw_only=True):
    """A person as an issuer describes them. `client` is the application that the token was issued to, where it says so."""

    person: Person
    attributes: Mapping[str, object]
    issuer: str
    expires_at_s: float
    client: str = ""


class AgentProof(msgspec.Struct, frozen=True, kw_only=True):
    """An agent as an issuer names it; agents.yaml says which agent that is."""

    issuer: str
    subject: str
    told_at_us: int
    expires_at_s: float


class Delegation(msgspec.Struct, frozen=True, kw_only=True):
    """A user and the agent that acts for them, by one token. `grant` is the issuer's own session, where it names one."""

    user: UserProof
    agent: AgentProof
    iss: str
    grant: str


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Whose token it is. `workload`: an application's own, with nobody behind it; `actor`: who acts, when the token says."""

    subject: str
    workload: bool
    client: str = ""
    actor: str = ""


def shape_of(vouched: Vouched) -> Shape:
    """Whose token it is. Raises `TokenRefusedError` for what is no access token of its kind."""
    claims = vouched.claims
    if "cnf" in claims:
        # Bound to a key that the caller would have to prove. Taken as a bearer token it would be worth less than promised.
        raise _refused(vouched, TokenCode.CLAIMS, "bound to a key (cnf), which is not supported")
    kind = vouched.issuer.kind
    match kind:
        case "oidc":
            return _oidc(vouched)
        case "entra":
            return _entra(vouched)
        case "kubernetes":
            return _kubernetes(vouched)
        case "spiffe":
            return _spiffe(vouched)
        case _:
            assert_never(kind)


def agent_of(vouched: Vouched) -> AgentProof:
    """The agent that a token proves on its own. Raises `TokenRefusedError`: a user's token never proves an agent."""
    rule = vouched.issuer.agents
    if rule is None:
        raise _refused(vouched, TokenCode.WRONG_USE, "this issuer does not vouch for agents")
    shape = shape_of(vouched)
    by_subject = rule.subject in {(), "sub"} and vouched.issuer.kind == "oidc"
    if not shape.workload and (not by_subject or shape.actor):
        # A user's token names the client that it was issued to. Whoever holds one is not therefore that client.
        raise _refused(vouched, TokenCode.WRONG_USE, "a user's token where the agent's own belongs")
    _require(vouched, rule.require)
    subject = _subject(vouched, rule, shape)
    return AgentProof(issuer=vouched.issuer.name, subject=subject, told_at_us=_told(vouched), expires_at_s=vouched.expires_at_s)


def user_of(vouched: Vouched) -> UserProof:
    """The person that a token is about. Raises `TokenRefusedError`: an application is no person."""
    rule = vouched.issuer.people
    if rule is None:
        raise _refused(vouched, TokenCode.WRONG_USE, "this issuer does not vouch for people")
    return _user_proof(vouched, rule, shape_of(vouched))


def logged_in_of(vouched: Vouched) -> UserProof:
    """The person who logged in, by what their ID token says, or the issuer with it. Raises `TokenRefusedError`.

    `vouched` must come from `Outside.id_token`: nothing but a login of our own makes an ID token mean anything here.
    """
    rule, login = vouched.issuer.people, vouched.issuer.login
    if rule is None or login is None:
        raise _refused(vouched, TokenCode.WRONG_USE, "people do not log in at this issuer")
    claims = vouched.claims
    if vouched.issuer.kind == "entra":
        if claims.get("tid") != vouched.directory or claims.get("ver") != "2.0" or not vouched.iss.endswith("/v2.0"):
            raise _refused(vouched, TokenCode.CLAIMS, "tid and ver do not belong to iss")
        if _AGENT_SUBJECTS & set(str(claims.get("xms_sub_fct", "")).split()):
            raise _refused(vouched, TokenCode.NOT_A_PERSON, "the account of an agent, not of a person")
    subject = _text(vouched, "oid" if vouched.issuer.kind == "entra" else "sub")
    alone = subject == login.client_id or "act" in claims
    return _user_proof(vouched, rule, Shape(subject=subject, workload=alone, client=login.client_id))


def _user_proof(vouched: Vouched, rule: PeopleRule, shape: Shape) -> UserProof:
    if shape.workload:
        raise _refused(vouched, TokenCode.NOT_A_PERSON, "an application's own token")
    _require(vouched, rule.require)
    person = Person(
        user=rule.prefix + _user(vouched, rule, shape),
        tenant=_tenant(vouched, rule),
        roles=_roles(vouched, rule),
        told_at_us=_told(vouched),
    )
    attributes = {name: value for name, path in rule.attributes.items() if (value := _claim(vouched, path)) is not None}
    if any(_head(path) == "groups" for path in rule.attributes.values()):
        _refuse_overage(vouched)
    return UserProof(
        person=person,
        attributes=attributes,
        issuer=vouched.issuer.name,
        expires_at_s=vouched.expires_at_s,
        client=shape.client,
    )


def delegated_of(vouched: Vouched) -> Delegation:
    """The user and the agent of a token that stands for both. Raises `TokenRefusedError`."""
    rule = vouched.issuer.agents
    if rule is None or not rule.delegated:
        raise _refused(vouched, TokenCode.WRONG_USE, "delegated tokens of this issuer are not taken (agents.delegated)")
    user, shape = user_of(vouched), shape_of(vouched)
    _require(vouched, rule.require)
    acting = shape.actor or shape.client
    if not acting:
        raise _refused(vouched, TokenCode.CLIENT, "the token does not say which client it was issued to")
    agent = AgentProof(issuer=vouched.issuer.name, subject=acting, told_at_us=_told(vouched), expires_at_s=vouched.expires_at_s)
    session = vouched.claims.get("sid")
    return Delegation(user=user, agent=agent, iss=vouched.iss, grant=session if isinstance(session, str) else "")


def speaks_for_themselves(vouched: Vouched) -> UserProof:
    """The person behind a token of their own channel. Raises `TokenRefusedError` for what any other client got."""
    user, shape, rule = user_of(vouched), shape_of(vouched), vouched.issuer.people
    if rule is None or shape.actor or user.client not in rule.clients or not user.client:
        raise _refused(
            vouched, TokenCode.CLIENT, "not issued to a client by which people speak for themselves (people.clients)"
        )
    return user


def _oidc(vouched: Vouched) -> Shape:
    claims, strict = vouched.claims, vouched.issuer.token_type == "at+jwt"  # noqa: S105  # a media type
    if vouched.kind not in (_ACCESS_TOKEN if strict else _PLAIN):
        raise _refused(vouched, TokenCode.ID_TOKEN, f"typ is {vouched.kind[:40]!r}; see token_type in issuers.yaml")
    subject = _text(vouched, "sub")
    client = _client(vouched, ("client_id", "azp", "cid"))
    marked = any(name in claims for name in _OF_ID_TOKENS) or claims.get("typ") in ("ID", "Refresh", "Offline")
    if not strict and (marked or not (client or "scope" in claims or "scp" in claims)):
        raise _refused(vouched, TokenCode.ID_TOKEN, "an ID token where an access token belongs")
    actor = claims.get("act")
    acting = ""
    if actor is not None:
        acting = str(actor.get("sub", "")) if isinstance(actor, dict) and isinstance(actor.get("sub"), str) else ""
        if not acting or actor.get("iss", vouched.iss) != vouched.iss:
            raise _refused(vouched, TokenCode.CLAIMS, "act names nobody of this issuer")
    alone = subject == client or claims.get("gty") == "client-credentials" or subject == f"{client}@clients"
    return Shape(subject=subject, workload=alone and not acting, client=client, actor=acting)


def _entra(vouched: Vouched) -> Shape:
    claims = vouched.claims
    version = claims.get("ver")
    if claims.get("tid") != vouched.directory or version != ("2.0" if vouched.iss.endswith("/v2.0") else "1.0"):
        raise _refused(vouched, TokenCode.CLAIMS, "tid and ver do not belong to iss")
    client = _client(vouched, ("azp",) if version == "2.0" else ("appid",))
    if not client or any(name in claims for name in _OF_ID_TOKENS):
        raise _refused(vouched, TokenCode.ID_TOKEN, "an ID token where an access token belongs")
    subject, scopes, about = _text(vouched, "oid"), claims.get("scp"), claims.get("idtyp")
    facets = str(claims.get("xms_sub_fct", "")).split()
    if scopes:
        if about not in (None, "user"):
            raise _refused(vouched, TokenCode.CLAIMS, "idtyp and scp contradict each other")
        if _AGENT_SUBJECTS & set(facets):
            # An agent's own user account has roles and a mailbox, and nobody behind it who could mean anything.
            raise _refused(vouched, TokenCode.NOT_A_PERSON, "the account of an agent, not of a person")
        return Shape(subject=subject, workload=False, client=client)
    public = claims.get("azpacr", claims.get("appidacr")) == "0"
    if public or about not in (None, "app") or (about is None and claims.get("sub") != subject):
        raise _refused(vouched, TokenCode.CLAIMS, "neither scp nor the marks of an application's own token")
    return Shape(subject=subject, workload=True, client=client)


def _kubernetes(vouched: Vouched) -> Shape:
    subject, inside = _text(vouched, "sub"), vouched.claims.get("kubernetes.io")
    account = inside.get("serviceaccount") if isinstance(inside, dict) else None
    name = account.get("name") if isinstance(account, dict) else None
    if not isinstance(inside, dict) or not name or subject != f"system:serviceaccount:{inside.get('namespace')}:{name}":
        raise _refused(vouched, TokenCode.CLAIMS, "not a projected token of a service account")
    return Shape(subject=subject, workload=True)


def _spiffe(vouched: Vouched) -> Shape:
    subject, domain = _text(vouched, "sub"), f"spiffe://{vouched.issuer.trust_domain}"
    path = subject.removeprefix(domain)
    segments = path.split("/")
    if (
        vouched.kind not in {"", "JWT", "JOSE"}
        or path == subject
        or not _SPIFFE_PATH.match(path)
        or {".", ".."} & set(segments)
    ):
        raise _refused(vouched, TokenCode.CLAIMS, "not a SPIFFE id of the trust domain")
    return Shape(subject=subject, workload=True)


def _subject(vouched: Vouched, rule: AgentsRule, shape: Shape) -> str:
    if rule.subject:
        return _text(vouched, rule.subject)
    return shape.client if vouched.issuer.kind == "entra" else shape.subject


def _user(vouched: Vouched, rule: PeopleRule, shape: Shape) -> str:
    return _text(vouched, rule.user) if rule.user else shape.subject


def _tenant(vouched: Vouched, rule: PeopleRule) -> str:
    if vouched.issuer.kind == "entra":
        return vouched.issuer.tenants[vouched.directory]
    if rule.tenant.fixed:
        return rule.tenant.fixed
    tenant = rule.tenant.map.get(_text(vouched, rule.tenant.claim))
    if tenant is None:
        raise _refused(vouched, TokenCode.FOREIGN_TENANT, "the tenant is not one that this issuer speaks for")
    return tenant


def _roles(vouched: Vouched, rule: PeopleRule) -> tuple[str, ...]:
    if rule.roles is None:
        return ()
    if _head(rule.roles.claim) == "groups":
        _refuse_overage(vouched)
    value = _claim(vouched, rule.roles.claim)
    listed = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise _refused(vouched, TokenCode.CLAIMS, "the roles are not a list of texts")
    named = set(listed) if rule.roles.map is None else {rule.roles.map[item] for item in listed if item in rule.roles.map}
    if len(named) > MAX_ROLES:
        raise _refused(vouched, TokenCode.CLAIMS, f"more than {MAX_ROLES} roles")
    return tuple(sorted(named))


def _refuse_overage(vouched: Vouched) -> None:
    """Entra leaves the groups out when there are too many of them. Half of what somebody may do is not what they may do."""
    elsewhere = vouched.claims.get("_claim_names")
    moved = isinstance(elsewhere, dict) and "groups" in elsewhere
    if moved or vouched.claims.get("hasgroups") is not None:
        raise _refused(
            vouched,
            TokenCode.GROUPS_OVERAGE,
            "more groups than fit into a token: use app roles (roles: {claim: roles}), or emit only groups of the application",
        )


def _require(vouched: Vouched, rules: Mapping[str, tuple[str | bool | int, ...]]) -> None:
    for name, allowed in rules.items():
        value = vouched.claims.get(name)
        held = value if isinstance(value, list) else [value]
        if not any(type(item) is type(wanted) and item == wanted for item in held for wanted in allowed):
            raise _refused(vouched, TokenCode.CLAIMS, f"the claim {name} is not one of those required")


def _client(vouched: Vouched, names: tuple[str, ...]) -> str:
    found = {name: vouched.claims[name] for name in names if name in vouched.claims}
    values = list(found.values())
    if any(not isinstance(value, str) or not value for value in values) or len(set(map(str, values))) > 1:
        raise _refused(vouched, TokenCode.CLIENT, f"{' and '.join(found)} do not name one client")
    return str(values[0]) if values else ""


def _claim(vouched: Vouched, path: str | tuple[str, ...]) -> Any:
    value: Any = vouched.claims
    for step in (path,) if isinstance(path, str) else path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _head(path: str | tuple[str, ...]) -> str:
    return path if isinstance(path, str) else path[0]


def _text(vouched: Vouched, path: str | tuple[str, ...]) -> str:
    value = _claim(vouched, path)
    if not isinstance(value, str) or not value or len(value) > MAX_NAME_CHARS or not value.isprintable():
        name = path if isinstance(path, str) else ".".join(path)
        raise _refused(vouched, TokenCode.CLAIMS, f"the claim {name} is missing or is no name")
    return value


def _told(vouched: Vouched) -> int:
    # As early as the issuer's clock may be wrong: what was issued just before a revocation must not look issued after it.
    return int((vouched.issued_at_s - vouched.issuer.leeway_s) * 1_000_000)


def _refused(vouched: Vouched, code: TokenCode, detail: str) -> TokenRefusedError:
    return TokenRefusedError(code, detail, vouched.iss)
