from contextlib import AsyncExitStack

import pytest

from tests.kill.world import files, recorder
from tests.support.shop import counter


@pytest.fixture
async def tool():
    async with recorder() as made:
        yield made


@pytest.fixture
async def two(database_urls, tmp_path, tool):
    """Two gateways on one database before one tool."""
    async with AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(counter(database_urls.app, tmp_path / name, files=files(tool.url)))
            for name in ("a", "b")
        ]
        for side in made:
            await side.system.upstreams.tend()  # what a chore does a second after the start
        yield made
        for door in tool.doors.values():
            door.set()
