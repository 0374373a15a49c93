"""Against servers made with the MCP SDK, both revisions, JSON and event streams."""

from __future__ import annotations

import asyncio

import pytest

from interlock.tools.port import Invocation, ToolAnswer, ToolUnavailableError
from tests.tools.conftest import Connect
from tests.tools.worlds import invocation, shop

BOTH = ["2026-07-28", "2025-11-25"]


@pytest.fixture(params=["json", "sse"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_server"))


def text(answer: object) -> str:
    assert isinstance(answer, ToolAnswer), answer
    return str(answer.content[0]["text"])


@pytest.mark.parametrize("protocol", BOTH)
async def test_a_call_returns_what_the_tool_said(server: str, protocol: str, connect: Connect) -> None:
    connector = connect(shop(protocol, url=server))
    assert text(await connector.invoke(invocation())) == "hello"
    added = await connector.invoke(invocation("add", b'{"a":1,"b":2}'))
    assert isinstance(added, ToolAnswer)
    assert added.structured == {"total": 3}
    assert not added.is_error


@pytest.mark.parametrize("protocol", BOTH)
async def test_many_calls_at_once_get_each_its_own_answer(server: str, protocol: str, connect: Connect) -> None:
    connector = connect(shop(protocol, url=server))
    answers = await asyncio.gather(
        *(connector.invoke(invocation(arguments=b'{"text":"%d"}' % n, timeout_ms=30_000)) for n in range(40))
    )
    assert [text(answer) for answer in answers] == [str(n) for n in range(40)]


@pytest.mark.parametrize("protocol", BOTH)
async def test_a_tool_that_fails_and_a_tool_that_is_unknown_both_answer_with_an_error(
    server: str, protocol: str, connect: Connect
) -> None:
    connector = connect(shop(protocol, url=server))
    for name in ("fail", "no_such_tool"):
        answer = await connector.invoke(invocation(name, b"{}"))
        assert isinstance(answer, ToolAnswer)
        assert answer.is_error


@pytest.mark.parametrize("protocol", BOTH)
async def test_progress_and_log_messages_go_no_further(server: str, protocol: str, connect: Connect) -> None:
    answer = await connect(shop(protocol, url=server)).invoke(invocation("chatty", b"{}"))
    assert text(answer) == "after all that"
    assert "secret progress" not in str(answer)


async def test_without_a_pin_the_stateless_revision_is_found(json_server: str, connect: Connect) -> None:
    assert text(await connect(shop(url=json_server)).invoke(invocation())) == "hello"


async def test_a_server_that_wants_to_ask_the_user_is_told_no(sse_server: str, connect: Connect) -> None:
    answer = await connect(shop("2025-11-25", url=sse_server)).invoke(invocation("asks", b"{}"))
    assert isinstance(answer, ToolAnswer)
    assert answer.is_error
    assert "asked: accept" not in str(answer)


@pytest.mark.parametrize("protocol", BOTH)
async def test_the_listing_names_every_tool_with_its_schemas(server: str, protocol: str, connect: Connect) -> None:
    listed = {tool.name: tool for tool in await connect(shop(protocol, url=server)).list_tools()}
    assert listed["add"].description == "Adds."
    assert '"required"' in listed["add"].input_schema
    assert listed["add"].output_schema is not None
    assert {"echo", "fail", "chatty"} <= set(listed)


async def test_arguments_that_a_stateless_server_wants_as_headers_are_mirrored(json_server: str, connect: Connect) -> None:
    listed = {tool.name: tool for tool in await connect(shop(url=json_server)).list_tools()}
    connector = connect(shop("2026-07-28", url=json_server), schemas={"route": listed["route"].input_schema})
    answer = await connector.invoke(invocation("route", '{"region":"Zürich"}'.encode()))
    assert text(answer) == "routed to Zürich"


async def test_the_permit_is_asked_once_for_each_call_on_new_and_on_kept_connections(
    json_server: str, connect: Connect
) -> None:
    connector = connect(shop(url=json_server))
    asked: list[int] = []

    def numbered(number: int) -> Invocation:
        return invocation(before_first_byte=lambda: asked.append(number))

    for number in range(3):
        await connector.invoke(numbered(number))
    assert asked == [0, 1, 2]


async def test_a_server_that_is_not_there_cannot_be_listed(connect: Connect) -> None:
    with pytest.raises(ToolUnavailableError, match="unreachable"):
        await connect(shop(url="http://127.0.0.1:1/mcp")).list_tools()
