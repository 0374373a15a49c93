"""A server that offers all that the official conformance suite asks for: `python -m bench.conformance.everything PORT`.

It speaks both revisions. Some tools ask the client while they run (2025-11-25) or answer that they need input (2026-07-28),
each under the name by which the suite of that revision calls it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import socket
import sys
import warnings
from collections.abc import Mapping
from typing import Any, Final

import mcp_types as types
import uvicorn
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

from bench.conformance.offered import DEFAULTS, ENUMS, NOTHING, PNG, PROMPTS, RESOURCES, TEMPLATE, TOOLS, WAV

# The suite asks for what the newest revision has deprecated, too.
warnings.simplefilter("ignore", MCPDeprecationWarning)

PAUSE_S: Final = 0.05
MISSING_CAPABILITY: Final = -32021
INVALID_PARAMS: Final = -32602
STATELESS: Final = "2026-07-28"
CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
_SECRET: Final = b"only this process knows it"


class Kept(EventStore):
    """Events in memory, so that a stream can be taken up again."""

    def __init__(self) -> None:
        self._events: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id)
        if not 0 < last <= len(self._events):
            return None
        stream = self._events[last - 1][0]
        for number, (of, message) in enumerate(self._events[last:], last + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def _text(text: str, **more: Any) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], **more)


def _form(message: str, *names: str, kind: str = "string") -> dict[str, Any]:
    schema = {"type": "object", "properties": {name: {"type": kind} for name in names}, "required": list(names)}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def _sampling(text: str, tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": {"type": "text", "text": text}}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": tokens}}


_ROOTS: Final[Mapping[str, Any]] = {"method": "roots/list", "params": {}}


def _need(requests: Mapping[str, Any], state: str | None = None) -> types.InputRequiredResult:
    return types.InputRequiredResult.model_validate(
        {"resultType": "input_required", "inputRequests": requests, **({} if state is None else {"requestState": state})}
    )


def _sealed(state: str) -> str:
    return f"{state}.{hmac.new(_SECRET, state.encode(), hashlib.sha256).hexdigest()}"


def _opened(sealed: str | None) -> str:
    state = (sealed or "").rpartition(".")[0]
    if not sealed or not hmac.compare_digest(_sealed(state), sealed):
        raise MCPError(INVALID_PARAMS, "the requestState is not one of ours")
    return state


class Everything:
    """The handlers."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self.more_tools = False
        self.more_prompts = False
        self.subscribed: dict[str, Any] = {}

    async def list_tools(self, ctx: Any, params: Any) -> types.ListToolsResult:
        tools = [
            types.Tool(name=name, description=f"The suite's {name}.", input_schema=dict(schema))
            for name, schema in TOOLS.items()
        ]
        if self.more_tools:
            tools.append(types.Tool(name="newcomer", description="Came later.", input_schema=dict(NOTHING)))
        return types.ListToolsResult(tools=tools)

    async def call_tool(
        self, ctx: Any, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        handler = getattr(self, f"_{params.name}", None)
        if params.name not in TOOLS or handler is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
        return await handler(ctx, params)  # type: ignore[no-any-return]  # as every handler below

    async def list_resources(self, ctx: Any, params: Any) -> types.ListResourcesResult:
        listed = [
            types.Resource(uri=uri, name=uri.rpartition("/")[2], description=f"The suite's {uri}.", mime_type=content.mime_type)
            for uri, content in RESOURCES.items()
        ]
        return types.ListResourcesResult(resources=listed)

    async def list_templates(self, ctx: Any, params: Any) -> types.ListResourceTemplatesResult:
        template = types.ResourceTemplate(
            uri_template=TEMPLATE, name="template", description="Data by id.", mime_type="application/json"
        )
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(self, ctx: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        uri = str(params.uri)
        if uri in RESOURCES:
            return types.ReadResourceResult(contents=[RESOURCES[uri]])
        before, after = TEMPLATE.split("{id}")
        found = uri.removeprefix(before).removesuffix(after)
        if not (uri.startswith(before) and uri.endswith(after)) or "/" in found or not found:
            raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})
        text = json.dumps({"id": found, "templateTest": True, "data": f"Data for ID: {found}"})
        content = types.TextResourceContents(uri=uri, mime_type="application/json", text=text)
        return types.ReadResourceResult(contents=[content])

    async def subscribe(self, ctx: Any, params: Any) -> types.EmptyResult:
        self.subscribed[ctx.request.headers.get("mcp-session-id", "")] = ctx.session
        return types.EmptyResult()

    async def unsubscribe(self, ctx: Any, params: Any) -> types.EmptyResult:
        return types.EmptyResult()

    async def _tell(self, ctx: Any, method: str) -> None:
        """Tell whoever watches something, and who is calling, on the streams that the older revisions keep open."""
        if ctx.protocol_version == STATELESS:
            return
        for session in (*self.subscribed.values(), ctx.session):
            with contextlib.suppress(Exception):  # one that has ended
                await getattr(session, method)()

    async def list_prompts(self, ctx: Any, params: Any) -> types.ListPromptsResult:
        prompts = [
            types.Prompt(
                name=name,
                description=f"The suite's {name}.",
                arguments=[types.PromptArgument(name=a, description=a, required=True) for a in arguments] or None,
            )
            for name, arguments in PROMPTS.items()
        ]
        if self.more_prompts:
            prompts.append(types.Prompt(name="newcomer", description="Came later."))
        return types.ListPromptsResult(prompts=prompts)

    async def get_prompt(
        self, ctx: Any, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult | types.InputRequiredResult:
        given, said = params.arguments or {}, lambda content: types.PromptMessage(role="user", content=content)
        words = lambda text: said(types.TextContent(type="text", text=text))  # noqa: E731  # a shorthand
        match params.name:
            case "test_simple_prompt":
                messages = [words("This is a simple prompt for testing.")]
            case "test_prompt_with_arguments":
                messages = [words(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'")]
            case "test_prompt_with_embedded_resource":
                embedded = types.TextResourceContents(
                    uri=given.get("resourceUri", ""), mime_type="text/plain", text="Embedded resource content for testing."
                )
                resource = types.EmbeddedResource(type="resource", resource=embedded)
                messages = [said(resource), words("Please process the embedded resource above.")]
            case "test_prompt_with_image":
                image = types.ImageContent(type="image", data=PNG, mime_type="image/png")
                messages = [said(image), words("Please analyze the image above.")]
            case "test_input_required_result_prompt":
                answered = _form_of(params, "user_context")
                if answered is None:
                    return _need({"user_context": _form("What context should the prompt use?", "context")})
                messages = [words(f"In the context of {answered.get('context')}.")]
            case _:
                raise MCPError(INVALID_PARAMS, f"Unknown prompt: {params.name}")
        return types.GetPromptResult(description="For the suite.", messages=messages)

    async def complete(self, ctx: Any, params: types.CompleteRequestParams) -> types.CompleteResult:
        values = [word for word in ("paris", "park", "party", "test one") if word.startswith(params.argument.value)]
        return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))

    async def set_level(self, ctx: Any, params: Any) -> types.EmptyResult:
        return types.EmptyResult()

    # -- tools that answer at once -----------------------------------------------------------------------------------

    async def _test_simple_text(self, ctx: Any, params: Any) -> types.CallToolResult:
        return _text("This is a simple text response for testing.")

    async def _test_image_content(self, ctx: Any, params: Any) -> types.CallToolResult:
        return types.CallToolResult(content=[types.ImageContent(type="image", data=PNG, mime_type="image/png")])

    async def _test_audio_content(self, ctx: Any, params: Any) -> types.CallToolResult:
        return types.CallToolResult(content=[types.AudioContent(type="audio", data=WAV, mime_type="audio/wav")])

    async def _test_embedded_resource(self, ctx: Any, params: Any) -> types.CallToolResult:
        inside = types.TextResourceContents(
            uri="test://embedded-resource", mime_type="text/plain", text="This is an embedded resource content."
        )
        return types.CallToolResult(content=[types.EmbeddedResource(type="resource", resource=inside)])

    async def _test_multiple_content_types(self, ctx: Any, params: Any) -> types.CallToolResult:
        inside = types.TextResourceContents(
            uri="test://mixed-content-resource", mime_type="application/json", text='{"test":"data","value":123}'
        )
        return types.CallToolResult(
            content=[
                types.TextContent(type="text", text="Multiple content types test:"),
                types.ImageContent(type="image", data=PNG, mime_type="image/png"),
                types.EmbeddedResource(type="resource", resource=inside),
            ]
        )

    async def _test_resource_link(self, ctx: Any, params: Any) -> types.CallToolResult:
        return types.CallToolResult(content=[types.ResourceLink(type="resource_link", uri="test://static-text", name="text")])

    async def _test_error_handling(self, ctx: Any, params: Any) -> types.CallToolResult:
        return _text("This tool intentionally returns an error for testing", is_error=True)

    async def _json_schema_2020_12_tool(self, ctx: Any, params: Any) -> types.CallToolResult:
        return _text("The schema is what matters.")

    async def _test_custom_headers(self, ctx: Any, params: Any) -> types.CallToolResult:
        return _text("The headers said what the arguments say.")

    async def _test_missing_capability(self, ctx: Any, params: Any) -> types.CallToolResult:
        if "sampling" not in _capabilities(ctx):
            raise MCPError(MISSING_CAPABILITY, "This needs sampling", {"requiredCapabilities": {"sampling": {}}})
        return _text("The client can sample.")

    # -- tools that say how they get on ------------------------------------------------------------------------------

    async def _test_tool_with_logging(self, ctx: Any, params: Any) -> types.CallToolResult:
        for number, word in enumerate(("Tool execution started", "Tool processing data", "Tool execution completed")):
            await asyncio.sleep(PAUSE_S if number else 0)
            await ctx.session.send_log_message("info", word, related_request_id=ctx.request_id)
        return _text("It logged three times.")

    _test_logging_tool = _test_tool_with_logging

    async def _test_tool_with_progress(self, ctx: Any, params: Any) -> types.CallToolResult:
        for done in (0, 50, 100):
            await asyncio.sleep(PAUSE_S if done else 0)
            await ctx.session.report_progress(done, 100)
        return _text("It went all the way.")

    async def _test_reconnection(self, ctx: Any, params: Any) -> types.CallToolResult:
        if ctx.close_sse_stream is not None:
            await ctx.close_sse_stream()
        await asyncio.sleep(2 * PAUSE_S)
        return _text("The stream was closed, and this came after.")

    async def _test_trigger_tool_change(self, ctx: Any, params: Any) -> types.CallToolResult:
        self.more_tools = not self.more_tools
        await self.bus.publish(ToolsListChanged())
        await self._tell(ctx, "send_tool_list_changed")
        return _text("There are other tools now.")

    async def _test_trigger_prompt_change(self, ctx: Any, params: Any) -> types.CallToolResult:
        self.more_prompts = not self.more_prompts
        await self.bus.publish(PromptsListChanged())
        await self._tell(ctx, "send_prompt_list_changed")
        return _text("There are other prompts now.")

    # -- tools that ask the client while they run (2025-11-25) -------------------------------------------------------

    async def _test_sampling(self, ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        text = (params.arguments or {}).get("prompt", "")
        message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=text))
        said = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
        return _text(f"LLM response: {said.content.text}")

    async def _test_elicitation(self, ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        schema = _form("", "username", "email")["params"]["requestedSchema"]
        said = await ctx.session.elicit_form((params.arguments or {}).get("message", ""), schema, ctx.request_id)
        return _text(f"User response: action={said.action}, content={json.dumps(said.content)}")

    async def _elicit(self, ctx: Any, schema: Mapping[str, Any]) -> types.CallToolResult:
        said = await ctx.session.elicit_form("Please fill this in.", dict(schema), ctx.request_id)
        return _text(f"Elicitation completed: action={said.action}, content={json.dumps(said.content)}")

    async def _test_elicitation_sep1034_defaults(self, ctx: Any, params: Any) -> types.CallToolResult:
        return await self._elicit(ctx, DEFAULTS)

    async def _test_elicitation_sep1330_enums(self, ctx: Any, params: Any) -> types.CallToolResult:
        return await self._elicit(ctx, ENUMS)

    # -- tools that answer that they need input (2026-07-28) ---------------------------------------------------------

    async def _test_streaming_elicitation(self, ctx: Any, params: Any) -> types.CallToolResult | types.InputRequiredResult:
        answered = _form_of(params, "who")
        return _need({"who": _form("Who is it?", "name")}) if answered is None else _text(f"It is {answered.get('name')}.")

    async def _test_input_required_result_elicitation(
        self, ctx: Any, params: Any
    ) -> types.CallToolResult | types.InputRequiredResult:
        answered = _form_of(params, "user_name")
        if answered is None:
            return _need({"user_name": _form("What is your name?", "name")})
        return _text(f"Hello, {answered.get('name')}!")

    async def _test_input_required_result_sampling(
        self, ctx: Any, params: Any
    ) -> types.CallToolResult | types.InputRequiredResult:
        said = _answer(params, "capital_question", types.CreateMessageResult)
        if said is None:
            return _need({"capital_question": _sampling("What is the capital of France?", 100)})
        return _text(f"The model says: {said.content.text}")

    async def _test_input_required_result_list_roots(
        self, ctx: Any, params: Any
    ) -> types.CallToolResult | types.InputRequiredResult:
        said = _answer(params, "client_roots", types.ListRootsResult)
        if said is None:
            return _need({"client_roots": _ROOTS})
        return _text(", ".join(str(root.uri) for root in said.roots))

    async def _test_input_required_result_request_state(
        self, ctx: Any, params: Any
    ) -> types.CallToolResult | types.InputRequiredResult:
        if _form_of(params, "confirm") is None:
            return _need({"confirm": _form("Please confirm", "ok", kind="boolean")}, _sealed("asked"))
        _opened(params.request_state)
        return _text("state-ok")

    _test_input_required_result_tampered_state = _test_input_required_result_request_state

    async def _test_input_required_result_multiple_inputs(
        self, ctx: Any, params: Any
    ) -> types.CallToolResult | types.InputRequiredResult:
        name, roots = _form_of(params, "user_name"), _answer(params, "client_roots", types.ListRootsResult)
        greeting = _answer(params, "greeting", types.CreateMessageResult)
        if name is None or roots is None or greeting is None:
            requests = {
                "user_name": _form("What is your name?", "name"),
                "greeting": _sampling("Generate a greeting", 50),
                "client_roots": _ROOTS,
            }
            return _need(requests, _sealed("three"))
        _opened(params.request_state)
        return _text(f"{greeting.content.text} {name.get('name')}, with {len(roots.roots)} roots")

    async def _test_input_required_result_multi_round(
        self, ctx: Any, params: Any
    ) -> types.CallToolResult | types.InputRequiredResult:
        if params.request_state is None:
            return _need({"step1": _form("Step 1: What is your name?", "name")}, _sealed("1"))
        state = _opened(params.request_state)
        if state == "1":
            return _need({"step2": _form("Step 2: What is your favorite color?", "color")}, _sealed("2"))
        return _text("Both were answered.")

    async def _test_input_required_result_capabilities(
        self, ctx: Any, params: Any
    ) -> types.CallToolResult | types.InputRequiredResult:
        can, requests = _capabilities(ctx), {}
        if "sampling" in can:
            requests["greeting"] = _sampling("Generate a greeting", 50)
        if "elicitation" in can:
            requests["user_name"] = _form("What is your name?", "name")
        if not requests or params.input_responses:
            return _text("Nothing to ask.")
        return _need(requests)


def _capabilities(ctx: Any) -> Mapping[str, Any]:
    offered = ctx.session.client_capabilities
    return {} if offered is None else offered.model_dump(exclude_none=True)


def _answer(params: Any, key: str, kind: Any) -> Any:
    """What the client answered under a key, when it is of the right kind."""
    said = (params.input_responses or {}).get(key)
    return said if isinstance(said, kind) else None


def _form_of(params: Any, key: str) -> Mapping[str, Any] | None:
    said = _answer(params, key, types.ElicitResult)
    return None if said is None or said.action != "accept" else (said.content or {})


def make() -> Any:
    """The ASGI application, at `/mcp`."""
    here = Everything()
    server: Server[Any] = Server(
        "everything",
        version="1",
        on_list_tools=here.list_tools,
        on_call_tool=here.call_tool,
        on_list_resources=here.list_resources,
        on_list_resource_templates=here.list_templates,
        on_read_resource=here.read_resource,
        on_subscribe_resource=here.subscribe,
        on_unsubscribe_resource=here.unsubscribe,
        on_list_prompts=here.list_prompts,
        on_get_prompt=here.get_prompt,
        on_completion=here.complete,
        on_set_logging_level=here.set_level,
        on_subscriptions_listen=ListenHandler(here.bus),
    )
    return server.streamable_http_app(event_store=Kept(), retry_interval=100)


def main(port: int) -> None:
    """Serve until terminated; prints the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", port))
        listening.listen(128)
        print(listening.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(make(), log_level="error")).run(sockets=[listening])


if __name__ == "__main__":
    main(int(sys.argv[1]))
