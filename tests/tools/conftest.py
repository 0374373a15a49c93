from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from interlock.release.model import Tool
from interlock.tools.directory import Connectors
from interlock.tools.limits import ToolLimits
from interlock.tools.port import Connector
from tests.tools.sdk_server import make
from tests.tools.worlds import StillClock, release, serving

Connect = Callable[..., Connector]


@pytest.fixture(scope="module")
def json_server() -> Iterator[str]:
    with serving(make().streamable_http_app(json_response=True)) as url:
        yield url + "/mcp"


@pytest.fixture(scope="module")
def sse_server() -> Iterator[str]:
    with serving(make().streamable_http_app(json_response=False)) as url:
        yield url + "/mcp"


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
async def connect(clock: StillClock) -> AsyncIterator[Connect]:
    opened: list[Connectors] = []

    def one(tool: Tool, *, schemas: dict[str, str] | None = None, **limits: float) -> Connector:
        connectors = Connectors(environment="test", clock=clock, limits=ToolLimits(**limits))  # type: ignore[arg-type]  # ints are floats
        connectors.replace(release(tool, schemas=schemas))
        opened.append(connectors)
        found = connectors.get(tool.name)
        assert found is not None
        return found

    yield one
    for connectors in opened:
        await connectors.aclose()
