"""Fixtures for every test: a real Postgres, and databases of one's own."""

import msgspec
import pytest
from hypothesis import HealthCheck, settings

from interlock.store.embedded import server
from tests.support.memory import keep_compiled_modules, keep_files_in_memory
from tests.support.postgres import TestServer

keep_files_in_memory()
keep_compiled_modules()
# The long hunt is `make fuzz`. How long an example takes says how busy the machine is, and nothing of the law.
settings.register_profile("suite", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


class Urls(msgspec.Struct, frozen=True):
    """One database, as its three roles and as the superuser see it."""

    name: str
    owner: str
    app: str
    auditor: str
    superuser: str


@pytest.fixture(scope="session")
def postgres():
    from tests.support.once import make_once  # noqa: PLC0415  # who needs no database need not wait for it

    make_once()
    running = TestServer()
    yield running
    running.close()


@pytest.fixture(scope="session")
def running_chromium(tmp_path_factory):
    from tests.page.browser import started  # noqa: PLC0415  # same

    with started(tmp_path_factory.mktemp("chromium")) as place:
        yield place


def urls(postgres, name):
    roles = (server.OWNER, server.APP, server.AUDITOR, "postgres")
    return Urls(name, *(postgres.url(role, name) for role in roles))


@pytest.fixture
async def database_urls(postgres):
    name = await postgres.clone()
    yield urls(postgres, name)
    await postgres.drop(name)


@pytest.fixture
async def empty_database_urls(postgres):
    name = await postgres.empty()
    yield urls(postgres, name)
    await postgres.drop(name)
