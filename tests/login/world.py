"""Two processes on one database that trust the built-in issuer, its directory as a file, and people with browsers."""

import base64
import contextlib
import hashlib
import html as escapes
import re
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx2
import msgspec

from interlock.app.system import Settings, running
from interlock.identity.dev_issuer import DevIssuer, load_directory
from interlock.tools.python import PythonTools
from tests.page.house import served
from tests.support.patience import patient_http
from tests.support.shop import FILES, Counter, Shop

DIRECTORY = """
users:
  ana: {tenant: acme, roles: [Staff], attributes: {teams: [north]}}
  oki: {tenant: acme, roles: [Operator]}
  gus: {tenant: acme, roles: [Guest]}
agents:
  bot: {subjects: {test: bot}}
  sleeper: {subjects: {test: idle}}
"""
CALLBACK = "http://127.0.0.1:4711/callback"
VERIFIER = "v" * 43
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
PROOF = "urn:ietf:params:oauth:grant-type:jwt-bearer"

# What a browser says of a form that stood on another site, on a neighbour's page, or nowhere.
FOREIGN = (
    {"origin": "https://evil.example"},
    {"origin": None, "sec-fetch-site": None},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site"},
)


def challenge(verifier=VERIFIER):
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def claims(token):
    part = token.split(".")[1]
    return msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


class World:
    def __init__(self, house, other, folder, urls):
        self.house, self.other, self.folder, self.urls = house, other, folder, urls
        self.system = house.made.system

    def say(self, directory):
        path = self.folder / "directory.yaml"
        path.write_text(directory)

    def issuer(self):
        system = self.system
        return DevIssuer(
            directory=load_directory(self.folder / "directory.yaml"),
            keys=system.keys,
            environment="test",
            clock=system.clock,
            ids=system.ids,
        )

    def login_code(self, name):
        return self.issuer().login_code(name)

    async def sql(self, statement, *arguments):
        connection = await asyncpg.connect(self.urls.superuser)
        try:
            return await connection.fetch(statement, *arguments)
        finally:
            await connection.close()

    async def post(self, path, house=None, **form):
        async with (house or self.house).http() as http:
            return await http.post(path, data=form)

    async def token(self, house=None, **form):
        return await self.post("/oauth/token", house, **form)

    async def register(self, *redirect_uris, name="An editor"):
        async with self.house.http() as http:
            answer = await http.post(
                "/oauth/register", json={"redirect_uris": redirect_uris or (CALLBACK,), "client_name": name}
            )
        assert answer.status_code == 201, answer.text
        return answer.json()["client_id"]

    @contextlib.asynccontextmanager
    async def browser(self, name="", house=None):
        """A browser, logged in on the page as somebody."""
        house = house or self.house
        async with patient_http(base_url=house.url) as http:
            browser = Browser(http, house.url)
            if name:
                answer = await browser.post("/login", token=self.login_code(name))
                assert answer.status_code == 200, answer.text
            yield browser

    async def code(self, client_id, name="ana", browser=None, **more):
        """An authorization code that somebody consented to."""
        if browser is not None:
            return answered(await browser.consent(client_id, **more))["code"]
        async with self.browser(name) as opened:
            return answered(await opened.consent(client_id, **more))["code"]

    async def fetch(self, client_id, code, **more):
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "client_id": client_id,
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
            "resource": f"{self.house.url}/mcp",
        }
        return await self.token(**{name: value for name, value in {**form, **more}.items() if value is not None})

    async def refresh(self, client_id, refresh_token, house=None, **more):
        return await self.token(house, grant_type="refresh_token", client_id=client_id, refresh_token=refresh_token, **more)

    async def ask_device(self, client_id="interlock-cli", **more):
        answer = await self.post("/oauth/device_authorization", client_id=client_id, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def poll(self, asked, client_id="interlock-cli", house=None):
        """As a patient client does: the pause has passed."""
        await self.sql("UPDATE login_code SET polled_at = NULL")
        return await self.token(house, grant_type=DEVICE, client_id=client_id, device_code=asked["device_code"])

    async def control_chain(self):
        rows = await self.sql(
            "SELECT kind, body FROM event JOIN event_body USING (chain_id, seq) WHERE chain_id = 'control' ORDER BY seq"
        )
        return [(row["kind"], msgspec.json.decode(row["body"])) for row in rows]


class Browser:
    """Sends what a browser sends for a person who clicks."""

    def __init__(self, http, url):
        self.http, self.url = http, url

    async def get(self, path, **headers):
        return await self.http.get(path, headers=headers)

    async def post(self, path, headers=None, **form):
        sent = {"origin": self.url, "sec-fetch-site": "same-origin", **(headers or {})}
        return await self.http.post(path, data=form, headers={name: value for name, value in sent.items() if value is not None})

    async def form(self, path, headers=None, **fields):
        """Open a page, and send its form filled in."""
        shown = await self.get(path)
        return await self.post(urlsplit(path).path, headers, **{**hidden(shown.text), **fields})

    async def consent(self, client_id, choice="bot selling", answer="approve", **more):
        return await self.form(authorize(self.url, client_id, **more), choice=choice, answer=answer)

    async def answer(self, user_code, answer="approve", **more):
        """Type a code, look, and click."""
        shown = await self.form("/device", user_code=user_code)
        if shown.status_code != 200:
            return shown
        return await self.post("/device", **{**hidden(shown.text), "answer": answer, **more})


def authorize(url, client_id, **more):
    parameters = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": CALLBACK,
        "code_challenge": challenge(),
        "code_challenge_method": "S256",
        "state": "state of the client's & own",
        "resource": f"{url}/mcp",
        **more,
    }
    kept = {name: value for name, value in parameters.items() if value is not None}
    return f"/oauth/authorize?{httpx2.QueryParams(kept)}"


def hidden(text):
    return {name: escapes.unescape(value) for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', text)}


def answered(response):
    """What a client learns at its address."""
    assert response.status_code == 303, (response.status_code, response.text)
    return {name: values[0] for name, values in parse_qs(urlsplit(response.headers["location"]).query).items()}


@contextlib.asynccontextmanager
async def process(urls, folder, shop, files=FILES):
    settings = Settings(
        state=folder / "state",
        database_url=urls.app,
        environment="test",
        release_files=files,
        trust_dev_issuer=True,
        directory=folder / "directory.yaml",
    )
    async with running(settings, python=PythonTools(shop.functions())) as system:
        made = Counter(system, shop)
        async with served(made) as house:
            yield house


@contextlib.asynccontextmanager
async def world(urls, folder):
    (folder / "directory.yaml").write_text(DIRECTORY)
    shop = Shop()
    async with process(urls, folder, shop) as one, process(urls, folder, shop) as other:
        yield World(one, other, folder, urls)
