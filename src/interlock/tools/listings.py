"""What servers list: tools, prompts, resources and resource templates, page by page, each as a reviewer is shown it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from interlock.core.contract import Kind
from interlock.core.listing import ListedTool
from interlock.core.uris import TemplateError, variables
from interlock.tools.errors import CallFailedError
from interlock.tools.limits import ToolLimits
from interlock.tools.messages import METHOD_NOT_FOUND, Message, decoded, error_of

TOOLS: Final = frozenset({Kind.TOOL})
_LISTS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.TOOL: ("tools/list",),
    Kind.PROMPT: ("prompts/list",),
    Kind.RESOURCE: ("resources/list", "resources/templates/list"),
}
_DECLARED: Final = {Kind.PROMPT: "prompts", Kind.RESOURCE: "resources"}
Ask: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[Message]]


class _Named(msgspec.Struct, kw_only=True):
    name: str
    title: str | None = None
    description: str | None = None


class _Tool(_Named, kw_only=True):
    input_schema: dict[str, Any] = msgspec.field(name="inputSchema")
    output_schema: dict[str, Any] | None = msgspec.field(name="outputSchema", default=None)
    annotations: dict[str, Any] | None = None


class _Argument(_Named, kw_only=True):
    required: bool = False


class _Prompt(_Named, kw_only=True):
    arguments: tuple[_Argument, ...] | None = None


class _Resource(_Named, kw_only=True):
    uri: str = ""
    template: str = msgspec.field(name="uriTemplate", default="")
    mime_type: str | None = msgspec.field(name="mimeType", default=None)


class _Page(msgspec.Struct, kw_only=True):
    tools: list[_Tool] | None = None
    prompts: list[_Prompt] | None = None
    resources: list[_Resource] | None = None
    templates: list[_Resource] | None = msgspec.field(name="resourceTemplates", default=None)
    cursor: str | None = msgspec.field(name="nextCursor", default=None)


_PAGE: Final = msgspec.json.Decoder(_Page)
_ENCODER: Final = msgspec.json.Encoder()


async def everything(ask: Ask, kinds: frozenset[Kind], declared: frozenset[str], limits: ToolLimits) -> tuple[ListedTool, ...]:
    """All that a server lists of these kinds; `ask` sends a request to it. Raises `CallFailedError`.

    For prompts and resources it is asked where it has declared them: some servers do not answer what they do not know.
    """
    found: list[ListedTool] = []
    for kind, methods in _LISTS.items():
        asked = kind in kinds and _DECLARED.get(kind, "") in {"", *declared}
        for method in methods if asked else ():
            found += await _whole(ask, method, limits)
    return tuple(found)


async def _whole(ask: Ask, method: str, limits: ToolLimits) -> list[ListedTool]:
    found: list[ListedTool] = []
    seen: set[str] = set()
    params: dict[str, Any] = {}
    while True:
        message = await ask(method, params)
        if error_of(message)[0] == METHOD_NOT_FOUND and method != "tools/list":
            return found
        page, cursor = read_page(message, method)
        found += page
        if len(found) > limits.listing_max_tools and method == "resources/list":
            # Some list every file there is. What is not read is taken for not listed, which a server may do anyway.
            return found[: limits.listing_max_tools]
        if len(found) > limits.listing_max_tools:
            raise CallFailedError("too_large", f"more than {limits.listing_max_tools} entries listed by {method}")
        if cursor is None:
            return found
        if cursor in seen or len(seen) >= limits.listing_max_pages:
            raise CallFailedError("protocol", "the listing does not end")
        seen.add(cursor)
        params = {"cursor": cursor}


def read_page(message: Message, method: str = "tools/list") -> tuple[list[ListedTool], str | None]:
    """One page of a listing and the cursor of the next, if any. Raises `CallFailedError`."""
    code, text = error_of(message)
    if code:
        raise CallFailedError("protocol", f"the listing was refused ({code}): {text[:200]}")
    page = decoded(_PAGE, message)
    match method:
        case "tools/list" if page.tools is not None:
            return [_tool(item) for item in page.tools], page.cursor
        case "prompts/list" if page.prompts is not None:
            return [_prompt(item) for item in page.prompts], page.cursor
        case "resources/list" if page.resources is not None:
            return [_resource(item, item.uri) for item in page.resources], page.cursor
        case "resources/templates/list" if page.templates is not None:
            return [_resource(item, item.template) for item in page.templates], page.cursor
    raise CallFailedError("protocol", f"the answer to {method} lists nothing of the kind")


def _tool(tool: _Tool) -> ListedTool:
    return ListedTool(
        name=tool.name,
        title=tool.title or "",
        description=tool.description or "",
        input_schema=_text(tool.input_schema),
        output_schema=None if tool.output_schema is None else _text(tool.output_schema),
        hints=tool.annotations or {},
    )


def _prompt(prompt: _Prompt) -> ListedTool:
    """Its arguments as the schema that the contract of a prompt has."""
    said = prompt.arguments or ()
    properties = {
        item.name: {
            "type": "string",
            **({"title": item.title} if item.title else {}),
            **({"description": item.description} if item.description else {}),
        }
        for item in said
    }
    schema = _object(properties, [item.name for item in said if item.required])
    if len(properties) != len(said):
        # Two of one name: whoever reads this must not see one of them only.
        schema["repeated"] = [msgspec.to_builtins(item) for item in said]
    return ListedTool(
        kind=Kind.PROMPT,
        name=prompt.name,
        title=prompt.title or "",
        description=prompt.description or "",
        input_schema=_text(schema),
    )


def _resource(resource: _Resource, uri: str) -> ListedTool:
    """Under its URI or template, by which its contract knows it."""
    if not uri:
        raise CallFailedError("protocol", "a resource without its URI is listed")
    try:
        names = variables(uri)
    except TemplateError:
        names = ()  # a template that no contract can have
    hints = {"name": resource.name} | ({"mimeType": resource.mime_type} if resource.mime_type else {})
    return ListedTool(
        kind=Kind.RESOURCE,
        name=uri,
        title=resource.title or "",
        description=resource.description or "",
        input_schema=_text(_object({name: {"type": "string"} for name in names}, list(names))),
        hints=hints,
    )


def _object(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _text(schema: Mapping[str, Any]) -> str:
    return _ENCODER.encode(schema).decode()
