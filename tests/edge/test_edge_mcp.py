"""Everything that MCP has, through the gate, between clients and servers of either revision."""

import asyncio

import mcp_types as types
import msgspec
import pytest
from mcp.shared.exceptions import MCPError

from bench.conformance.release import contracts
from tests.edge.conftest import STATEFUL, STATELESS
from tests.support.patience import patient_http

# What the newest revision has deprecated is still to be had.
pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
REVISIONS = [(client, server) for client in (STATELESS, STATEFUL) for server in (STATELESS, STATEFUL)]
PROMPT = types.PromptReference(type="ref/prompt", name="test_prompt_with_arguments")


@pytest.mark.parametrize(("client", "server"), REVISIONS)
async def test_clients_of_either_revision_get_all_that_servers_of_either_offer(edge, client, server):
    async with edge(server) as it, it.client(client, log_level="info") as (mcp, told):
        names = {tool.name for tool in (await mcp.list_tools()).tools}
        assert "test_simple_text" in names
        assert "newcomer" not in names
        picture = await mcp.call_tool("test_multiple_content_types", {})
        assert [block.type for block in picture.content] == ["text", "image", "resource"]
        assert (await mcp.call_tool("test_audio_content", {})).content[0].type == "text"  # its contract does not let it pass
        assert (await mcp.call_tool("test_resource_link", {})).content[0].uri == "test://static-text"
        assert {str(item.uri) for item in (await mcp.list_resources()).resources} >= {"test://static-text"}
        templates = (await mcp.list_resource_templates()).resource_templates
        assert [item.uri_template for item in templates] == ["test://template/{id}/data"]
        read = await mcp.read_resource("test://template/123/data")
        assert '"id": "123"' in read.contents[0].text
        assert read.meta["interlock/labels"]["source"] == "everything.template"
        assert (await mcp.read_resource("test://static-binary")).contents[0].blob
        prompt = await mcp.get_prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "b"})
        assert "arg1='a'" in prompt.messages[0].content.text
        assert (await mcp.complete(PROMPT, {"name": "arg1", "value": "par"})).completion.values == ["paris", "park", "party"]
        await mcp.call_tool("test_tool_with_progress", {}, progress_callback=told.progressed)
        assert told.progress == [(0, 100, None), (50, 100, None), (100, 100, None)]
        await mcp.call_tool("test_tool_with_logging", {})
        assert told.logs == ["Tool execution started", "Tool processing data", "Tool execution completed"]
        # On the older revision the server ends the stream in the middle, and means it to be taken up again.
        assert "came after" in (await mcp.call_tool("test_reconnection", {})).content[0].text
        with pytest.raises(MCPError, match="no such tool") as unknown:
            await mcp.read_resource("test://elsewhere")
        assert unknown.value.error.data["uri"] == "test://elsewhere"


@pytest.fixture(autouse=True)
def audio_is_kept_out(monkeypatch):
    """The contract of one tool does not let sounds pass."""
    monkeypatch.setattr("bench.conformance.release._MEDIA", {"test_multiple_content_types": ["image"], **LOGS})


LOGS = {name: ["log"] for name in ("test_tool_with_logging", "test_logging_tool")}
ASKING = {
    (STATEFUL, STATEFUL): ("test_elicitation", {"message": "Who?"}, "elicitation"),
    (STATEFUL, STATELESS): ("test_input_required_result_multiple_inputs", {}, "elicitation"),
    (STATELESS, STATELESS): ("test_input_required_result_multiple_inputs", {}, "elicitation"),
    (STATELESS, STATEFUL): ("test_elicitation", {"message": "Who?"}, "elicitation"),
}


@pytest.mark.parametrize(("client", "server"), sorted(ASKING))
async def test_what_a_tool_asks_reaches_the_client_labelled_and_is_on_record(edge, client, server):
    name, arguments, kind = ASKING[client, server]
    async with edge(server) as it:
        token, session = await it.token()
        async with it.client(client, token=token) as (mcp, told):
            answer = await mcp.call_tool(name, arguments)
        assert not answer.is_error
        messages = [text for found, text in told.asked if found == kind]
        assert messages[0].startswith(f"[asked by the tool everything.{name}] ")
        kinds = await it.events(session)
        if server == STATEFUL:
            assert kinds[-3:] == ["call.asked", "call.answered", "call.settled"]
        else:
            # Each leg is a call of its own: decided, claimed and settled.
            assert kinds.count("call.settled") == 2
            bodies = [msgspec.json.decode(event.body) for event in await it.system.traces.events(session.session_id)]
            assert any(body.get("answers") for body in bodies)


@pytest.mark.parametrize("client", [STATELESS, STATEFUL])
async def test_a_write_that_asks_goes_on_with_the_answers_as_one_claim(edge, client):
    name = "test_input_required_result_multiple_inputs"
    writes = {name: {**contracts()[name], "effects": ["write"]}}
    async with edge(STATELESS, writes) as it:
        token, session = await it.token()
        async with it.client(client, token=token) as (mcp, told):
            answer = await mcp.call_tool(name, {})
        assert not answer.is_error
        assert told.asked
        bodies = [msgspec.json.decode(event.body) for event in await it.system.traces.events(session.session_id)]
        settled = [body for body in bodies if "took_us" in body]
        assert [(body["attempt"], body["state"]) for body in settled] == [(1, "in_doubt"), (2, "succeeded")]
        assert len({body["claim_id"] for body in settled}) == 1


@pytest.mark.parametrize(("client", "server"), [(STATEFUL, STATEFUL), (STATELESS, STATELESS), (STATELESS, STATEFUL)])
async def test_what_the_contract_does_not_let_a_tool_ask_reaches_nobody(edge, client, server):
    name = "test_elicitation" if server == STATEFUL else "test_input_required_result_elicitation"
    silent = {operation: {**written, "passes": []} for operation, written in contracts().items() if operation == name}
    async with edge(server, silent) as it, it.client(client) as (mcp, told):
        answer = await mcp.call_tool(name, {"message": "Who?"} if server == STATEFUL else {})
        assert answer.is_error
        assert told.asked == []


async def test_a_client_that_offers_nothing_is_told_what_the_tool_needs(edge):
    async with edge(STATELESS) as it, it.client(STATELESS, offers=False) as (mcp, _):
        with pytest.raises(MCPError) as missing:
            await mcp.call_tool("test_missing_capability", {})
        assert (missing.value.error.code, missing.value.error.data) == (-32021, {"requiredCapabilities": {"sampling": {}}})


async def test_the_state_of_a_call_is_of_no_use_to_another_user_or_for_another_call(edge):
    name = "test_input_required_result_request_state"
    async with edge(STATELESS) as it:
        (ana, _), (ben, _) = await it.token(), await it.token("ben")
        first = await post(it, ana, "tools/call", {"name": name, "arguments": {}})
        state = first["result"]["requestState"]
        answered = {"confirm": {"action": "accept", "content": {"ok": True}}}
        again = {"name": name, "arguments": {}, "inputResponses": answered, "requestState": state}
        assert (await post(it, ben, "tools/call", again))["error"]["code"] == -32602
        other = {**again, "name": "test_input_required_result_multi_round"}
        assert (await post(it, ana, "tools/call", other))["error"]["code"] == -32602
        assert (await post(it, ana, "tools/call", again))["result"]["content"][0]["text"] == "state-ok"


async def test_headers_that_do_not_say_what_the_arguments_say_are_refused(edge):
    async with edge(STATELESS) as it:
        token, _ = await it.token()
        call = {"name": "test_custom_headers", "arguments": {"region": "north", "priority": 2}}
        good = {"mcp-param-region": "north", "mcp-param-priority": "2"}
        assert "result" in await post(it, token, "tools/call", call, **good)
        for bad in (
            {},
            {**good, "mcp-param-region": "south"},
            {"mcp-param-region": "north"},
            {**good, "mcp-param-priority": "3"},
        ):
            assert (await post(it, token, "tools/call", call, **bad))["error"]["code"] == -32020


@pytest.mark.parametrize(("client", "server"), [(STATELESS, STATELESS), (STATEFUL, STATEFUL)])
async def test_a_server_whose_listing_changes_is_read_again_and_clients_are_told(edge, client, server):
    async with edge(server) as it, it.client(client) as (mcp, told):
        await mcp.list_tools()
        looked = asyncio.Event()
        look_at = it.system.upstreams.look_at

        async def noted(tool):
            await look_at(tool)
            looked.set()

        it.system.upstreams.listening._look_at = noted
        if client == STATELESS:
            async with mcp.listen(tools_list_changed=True) as changes:
                await changed_until(mcp, it, looked)
                assert type(await anext(aiter(changes))).__name__ == "ToolsListChanged"
        else:
            await changed_until(mcp, it, looked)
            while (await told.heard.get()).method != "notifications/tools/list_changed":
                pass
        # What came is no operation of the release: nobody sees it.
        assert "newcomer" not in {tool.name for tool in (await mcp.list_tools()).tools}


async def changed_until(mcp, it, looked):
    """Change the server's listing until it was heard: the stream to it may not be open at once."""
    it.system.upstreams._followed = 0
    await it.system.upstreams.tend()
    while not looked.is_set():
        await mcp.call_tool("test_trigger_tool_change", {})


async def test_a_listing_has_pages_and_a_cursor_of_nobody_is_refused(edge, monkeypatch):
    monkeypatch.setattr("interlock.server.mcp_methods.MAX_PAGE_ENTRIES", 10)
    async with edge(STATELESS) as it, it.client(STATELESS) as (mcp, _):
        found, cursor = [], None
        while cursor is not None or not found:
            page = await mcp.list_tools(cursor=cursor)
            found, cursor = found + page.tools, page.next_cursor
        assert len({tool.name for tool in found}) == len(found) > 20
        with pytest.raises(MCPError, match="none of ours"):
            await mcp.list_tools(cursor="bm9uc2Vuc2U=")


async def post(it, token, method, params, **headers):
    meta = {
        "io.modelcontextprotocol/protocolVersion": STATELESS,
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "sampling": {}, "roots": {}},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    named = {"mcp-protocol-version": STATELESS, "mcp-method": method, "mcp-name": params["name"], **headers}
    async with patient_http(headers={"authorization": f"Bearer {token}", **named}) as http:
        return (await http.post(f"http://127.0.0.1:{it.port}/mcp/everything", json=body)).json()
