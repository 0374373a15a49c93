"""Commands for the embedded database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from interlock.cli.access import IN_THE_URL, Secret
from interlock.cli.common import DEFAULT_STATE, Json, State
from interlock.cli.output import NO, OK, Failure, print_json
from interlock.store.embedded import server
from interlock.store.errors import StoreError

if TYPE_CHECKING:
    from interlock.store.passwords import Password


def start(*, state: State = DEFAULT_STATE, as_json: Json = False) -> int:
    """Start the embedded Postgres and leave it running until `interlock db stop`."""
    try:
        running = server.start_and_stay(state)
        asyncio.run(_migrate(running.owner_url))
    except StoreError as error:
        raise Failure(str(error)) from error
    if as_json:
        print_json({"url": running.app_url, "pid": running.pid})
    else:
        print(f"running (pid {running.pid}); stop it with `interlock db stop --state {state}`")
    return OK


def url(
    *,
    role: Annotated[str, Parameter(help="owner, app or auditor.")] = "app",
    state: State = DEFAULT_STATE,
    as_json: Json = False,
) -> int:
    """Print the URL of the running embedded Postgres. Exit code 1 when it does not run."""
    running = _status(state)
    urls = {"owner": running.owner_url, "app": running.app_url, "auditor": running.auditor_url}
    if role not in urls:
        raise Failure(f"there is no role {role!r}; say owner, app or auditor")
    if as_json:
        print_json(urls)
    else:
        print(urls[role])
    return OK


def stop(*, state: State = DEFAULT_STATE, as_json: Json = False) -> int:
    """Stop the embedded Postgres, whoever uses it."""
    try:
        was_running = server.stop(state)
    except StoreError as error:
        raise Failure(str(error)) from error
    if as_json:
        print_json({"stopped": was_running})
    else:
        print("stopped" if was_running else "it was not running")
    return OK if was_running else NO


def migrate(
    database_url: Annotated[str, Parameter(help="URL of the database as its owner.", env_var="INTERLOCK_OWNER_URL")],
    *,
    secret: Secret = IN_THE_URL,
    as_json: Json = False,
) -> int:
    """Bring a database to this version's schema. Gateways of the version before go on meanwhile, and afterwards."""
    applied = asyncio.run(_migrate(database_url, secret.for_url(database_url), through=True))
    if as_json:
        print_json({"applied": applied})
    else:
        print(f"applied {', '.join(map(str, applied))}" if applied else "nothing to do")
    return OK


async def _migrate(owner_url: str, password: Password | None = None, *, through: bool = False) -> tuple[int, ...]:
    """`through`: there may be a pooler in between."""
    import asyncpg  # noqa: PLC0415  # not needed by the other commands

    from interlock.store.migrate import migrate as apply  # noqa: PLC0415
    from interlock.store.pooler import refuse_transaction_pooler  # noqa: PLC0415

    try:
        if through:
            await refuse_transaction_pooler(owner_url, password)
        return await apply(owner_url, password)
    except (StoreError, OSError, TimeoutError, ValueError, asyncpg.PostgresError) as error:
        raise Failure(f"the database cannot be migrated: {error}") from error


def _status(state: State) -> server.Running:
    try:
        running = server.status(state)
    except StoreError as error:
        raise Failure(str(error)) from error
    if running is None:
        raise Failure("the embedded Postgres does not run", hint=f"start it with `interlock db start --state {state}`")
    return running
