"""The shop behind its gate, trusting a real issuer; and its server on a real socket."""

import contextlib

import msgspec

from interlock.identity.exchange import GRANT_TYPE
from interlock.server.router import Router
from tests.support.issuer import DIRECTORY
from tests.support.listening import listening
from tests.support.patience import patient_http
from tests.support.shop import FILES, counter

HERE = "https://interlock.example/mcp"
STATELESS = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": STATELESS, "io.modelcontextprotocol/clientCapabilities": {}}
PEOPLE = """{user: sub, tenant: {claim: org, map: {acme-corp: acme, globex-corp: globex}},
    roles: {claim: groups, map: {staff: Staff, operators: Operator}}, attributes: {teams: teams}, clients: [console]}"""


def files(issuer_url, *, audience=HERE, more_issuers="", agents="", tasks="", people=PEOPLE):
    """The shop's release, trusting this issuer for people, agents and delegated tokens."""
    identities = f"""
bot2:
  test: {{issuer: corp, subject: bot-app}}
  staging: {{issuer: corp, subject: bot-app-staging}}
  grants:
    - {{on: [shop.stock, shop.pay, shop.slow], for: {{roles: [Staff], task: selling}}}}
{agents}"""
    return {
        **FILES,
        "release.yaml": FILES["release.yaml"].replace("kill: [Operator]", "kill: [Operator], revoke: [Operator]"),
        "agents.yaml": FILES["agents.yaml"] + identities,
        "tasks.yaml": FILES["tasks.yaml"].replace("agents: [bot, idle]", "agents: [bot, idle, bot2]") + tasks,
        "issuers.yaml": f"""
corp:
  kind: oidc
  issuer: {issuer_url}
  environments: {{test: ["{audience}"], staging: ["https://staging.interlock.example/mcp"]}}
  people: {people}
  agents: {{delegated: true}}
  scopes: [tools]
{more_issuers}""",
    }


def kubernetes(url):
    return f"cluster: {{kind: kubernetes, issuer: {url}, environments: {{test: [interlock]}}}}\n"


def spiffe(url):
    return f"mesh: {{kind: spiffe, trust_domain: prod.example, jwks: {url}/jwks, environments: {{test: [interlock]}}}}\n"


def entra(url):
    return f"""entra:
  kind: entra
  issuer: {url}
  sts: {url}/sts
  environments: {{test: ["api://interlock"]}}
  tenants: {{{DIRECTORY}: acme}}
  people: {{roles: {{claim: roles}}}}
  agents: {{delegated: true}}
"""


class House:
    """A process with its server, as somebody on the network sees it."""

    def __init__(self, made, url, issuer):
        self.made, self.url, self.issuer = made, url, issuer
        self.system = made.system

    def token(self, **more):
        return self.issuer.token(**{**self.issuer.user, "aud": HERE, "client_id": "bot-app", **more})

    def own(self, user="oki", groups=("operators",), **more):
        """A token of a person's own channel."""
        return self.token(sub=user, groups=list(groups), client_id="console", **more)

    async def ask(self, method, path, *, token="", body=None, **named):
        headers = {name.replace("_", "-"): value for name, value in named.items()}
        if token:
            headers["authorization"] = f"Bearer {token}"
        if body is not None:
            headers.setdefault("content-type", "application/json")
        content = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        async with patient_http() as http:
            return await http.request(method, self.url + path, content=content, headers=headers)

    async def call(self, token, operation="shop.stock", arguments=None, **named):
        params = {"name": operation, "arguments": arguments or {"item": "tea"}, "_meta": META}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        more = {"mcp_method": "tools/call", "mcp_name": operation, "mcp_protocol_version": STATELESS}
        return await self.ask("POST", "/mcp", token=token, body=body, **more, **named)

    async def session(self, token, task=""):
        return await self.system.plane.doors.session(token, task)

    async def exchange(self, **form):
        made = {"grant_type": GRANT_TYPE, "task": "selling", **form}
        body = "&".join(f"{name}={value}" for name, value in made.items()).encode()
        return await self.ask("POST", "/oauth/token", body=body, content_type="application/x-www-form-urlencoded")

    async def revoke(self, target, *, token=None, **more):
        body = {"target": target, "reason": "lost laptop", **more}
        return await self.ask("POST", "/v1/revocations", token=self.own() if token is None else token, body=body)


@contextlib.asynccontextmanager
async def house(database_url, state, issuer, *, at=None, shop=None, **more):
    """A process of Interlock that trusts this issuer. Several on one database are several processes."""
    async with counter(database_url, state, shop=shop, files=files(issuer.url, **more)) as made:
        plane = made.system.plane
        router = Router(gate=made.gate, session_of=plane.session, plane=plane, doors=plane.doors)
        async with listening(router, at) as port:
            yield House(made, f"http://127.0.0.1:{port}", issuer)
