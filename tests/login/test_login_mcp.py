"""An ordinary MCP client meets a 401 and logs in by itself: the SDK's own OAuth client, and a person with a browser."""

from urllib.parse import parse_qs, urlsplit

from mcp.client import Client
from mcp.client.auth.oauth2 import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

from tests.login.world import CALLBACK, claims, hidden
from tests.support.patience import patient_http
from tests.support.wallet import Wallet


class Person:
    """Somebody in front of a browser, who is sent to consent and picks an agent."""

    def __init__(self, browser):
        self.browser, self.asked, self.answer = browser, [], None

    async def sent(self, url):
        self.asked.append(url)
        parts = urlsplit(url)
        shown = await self.browser.get(f"{parts.path}?{parts.query}")
        form = {**hidden(shown.text), "choice": "bot selling", "answer": "approve"}
        back = await self.browser.post("/oauth/authorize", **form)
        said = parse_qs(urlsplit(back.headers["location"]).query)
        self.answer = AuthorizationCodeResult(code=said["code"][0], state=said["state"][0], iss=said["iss"][0])

    async def came_back(self):
        return self.answer


async def test_the_sdks_client_logs_in_by_itself_and_its_calls_are_of_the_agent_for_the_person(town):
    url = f"{town.house.url}/mcp"
    wallet = Wallet()
    async with town.browser("ana") as browser:
        person = Person(browser)
        metadata = OAuthClientMetadata(redirect_uris=[CALLBACK], client_name="A real MCP client")
        auth = OAuthClientProvider(url, metadata, wallet, person.sent, person.came_back)
        async with patient_http(auth=auth) as http:
            async with Client(streamable_http_client(url, http_client=http)) as client:
                tools = await client.list_tools()
                assert "shop.stock" in {tool.name for tool in tools.tools}
                result = await client.call_tool("shop.stock", {"item": "nut"})
                assert not result.is_error
            # Its token runs out; it renews by itself and asks nobody.
            auth.context.token_expiry_time = 1.0
            first = wallet.tokens.access_token
            async with Client(streamable_http_client(url, http_client=http)) as client:
                assert not (await client.call_tool("shop.stock", {"item": "bolt"})).is_error
    assert wallet.tokens.access_token != first
    assert len(person.asked) == 1
    assert "code_challenge_method=S256" in person.asked[0]
    session_id = claims(first)["sid"]
    assert claims(wallet.tokens.access_token)["sid"] == session_id
    opened = (await town.house.made.events(session_id))[0]
    assert opened[0] == "session.opened"
    assert (opened[1]["agent"], opened[1]["user"], opened[1]["task"]) == ("bot", "ana", "selling")
    kinds = await town.house.made.kinds(session_id)
    assert kinds.count("call.settled") == 2
