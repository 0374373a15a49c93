"""An ordinary MCP client finds out where to log in, logs in, and calls a tool: the SDK's own client, a real issuer, PKCE and all."""

import contextlib
from urllib.parse import parse_qs, urlsplit

import pytest
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

from tests.identity.house import house
from tests.support.listening import bound
from tests.support.patience import patient_http
from tests.support.wallet import Wallet

CALLBACK = "http://127.0.0.1:9/callback"
DOCUMENT = "https://client.example/oauth/client.json"


class Browser:
    """The person's browser: goes where it is sent, and brings back what it was redirected with."""

    async def goes(self, url):
        async with patient_http() as http:
            answer = await http.get(url)
        self.query = parse_qs(urlsplit(answer.headers["location"]).query)

    async def comes_back(self):
        return AuthorizationCodeResult(code=self.query["code"][0], state=self.query["state"][0])


@contextlib.asynccontextmanager
async def client(shop, mode, *, document=None):
    browser, wallet = Browser(), Wallet()
    metadata = OAuthClientMetadata(redirect_uris=[CALLBACK], client_name="an ordinary client", scope="tools")
    auth = OAuthClientProvider(
        f"{shop.url}/mcp", metadata, wallet, browser.goes, browser.comes_back, client_metadata_url=document
    )
    async with patient_http(auth=auth) as http:
        transport = streamable_http_client(f"{shop.url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as opened:
            yield opened, wallet


@pytest.fixture
async def shop(database_urls, tmp_path, issuer):
    at = bound()
    resource = f"http://127.0.0.1:{at.getsockname()[1]}/mcp"
    agents = f"""
desktop: {{test: {{issuer: corp, subject: "{DOCUMENT}"}}, grants: [{{on: [shop.stock], for: {{roles: [Staff]}}}}]}}
anyone: {{test: {{issuer: corp, subject: "*"}}, grants: [{{on: [shop.stock], for: {{roles: [Staff]}}}}]}}
"""
    tasks = "looking: {purpose: look, open_to: [Staff], agents: [desktop, anyone]}\n"
    async with house(database_urls.app, tmp_path, issuer, at=at, audience=resource, agents=agents, tasks=tasks) as running:
        yield running


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
@pytest.mark.parametrize(("document", "agent"), [(DOCUMENT, "desktop"), (None, "anyone")])
async def test_the_sdks_client_logs_in_by_itself_and_calls_a_tool(shop, issuer, mode, document, agent):
    async with client(shop, mode, document=document) as (opened, wallet):
        assert [tool.name for tool in (await opened.list_tools()).tools] == ["shop.stock"]
        answer = await opened.call_tool("shop.stock", {"item": "tea"})
        assert answer.structured_content == {"item": "tea", "left": 3}
        session = await shop.session(wallet.tokens.access_token)
    assert (session.lineage.agent, session.lineage.user, session.task) == (agent, "ana", "looking")
    (code,) = issuer.seen
    # The client asked for a token for us (RFC 8707), for the scopes we name.
    assert (code.resource, code.scopes) == (f"{shop.url}/mcp", ["tools"])
    assert await shop.system.database.pool().fetchval("SELECT count(*) FROM session") == 1


@pytest.mark.parametrize("path", ["", "/mcp"])
async def test_the_metadata_names_us_and_where_to_log_in(shop, issuer, path):
    answer = await shop.ask("GET", f"/.well-known/oauth-protected-resource{path}")
    assert answer.json() == {
        "resource": f"{shop.url}{path}",
        "authorization_servers": [issuer.url],
        "bearer_methods_supported": ["header"],
        "resource_name": "Interlock",
        "scopes_supported": ["tools"],
    }


async def test_the_challenge_leads_to_the_metadata_and_says_error_only_when_there_was_a_token(shop):
    for token in ("", shop.token(exp=1), "nonsense"):
        answer = await shop.ask("POST", "/mcp", token=token, body={})
        assert answer.status_code == 401
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith("Bearer ")
        assert f'resource_metadata="{shop.url}/.well-known/oauth-protected-resource/mcp"' in challenge
        assert ('error="invalid_token"' in challenge) == bool(token)
        (found,) = [part.split('"')[1] for part in challenge.split(", ") if "resource_metadata" in part]
        assert (await shop.ask("GET", urlsplit(found).path)).status_code == 200


async def test_issuers_of_other_environments_and_those_that_nobody_logs_in_with_are_not_named(database_urls, tmp_path, issuer):
    more = """
elsewhere: {kind: oidc, issuer: https://staging.example, environments: {staging: [x]}, people: {tenant: {fixed: acme}}, agents: {delegated: true}}
machines: {kind: oidc, issuer: https://machines.example, environments: {test: [x]}, agents: {}}
quiet: {kind: oidc, issuer: https://quiet.example, advertise: false, environments: {test: [x]}, people: {tenant: {fixed: acme}}, agents: {delegated: true}}
azure: {kind: entra, environments: {test: [x]}, tenants: {11111111-2222-3333-4444-555555555555: acme}, people: {}, agents: {delegated: true}}
"""
    async with house(database_urls.app, tmp_path, issuer, more_issuers=more) as running:
        listed = (await running.ask("GET", "/.well-known/oauth-protected-resource/mcp")).json()["authorization_servers"]
    assert listed == [issuer.url, "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0"]


async def test_a_public_url_takes_the_place_of_what_the_proxy_wrote(shop):
    shop.system.plane.doors.public_url = "https://interlock.example"
    found = (await shop.ask("GET", "/.well-known/oauth-protected-resource/mcp")).json()
    assert found["resource"] == "https://interlock.example/mcp"
    challenge = (await shop.ask("POST", "/mcp", body={})).headers["www-authenticate"]
    assert 'resource_metadata="https://interlock.example/.well-known/oauth-protected-resource/mcp"' in challenge
    # An enforcement point that was told the address behind the proxy would send its token there in the clear.
    authzen = (await shop.ask("GET", "/.well-known/authzen-configuration")).json()
    assert authzen["access_evaluation_endpoint"] == "https://interlock.example/access/v1/evaluation"
