"""Two processes whose page people of a real local issuer log in to, and their browsers."""

import contextlib
import re
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx2
import msgspec

from tests.identity.house import HERE
from tests.login.world import process
from tests.support.patience import patient_http
from tests.support.shop import FILES, Shop

PERSON = "interlock_person"
DIRECTORY = """
users:
  ana: {tenant: acme, roles: [Guest]}
  dev: {tenant: acme, roles: [Operator]}
agents:
  bot: {subjects: {test: bot}}
"""
LOGIN = "{client_id: page, title: Corp, cli: {client_id: console, scopes: [openid, offline_access], resource: true}}"


def release(issuer, login=LOGIN, more="", agents=""):
    return {
        **FILES,
        "release.yaml": FILES["release.yaml"]
        .replace("kill: [Operator]", "kill: [Operator], revoke: [Operator], approvals: [Lead]")
        .replace("propose: [Operator]", "propose: [Operator]"),
        "agents.yaml": FILES["agents.yaml"] + agents,
        "issuers.yaml": f"""
corp:
  kind: oidc
  issuer: {issuer.url}
  environments: {{test: ["{HERE}"]}}
  people:
    user: sub
    tenant: {{claim: org, map: {{acme-corp: acme, globex-corp: globex}}}}
    roles: {{claim: groups, map: {{staff: Staff, operators: Operator, leads: Lead}}}}
    clients: [console]
  login: {login}
{more}""",
    }


class Lobby:
    def __init__(self, house, other, issuer, urls, folder):
        self.house, self.other, self.issuer, self.urls, self.folder = house, other, issuer, urls, folder
        self.system = house.made.system
        for place in (house, other):
            self.knows(place)

    def knows(self, place, client="page", secret="", name="corp"):
        known = self.issuer.provider.clients.setdefault(client, {"secret": secret, "redirects": []})
        known["redirects"].append(f"{place.url}/login/oidc/{name}/callback")

    def be(self, user="oki", *groups, org="acme-corp"):
        self.issuer.user = {"sub": user, "org": org, "groups": list(groups)}

    @contextlib.asynccontextmanager
    async def browser(self, house=None):
        house = house or self.house
        async with patient_http(base_url=house.url) as http:
            yield Browser(http, house)

    async def sql(self, statement, *arguments):
        connection = await asyncpg.connect(self.urls.superuser)
        try:
            return await connection.fetch(statement, *arguments)
        finally:
            await connection.close()

    async def control_chain(self):
        rows = await self.sql(
            "SELECT kind, body FROM event JOIN event_body USING (chain_id, seq) WHERE chain_id = 'control' ORDER BY seq"
        )
        return [(row["kind"], msgspec.json.decode(row["body"])) for row in rows]


class Browser:
    """Follows one step at a time, so that a thief can stand in between."""

    def __init__(self, http, house):
        self.http, self.house = http, house

    async def get(self, path, **headers):
        return await self.http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def begin(self, issuer="corp", next_path="/", **headers):
        """To the issuer: the address that the browser is sent to."""
        answer = await self.get(f"/login/oidc/{issuer}?{httpx2.QueryParams({'next': next_path})}", **headers)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def at_issuer(self, url):
        """Logged in there: the address that it sends the browser back to."""
        answer = await self.http.get(url)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def login(self, issuer="corp", next_path="/"):
        return await self.get(await self.at_issuer(await self.begin(issuer, next_path)))

    @property
    def token(self):
        return self.http.cookies.get(PERSON, default="")

    async def form_token(self):
        return re.search(r'name="form_token" value="(\w+)"', (await self.get("/")).text)[1]

    async def post(self, path, **form):
        return await self.http.post(path, data=form, headers={"origin": self.house.url, "sec-fetch-site": "same-origin"})


def asked_of(url):
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def changed(url, **more):
    """An address with other parameters; None takes one out."""
    parts = urlsplit(url)
    kept = {**asked_of(url), **more}
    return parts._replace(query=str(httpx2.QueryParams({k: v for k, v in kept.items() if v is not None}))).geturl()


@contextlib.asynccontextmanager
async def lobby(urls, folder, issuer, **more):
    (folder / "directory.yaml").write_text(DIRECTORY)
    issuer.provider.audience = HERE
    issuer.user = {"sub": "oki", "org": "acme-corp", "groups": ["operators"]}
    shop, files = Shop(), release(issuer, **more)
    async with process(urls, folder, shop, files) as one, process(urls, folder, shop, files) as other:
        yield Lobby(one, other, issuer, urls, folder)
