"""The shop's control plane as people and agents meet it: the real composition on a real database, over real HTTP."""

import contextlib

import msgspec

from interlock.identity.dev_issuer import ISSUER, KEY
from interlock.identity.exchange import GRANT_TYPE
from interlock.identity.tokens import sign
from interlock.server.router import Router
from tests.support.listening import listening
from tests.support.patience import patient_http
from tests.support.shop import FILES, counter

GOVERNED = {
    **FILES,
    "release.yaml": """
name: shop
user_attributes: {teams: set}
owners: {platform: [release.yaml, tools, tests], product: [agents.yaml, tasks.yaml], security: [policies, approvals.yaml]}
administration:
  operated_by: [acme]
  teams: {platform: [Platform], product: [Product], security: [Security]}
  kill: [Operator, Security]
  resume: [Security]
  lower: [Security]
  settle: [Security]
  revoke: [Security]
  propose: [Platform, Product, Security]
  activate: [Platform, Security]
  review: [Platform, Security]
  status: [Operator, Security, Platform]
  traces: [Operator, Security, Auditor]
  audit: [Security, Auditor]
  approvals: [Security, Auditor]
  decide: [Platform, Decider]
""",
}
ROLES = ("Staff", "Lead", "Operator", "Security", "Platform", "Product", "Auditor", "Decider")


class Office:
    """The server as a client on the network sees it, and tokens for anybody."""

    def __init__(self, port, shop):
        self.url, self.shop, self.system = f"http://127.0.0.1:{port}", shop, shop.system
        self.http = patient_http(base_url=self.url)

    def signed(self, subject, use, *, age_s=0, **claims):
        now_s = self.system.clock.wall_us() // 1_000_000 - age_s
        known = {"iss": ISSUER, "sub": subject, "aud": "interlock:test", "iat": now_s, "exp": now_s + 300}
        jti = self.system.ids.new("jti")
        return sign({**known, "jti": jti, "interlock_use": use, **claims}, self.system.keys.signing(KEY))

    def person(self, user, *roles, tenant="acme", age_s=0, **attributes):
        return self.signed(user, "user", age_s=age_s, tenant=tenant, roles=list(roles), attributes=attributes)

    def agent(self, name, age_s=0):
        return self.signed(name, "agent", age_s=age_s)

    async def session(self, user="ana", agent="bot", tenant="acme", roles=("Staff",), task="selling", **attributes):
        """The token and the id of a session, got as an agent gets one."""
        attributes = attributes or {"teams": ["north"]}
        form = {
            "grant_type": GRANT_TYPE,
            "subject_token": self.person(user, *roles, tenant=tenant, **attributes),
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "actor_token": self.agent(agent),
            "actor_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "task": task,
        }
        answer = (await self.http.post("/oauth/token", data=form)).json()
        return answer["access_token"], answer["session_id"]

    async def ask(self, method, path, token="", body=None, **headers):
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["authorization"] = f"Bearer {token}"
        content = b""
        if body is not None:
            content = body if isinstance(body, bytes) else msgspec.json.encode(body)
            sent.setdefault("content-type", "application/json")
        return await self.http.request(method, path, content=content, headers=sent)

    async def get(self, path, token="", **headers):
        return await self.ask("GET", path, token, **headers)

    async def post(self, path, token="", body=None, **headers):
        return await self.ask("POST", path, token, {} if body is None else body, **headers)

    async def call(self, token, operation, **more):
        """Call the shop by the API; `more` are arguments."""
        return await self.post("/v1/calls", token, {"operation": f"shop.{operation}", "arguments": more})


@contextlib.asynccontextmanager
async def office(database_url, state, files=GOVERNED, shop=None):
    """The control plane of a shop, served."""
    async with counter(database_url, state, shop, files) as made, serving(made) as served:
        yield served


@contextlib.asynccontextmanager
async def serving(made):
    """Serve a running process."""
    router = Router(gate=made.gate, session_of=made.system.plane.session, plane=made.system.plane)
    async with listening(router) as port:
        met = Office(port, made)
        try:
            yield met
        finally:
            await met.http.aclose()
