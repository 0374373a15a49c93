"""A process with the page in front of it, on a real port, and the people who look at it."""

import contextlib
import re

from interlock.identity.dev_issuer import ISSUER, KEY
from interlock.identity.tokens import sign
from interlock.server.router import Router
from tests.support.listening import listening
from tests.support.patience import patient_http
from tests.support.shop import FILES as SHOP

FILES = {
    **SHOP,
    "release.yaml": """
name: shop
user_attributes: {teams: set}
administration:
  operated_by: [acme]
  kill: [Operator]
  resume: [Operator]
  lower: [Security]
  activate: [Operator]
  propose: [Operator]
  status: [Operator]
  traces: [Operator]
  approvals: [Operator]
""",
}


class House:
    """A process as browsers see it. `made` is the process itself."""

    def __init__(self, made, url, router):
        self.made, self.url, self.shop, self.plane, self.router = made, url, made.shop, made.system.plane, router

    def token(self, user="oki", tenant="acme", roles=("Operator",), lifetime_s=280, **more):
        system = self.made.system
        now_s = system.clock.wall_us() // 1_000_000
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": "interlock:test",
            "iat": now_s,
            "exp": now_s + lifetime_s,
            "interlock_use": "user",
            "tenant": tenant,
            "roles": list(roles),
            **more,
        }
        return sign(claims, system.keys.signing(KEY))

    def http(self, token="", **more):
        cookies = {"interlock_person": token} if token else {}
        return patient_http(base_url=self.url, cookies=cookies, **more)

    async def get(self, path, token="", **headers):
        async with self.http(token) as http:
            return await http.get(path, headers=dashed(headers))

    async def post(self, path, fields, token="", **headers):
        """A form as a browser on a page of this origin sends it; `headers` may say otherwise."""
        sent = {"origin": self.url, "sec_fetch_site": "same-origin", **headers}
        async with self.http(token) as http:
            return await http.post(path, data=fields, headers={k: v for k, v in dashed(sent).items() if v is not None})

    async def form_token(self, token):
        return re.search(r'name="form_token" value="(\w+)"', (await self.get("/", token)).text)[1]


def dashed(headers):
    return {name.replace("_", "-"): value for name, value in headers.items()}


@contextlib.asynccontextmanager
async def served(made, **more):
    system = made.system
    router = Router(gate=made.gate, session_of=system.plane.session, plane=system.plane)
    async with listening(router, **more) as port:
        yield House(made, f"http://127.0.0.1:{port}", router)
