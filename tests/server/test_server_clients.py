"""The SDK's own client against the server as `interlock up` bounds it, in each way it can connect."""

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.server.standin import STATELESS, door
from tests.support.patience import patient_http


@pytest.mark.parametrize("mode", [STATELESS, "legacy", "auto"])
async def test_the_sdks_client_connects_lists_and_calls_however_it_negotiates(mode):
    async with door() as at, patient_http(headers={"authorization": "Bearer token-ana"}) as http:
        async with Client(streamable_http_client(at.url + "/mcp", http_client=http), mode=mode) as client:
            (tool,) = (await client.list_tools()).tools
            assert (tool.name, tool.title, tool.annotations.idempotent_hint) == ("shop.pay", "Pay", True)
            answer = await client.call_tool("shop.pay", {"n": 1}, meta={"interlock/idempotency-key": "k"})
            assert answer.content[0].text == "done"
            assert not answer.is_error
        ((user, proposal),) = at.gate.proposals
        assert (user, proposal.operation, proposal.idempotency_key) == ("token-ana", "shop.pay", "k")


@pytest.mark.parametrize("mode", [STATELESS, "legacy"])
async def test_the_sdks_client_is_told_when_its_token_is_refused(mode):
    async with door() as at, patient_http(headers={"authorization": "Bearer other"}) as http:
        with pytest.raises((MCPError, httpx2.HTTPStatusError, ExceptionGroup)):
            async with Client(streamable_http_client(at.url + "/mcp", http_client=http), mode=mode) as client:
                await client.list_tools()
        assert at.gate.proposals == []
