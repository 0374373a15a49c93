from __future__ import annotations

import asyncio

import pytest

from interlock.core.who import Lineage, Session
from interlock.release.model import Tool, ToolSource
from interlock.tools.connector import McpConnector
from interlock.tools.directory import Connectors, connection_key
from interlock.tools.errors import CallFailedError
from interlock.tools.keyed import Keyed
from interlock.tools.limits import ToolLimits
from interlock.tools.port import ConnectionKey, ToolAnswer, ToolFailure
from tests.support.patience import PATIENCE_S
from tests.tools.worlds import RawServer, Request, StillClock, Wire, invocation, release, shop


async def answers(wire: Wire, request: Request) -> None:
    await wire.answer(request)


def session(user: str = "ana", tenant: str = "acme", agent: str = "bot") -> Session:
    lineage = Lineage(tenant=tenant, environment="test", agent=agent, user=user)
    return Session(session_id="s", lineage=lineage, task="t", roles=(), expires_at_us=0)


def connectors(**limits: float) -> Connectors:
    return Connectors(environment="test", clock=StillClock(), limits=ToolLimits(**limits))  # type: ignore[arg-type]  # ints are floats


def test_connections_of_a_stateful_tool_are_keyed_by_everyone_involved() -> None:
    tool = shop(url="http://x/", credential="env:A", stateless=False)
    keys = {
        connection_key(tool, session()),
        connection_key(tool, session(user="ben")),
        connection_key(tool, session(tenant="globex")),
        connection_key(tool, session(agent="other")),
        connection_key(shop(url="http://x/", credential="env:B", stateless=False), session()),
    }
    assert len(keys) == 5


def test_a_stateless_tool_shares_its_connections() -> None:
    tool = shop(url="http://x/")
    assert connection_key(tool, session()) == connection_key(tool, session(user="ben", tenant="globex"))


async def test_a_tool_without_a_source_in_this_environment_has_no_connector() -> None:
    made = connectors()
    made.replace(release(Tool(name="shop", sources={"prod": ToolSource(url="http://x/")})))
    assert made.get("shop") is None
    assert made.get("unknown") is None


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"url": "http://x/", "command": ("a",)},
        {"url": "ftp://x/"},
        {"url": "http://user:pass-1234@x/"},
        {"url": "http://x/ \r\nEvil: 1"},
        {"url": "http:///nothing"},
        {"url": "http://x/", "credential": "hunter2"},
        {"url": "http://x/", "credential": "env:A-B"},
        {"python": "app:"},
    ],
)
async def test_a_source_that_cannot_be_used_makes_every_call_fail_unsent(source: dict[str, str]) -> None:
    made = connectors()
    made.replace(release(shop(**source)))
    connector = made.get("shop")
    assert connector is not None
    result = await connector.invoke(invocation())
    assert isinstance(result, ToolFailure)
    assert not result.sent
    assert "pass-1234" not in result.detail
    assert "hunter2" not in result.detail


async def test_an_unknown_protocol_is_refused() -> None:
    made = connectors()
    made.replace(release(shop("2031-01-01", url="http://x/")))
    connector = made.get("shop")
    assert connector is not None
    assert isinstance(await connector.invoke(invocation()), ToolFailure)


async def test_a_new_release_keeps_what_has_not_changed_and_replaces_what_has() -> None:
    made = connectors()
    made.replace(release(shop(url="http://a/"), shop(name="other", url="http://b/")))
    same, changed = made.get("shop"), made.get("other")
    made.replace(release(shop(url="http://a/"), shop(name="other", url="http://c/")))
    assert made.get("shop") is same
    assert made.get("other") is not changed
    assert made.tool("other").sources["test"].url == "http://c/"
    await made.aclose()
    assert made.get("shop") is None


async def test_a_call_under_way_ends_well_although_the_new_release_has_dropped_its_tool() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def waits(wire: Wire, request: Request) -> None:
        arrived.set()
        await go.wait()
        await wire.answer(request)

    async with RawServer(waits) as server:
        made = connectors(retire_grace_s=0.0)
        made.replace(release(shop(url=server.url)))
        connector = made.get("shop")
        assert isinstance(connector, McpConnector)
        call = asyncio.ensure_future(connector.invoke(invocation()))
        await asyncio.wait_for(arrived.wait(), PATIENCE_S)
        made.replace(release())
        retiring = list(made._retiring)
        assert made.get("shop") is None
        go.set()
        assert isinstance(await call, ToolAnswer)
        await asyncio.wait_for(asyncio.gather(*retiring), PATIENCE_S)
        late = await connector.invoke(invocation())
        assert isinstance(late, ToolFailure)
        assert not late.sent
        await made.aclose()


class Thing:
    def __init__(self, key: ConnectionKey) -> None:
        self.key = key
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True


def keyed(clock: StillClock) -> Keyed[Thing]:
    return Keyed(Thing, keys_max=2, idle_s=60, clock=clock)


def key(user: str) -> ConnectionKey:
    return ConnectionKey(tool="shop", user=user)


async def test_the_number_of_keys_is_bounded_and_what_is_in_use_is_never_closed() -> None:
    things = keyed(StillClock())
    ana, ben = things.take(key("ana")), things.take(key("ben"))
    with pytest.raises(CallFailedError):
        things.take(key("cem"))
    things.give(key("ben"))
    things.take(key("cem"))
    await asyncio.sleep(0)
    assert (ana.closed, ben.closed, len(things)) == (False, True, 2)
    await things.aclose()
    assert ana.closed


async def test_keys_that_nobody_uses_are_closed_after_a_while() -> None:
    clock = StillClock()
    things = keyed(clock)
    ana, ben = things.take(key("ana")), things.take(key("ben"))
    things.give(key("ben"))
    clock.now_s += 61
    things.sweep()
    await asyncio.sleep(0)
    assert (ana.closed, ben.closed) == (False, True)
    await things.aclose()
