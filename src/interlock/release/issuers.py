"""`issuers.yaml`: whom Interlock believes about people and agents, in which environment, and how their tokens are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from interlock.release.documents import Node, Problems

Kind: TypeAlias = Literal["oidc", "entra", "kubernetes", "spiffe"]
Path: TypeAlias = tuple[str, ...]

# Signatures that need a private key, and nothing else: what a JWKS publishes can check them and never make them.
ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
DEFAULT_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
BUILT_IN: Final = "interlock-dev"
ANY_CLIENT: Final = "*"
RESERVED: Final = frozenset({BUILT_IN, "interlock"})
MAX_LEEWAY_S: Final = 60
MOST_LIFETIME_S: Final = 86_400
# Entra's access tokens live up to 90 minutes; the kubelet asks for an hour and gets a few seconds more.
LIFETIME_S: Final[Mapping[str, int]] = {"oidc": 3_600, "entra": 5_700, "kubernetes": 3_660, "spiffe": 3_600}
ENTRA: Final = "https://login.microsoftonline.com"
ENTRA_STS: Final = "https://sts.windows.net"
_GUID: Final = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_TRUST_DOMAIN: Final = re.compile(r"^[a-z0-9._-]{1,255}$")
_SECRET: Final = re.compile(r"^(file:.+|env:[A-Za-z_]\w*)$")
_PATH_NAME: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_SCOPE: Final = re.compile(r"^[\x21\x23-\x5b\x5d-\x7e]+$")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class TenantRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a person's tenant comes from: `fixed`, or a claim whose values are mapped. What is not mapped is refused."""

    fixed: str = ""
    claim: str | Path = ()
    map: Mapping[str, str] = {}


class RolesRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which claim holds the roles. With `map`, only what it names becomes a role."""

    claim: str | Path
    map: Mapping[str, str] | None = None


class PeopleRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a token becomes a person.

    `clients` are the applications by which people speak for themselves to the control plane; no agent is one of them.
    `require` names claims and the values one of which each must have.
    """

    user: str | Path = ()
    prefix: str = ""
    tenant: TenantRule = TenantRule()
    roles: RolesRule | None = None
    attributes: Mapping[str, str | Path] = {}
    clients: tuple[str, ...] = ()
    require: Mapping[str, tuple[str | bool | int, ...]] = {}


class AgentsRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a token becomes an agent: the claim that holds what agents.yaml calls `subject`.

    With `delegated`, a token of a user that was issued to an agent's client stands for both.
    """

    subject: str | Path = ()
    delegated: bool = False
    require: Mapping[str, tuple[str | bool | int, ...]] = {}


class CliRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `interlock login --issuer` logs people in there: a public client, one of `people.clients`.

    With `resource`, it asks for a token for the environment's first audience (RFC 8707).
    """

    client_id: str
    scopes: tuple[str, ...] = ("openid",)
    resource: bool = False


class LoginRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How people log in to the page there (OpenID Connect Core, 3.1), and to the command line.

    `secret` is `env:NAME` or `file:PATH`, empty for a public client. `claims` says where tenant, roles and attributes are read.
    `directory` is the Entra directory that logs people in, where `tenants` names several.
    """

    client_id: str
    secret: str = ""
    scopes: tuple[str, ...] = ("openid",)
    claims: Literal["id_token", "userinfo", "access_token"] = "id_token"
    title: str = ""
    directory: str = ""
    cli: CliRule | None = None


class Issuer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `issuers.yaml`.

    `environments` maps each environment it is trusted in to the audiences that mean us there. `token_type` is `at+jwt`
    (RFC 9068) or `any`. `ca` is `file:PATH`, `credential` `file:PATH` or `env:NAME`: sent to the issuer's own host only.
    """

    kind: Kind
    environments: Mapping[str, tuple[str, ...]]
    name: str = ""
    issuer: str = ""
    jwks: str = ""
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    leeway_s: int = 5
    max_lifetime_s: int = 0
    token_type: Literal["at+jwt", "any"] = "at+jwt"  # noqa: S105  # a media type
    people: PeopleRule | None = None
    agents: AgentsRule | None = None
    login: LoginRule | None = None
    tenants: Mapping[str, str] = {}
    sts: str = ENTRA_STS
    trust_domain: str = ""
    ca: str = ""
    credential: str = ""
    advertise: bool = True
    scopes: tuple[str, ...] = ()


def read_issuers(document: Node, attributes: Mapping[str, str], problems: Problems) -> dict[str, Issuer]:
    """The issuers as written, complete with the defaults of their kind; whatever is wrong is noted where it stands."""
    found: dict[str, Issuer] = {}
    for name, node in document.items():
        written = problems.convert(node, Issuer)
        if written is None:
            continue
        issuer = _complete(name, written)
        for place, message in _mistakes(issuer, attributes):
            problems.add(node.at(place) if place else node, f"{name}: {message}")
        for other in found.values():
            for message in _clashes(issuer, other):
                problems.add(node, f"{name}: {message}")
        found[name] = issuer
    return found


def wrong_voucher(issuers: Mapping[str, Issuer], name: str, subject: str, environment: str) -> str:
    """Why an issuer cannot vouch for an agent of agents.yaml in an environment; empty when it can."""
    if name == BUILT_IN and subject != ANY_CLIENT:
        return ""
    issuer = issuers.get(name)
    if issuer is None or issuer.agents is None:
        vouching = ", ".join([BUILT_IN, *(other for other in issuers if issuers[other].agents is not None)])
        return f"issuer {name!r} does not vouch for agents here; one of {vouching}"
    if environment not in issuer.environments:
        return f"issuer {name!r} is not trusted in {environment}; see environments in issuers.yaml"
    if subject == ANY_CLIENT and not issuer.agents.delegated:
        return f'"{ANY_CLIENT}" is any client that people log in with, and {name!r} takes no delegated tokens'
    return ""


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine, where http is good enough."""
    return host in _LOOPBACK


def _complete(name: str, written: Issuer) -> Issuer:
    default = {"entra": ENTRA}.get(written.kind, "")
    agents = written.agents
    if agents is None and written.kind in {"kubernetes", "spiffe"}:
        agents = AgentsRule()
    return msgspec.structs.replace(
        written,
        name=name,
        # Entra's is the authority that tenants stand under; the others are compared with `iss` to the letter.
        issuer=(written.issuer or default).rstrip("/") if written.kind == "entra" else written.issuer,
        sts=written.sts.rstrip("/"),
        max_lifetime_s=written.max_lifetime_s or LIFETIME_S[written.kind],
        agents=agents,
    )


def _mistakes(issuer: Issuer, attributes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if issuer.name in RESERVED or ":" in issuer.name:
        yield "", f"the name is taken: {', '.join(sorted(RESERVED))} are built in, and names have no colon"
    if not issuer.environments or not all(issuer.environments.values()):
        yield "environments", "name each environment it is trusted in, with the audiences that mean us there"
    audiences = [audience for several in issuer.environments.values() for audience in several]
    if len(set(audiences)) != len(audiences):
        # INVARIANT: no token is good in two environments.
        yield "environments", "an audience belongs to one environment; a token for staging must not be one for prod"
    for algorithm in issuer.algorithms:
        if algorithm not in ALGORITHMS:
            yield "algorithms", f"{algorithm!r} is not one of {', '.join(ALGORITHMS)}"
    if not issuer.algorithms:
        yield "algorithms", "name at least one"
    if not 0 <= issuer.leeway_s <= MAX_LEEWAY_S:
        yield "leeway_s", f"0 to {MAX_LEEWAY_S} seconds"
    if not 0 < issuer.max_lifetime_s <= MOST_LIFETIME_S:
        yield "max_lifetime_s", f"1 to {MOST_LIFETIME_S} seconds"
    for field in ("issuer", "jwks", "sts"):
        if getattr(issuer, field) and _bad_url(getattr(issuer, field)):
            yield (
                field,
                "a URL that begins with https:// (http:// only for this machine), with no query and no name or password",
            )
    for field in ("ca", "credential"):
        if getattr(issuer, field) and not _SECRET.match(getattr(issuer, field)):
            yield field, "written `file:PATH`, or for a credential `env:NAME`; the release never holds one"
    if issuer.ca.startswith("env:"):
        yield "ca", "written `file:PATH`"
    yield from _of_kind(issuer)
    if issuer.people is not None:
        yield from _of_people(issuer, issuer.people, attributes)
    if issuer.login is not None:
        yield from (("login", message) for message in _of_login(issuer, issuer.login))


def _of_kind(issuer: Issuer) -> Iterator[tuple[str, str]]:
    if issuer.people is None and issuer.agents is None:
        yield "", "says nothing about people or agents; add `people:` or `agents:`"
    if issuer.kind in {"kubernetes", "spiffe"} and issuer.people is not None:
        yield "people", f"{issuer.kind} vouches for workloads, not for people"
    if issuer.kind in {"kubernetes", "spiffe"} and issuer.agents is not None and issuer.agents.delegated:
        yield "agents", f"a token of {issuer.kind} speaks for a workload alone; nothing is delegated in it"
    if issuer.agents is not None and issuer.agents.delegated and issuer.people is None:
        yield "agents", "`delegated` needs `people:`, which says whom such a token is for"
    agents = issuer.agents or AgentsRule()
    by = agents.subject
    if issuer.kind == "entra" and by and (by not in ("azp", "appid", "oid") or (by == "oid" and agents.delegated)):
        yield "agents", "`subject` is `azp` or `appid`; or `oid`, which a delegated token does not tell of the agent"
    if issuer.kind == "spiffe":
        if not _TRUST_DOMAIN.match(issuer.trust_domain):
            yield "trust_domain", "the trust domain, such as prod.example"
        if not issuer.jwks:
            yield "jwks", "the URL of the trust bundle"
    elif not issuer.issuer:
        yield "issuer", "the issuer as it stands in the tokens (`iss`)"
    if issuer.kind == "entra":
        if not issuer.tenants:
            yield "tenants", "name the directories that are trusted (`tid`) and the tenant each is here"
        for directory in issuer.tenants:
            if not _GUID.match(directory):
                yield "tenants", f"{directory!r} is no directory id; write it as in `tid`, in lower case"


def _of_people(issuer: Issuer, people: PeopleRule, attributes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    tenant = people.tenant
    if issuer.kind == "entra":
        if tenant != TenantRule():
            yield "people", "the tenant follows from `tenants`"
    elif bool(tenant.fixed) == bool(tenant.claim and tenant.map):
        yield (
            "people",
            "`tenant` is `{fixed: NAME}`, or `{claim: NAME, map: {value: tenant}}`: an issuer speaks for those alone",
        )
    for name in people.attributes:
        if name not in attributes:
            yield "people", f"the attribute {name!r} is not declared in release.yaml's user_attributes"


def _of_login(issuer: Issuer, login: LoginRule) -> Iterator[str]:
    if issuer.people is None:
        yield "`login` needs `people:`, which says whom its tokens are about"
    if issuer.jwks:
        yield "`login` needs the issuer's discovery document; leave out `jwks`"
    if not _PATH_NAME.match(issuer.name):
        yield "the name becomes a part of an address; letters, digits, `.`, `_` and `-` alone"
    if not login.client_id or not login.client_id.isprintable():
        yield "`client_id` is the client that the issuer knows Interlock's page by"
    if login.secret and not _SECRET.match(login.secret):
        yield "`secret` is written `env:NAME` or `file:PATH`; the release never holds one"
    asked = [login.scopes] if login.cli is None else [login.scopes, login.cli.scopes]
    if not all("openid" in scopes for scopes in asked) or not all(_SCOPE.match(scope) for scopes in asked for scope in scopes):
        yield "`scopes` are words without spaces, `openid` among them"
    if issuer.kind == "entra" and len(issuer.tenants) > 1 and not login.directory:
        yield "`directory` says which of `tenants` logs people in"
    if login.directory and login.directory not in issuer.tenants:
        yield "`directory` is one of `tenants`"
    if login.cli is not None and (issuer.people is None or login.cli.client_id not in issuer.people.clients):
        yield "`cli.client_id` must be one of `people.clients`, by which people speak for themselves"


def _clashes(issuer: Issuer, other: Issuer) -> Iterator[str]:
    if issuer.kind == "spiffe" or other.kind == "spiffe":
        same = issuer.kind == other.kind and issuer.trust_domain == other.trust_domain
    elif issuer.kind == "entra" and other.kind == "entra":
        same = issuer.issuer == other.issuer and bool(set(issuer.tenants) & set(other.tenants))
    elif "entra" in (issuer.kind, other.kind):
        entra, plain = (issuer, other) if issuer.kind == "entra" else (other, issuer)
        same = plain.issuer.startswith(tuple(f"{base}/{tid}/" for base in (entra.issuer, entra.sts) for tid in entra.tenants))
    else:
        same = issuer.issuer == other.issuer
    if not same:
        return
    if set(issuer.environments) & set(other.environments):
        yield f"{other.name} is the same issuer in the same environment"
    mine = {audience for several in issuer.environments.values() for audience in several}
    if any(audience in mine for several in other.environments.values() for audience in several):
        yield f"{other.name} takes the same audience from the same issuer"


def _bad_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return True
    if parts.query or parts.fragment or parts.username is not None or not host or not url.isascii() or " " in url:
        return True
    return not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
