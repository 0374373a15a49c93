"""Whom a release trusts is validated like everything else in it: whole, with file and line."""

import pytest

from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from tests.support.shop import FILES

ISSUERS = """\
corp:
  kind: oidc
  issuer: https://login.corp.example
  environments: {test: [https://interlock.example/mcp], staging: [https://staging.example/mcp]}
  algorithms: [RS256, ES256]
  people: {user: sub, tenant: {claim: org, map: {corp: acme}}, roles: {claim: roles}, attributes: {teams: teams}}
  agents: {delegated: true}
entra:
  kind: entra
  environments: {test: ["api://interlock"]}
  tenants: {11111111-2222-3333-4444-555555555555: acme}
  people: {roles: {claim: roles}, clients: [cli]}
cluster:
  kind: kubernetes
  issuer: https://kubernetes.default.svc
  environments: {test: [interlock]}
  ca: file:/var/run/secrets/kubernetes.io/serviceaccount/ca.crt
mesh:
  kind: spiffe
  trust_domain: prod.example
  jwks: https://spiffe.prod.example/bundle
  environments: {test: [interlock]}
"""
AGENTS = FILES["agents.yaml"].replace("idle:\n", "idle:\n  staging: {issuer: corp, subject: idle-app}\n")


def load(issuers=ISSUERS, agents=AGENTS):
    return from_files({**FILES, "issuers.yaml": issuers, "agents.yaml": agents})


def problems(**changed):
    with pytest.raises(ReleaseError) as caught:
        load(**changed)
    return [str(problem) for problem in caught.value.problems]


def test_each_kind_of_issuer_loads_with_the_defaults_of_its_kind():
    release = load()
    assert set(release.issuers) == {"corp", "entra", "cluster", "mesh"}
    assert release.issuers["entra"].issuer == "https://login.microsoftonline.com"
    assert release.issuers["entra"].max_lifetime_s > 5_400
    assert release.issuers["cluster"].agents is not None
    assert release.issuers["cluster"].people is None
    assert "none" not in release.issuers["mesh"].algorithms


def test_a_release_without_the_file_trusts_nobody_outside():
    assert from_files(FILES).issuers == {}


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("kind: oidc", "kind: saml", 2, "saml"),
        ("algorithms: [RS256, ES256]", "algorithms: [RS256, HS256]", 5, "'HS256' is not one of"),
        ("algorithms: [RS256, ES256]", "algorithms: [none]", 5, "'none' is not one of"),
        ("algorithms: [RS256, ES256]", "algorithms: []", 5, "at least one"),
        ("issuer: https://login.corp.example", "issuer: http://login.corp.example", 3, "https://"),
        ("issuer: https://login.corp.example", "issuer: https://u:p@login.corp.example", 3, "no name or password"),
        ("  issuer: https://login.corp.example\n", "", 1, "as it stands in the tokens"),
        ("staging: [https://staging.example/mcp]", "staging: [https://interlock.example/mcp]", 4, "belongs to one environment"),
        ("staging: [https://staging.example/mcp]", "staging: []", 4, "with the audiences"),
        ("algorithms: [RS256, ES256]", "leeway_s: 3600", 5, "0 to 60"),
        ("algorithms: [RS256, ES256]", "max_lifetime_s: 999999", 5, "1 to 86400"),
        ("algorithms: [RS256, ES256]", "credential: hunter2", 5, "never holds one"),
        ("tenant: {claim: org, map: {corp: acme}}", "tenant: {claim: org}", 6, "speaks for those alone"),
        ("tenant: {claim: org, map: {corp: acme}}", "tenant: {}", 6, "speaks for those alone"),
        ("attributes: {teams: teams}", "attributes: {boss: manager}", 6, "not declared"),
        ("people: {user: sub", "peple: {user: sub", 6, "did you mean 'people'"),
        ("tenants: {11111111-2222-3333-4444-555555555555: acme}", "tenants: {common: acme}", 11, "no directory id"),
        ("  tenants: {11111111-2222-3333-4444-555555555555: acme}\n", "", 8, "name the directories"),
        ("agents: {delegated: true}", "agents: {delegated: maybe}", 7, "bool"),
        ("ca: file:/var", "people: {}\n  ca: file:/var", 17, "not for people"),
        ("ca: file:/var", "ca: /var", 17, "file:PATH"),
        ("  trust_domain: prod.example\n", "", 18, "the trust domain"),
        ("jwks: https://spiffe.prod.example/bundle", "agents: {delegated: true}", 18, "the URL of the trust bundle"),
        ("mesh:", "interlock-dev:", 18, "the name is taken"),
        ("mesh:\n", "corp2: {kind: oidc, issuer: https://login.corp.example, environments: {test: [x]}, agents: {}}\nmesh:\n", 18, "same issuer in the same environment"),
        ("mesh:\n", "corp2: {kind: oidc, issuer: https://login.corp.example, environments: {dev: [https://interlock.example/mcp]}, agents: {}}\nmesh:\n", 18, "same audience"),
        ("mesh:\n", "ms: {kind: oidc, issuer: https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0, environments: {test: [x]}, agents: {}}\nmesh:\n", 18, "same issuer"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_file_and_line(old, new, line, says):
    assert old in ISSUERS
    listed = problems(issuers=ISSUERS.replace(old, new))
    assert any(problem.startswith(f"issuers.yaml:{line}: ") and says in problem for problem in listed), listed


ENTRA_TWO = "{11111111-2222-3333-4444-555555555555: acme, 22222222-2222-3333-4444-555555555555: globex}"


@pytest.mark.parametrize(
    ("login", "says"),
    [
        ("{client_id: ''}", "the client that the issuer knows"),
        ("{client_id: page, secret: hunter2}", "never holds one"),
        ("{client_id: page, scopes: [profile]}", "`openid` among them"),
        ("{client_id: page, scopes: [openid, 'two words']}", "words without spaces"),
        ("{client_id: page, claims: guess}", "guess"),
        ("{client_id: page, directory: acme}", "one of `tenants`"),
        ("{client_id: page, cli: {client_id: stranger}}", "one of `people.clients`"),
        ("{client_id: page, cli: {client_id: console, scopes: [tools]}}", "`openid` among them"),
        ("{client_id: page}\n  jwks: https://login.corp.example/keys", "discovery document"),
        ("{client: page}", "client"),
    ],
)
def test_each_mistake_about_logging_in_is_named_with_file_and_line(login, says):
    listed = problems(
        issuers=ISSUERS.replace("  agents: {delegated: true}\n", f"  agents: {{delegated: true}}\n  login: {login}\n", 1)
    )
    assert any(problem.startswith("issuers.yaml:8: ") and says in problem for problem in listed), listed


def test_people_log_in_only_where_it_is_said_whose_tokens_they_get():
    assert any(
        "`login` needs `people:`" in text
        for text in problems(issuers=ISSUERS.replace("  ca: file:/var", "  login: {client_id: page}\n  ca: file:/var"))
    )
    two = ISSUERS.replace("{11111111-2222-3333-4444-555555555555: acme}", ENTRA_TWO)
    assert any(
        "which of `tenants`" in text
        for text in problems(issuers=two.replace("kind: entra", "kind: entra\n  login: {client_id: page}"))
    )
    assert any(
        "part of an address" in text
        for text in problems(
            issuers=ISSUERS.replace("corp:\n", '"co/rp":\n').replace("kind: oidc", "kind: oidc\n  login: {client_id: page}")
        )
    )


@pytest.mark.parametrize(
    ("new", "says"),
    [
        ("{issuer: nobody, subject: idle-app}", "does not vouch for agents here; one of interlock-dev, corp"),
        ("{issuer: entra, subject: idle-app}", "does not vouch for agents"),
        ("{issuer: cluster, subject: idle-app}", "not trusted in staging"),
        ('{issuer: interlock-dev, subject: "*"}', "does not vouch"),
    ],
)
def test_an_agents_issuer_vouches_for_agents_in_that_environment(new, says):
    listed = problems(agents=AGENTS.replace("{issuer: corp, subject: idle-app}", new))
    assert any(problem.startswith("agents.yaml:") and says in problem for problem in listed), listed


def test_any_client_that_people_log_in_with_may_be_an_agent_where_delegated_tokens_are_taken():
    release = load(agents=AGENTS.replace("subject: idle-app", 'subject: "*"'))
    assert any(identity.subject == "*" for identity in release.identities)
