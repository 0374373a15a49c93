"""Told to end while it starts, a process ends at once, says so, and leaves nothing behind."""

import asyncio
import contextlib
import signal
import sys

import asyncpg

from tests.support.patience import PATIENCE_S, until


@contextlib.asynccontextmanager
async def starting(url, state):
    """A real `interlock up`."""
    words = ["up", "--database-url", url, "--state", str(state), "--port", "0", "--environment", "test"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "interlock", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def ended(process):
    process.send_signal(signal.SIGTERM)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert b"Traceback" not in err
    assert b"told to end before it served" in err
    assert b"serves" not in out
    return process.returncode


async def test_while_the_database_does_not_answer(tmp_path):
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def says_nothing(_reader, writer):
        asked.set()
        await go_on.wait()
        writer.close()

    async with await asyncio.start_server(says_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with starting(f"postgresql://interlock_app@127.0.0.1:{port}/x?sslmode=disable", tmp_path) as process:
            await asked.wait()
            assert await ended(process) == 128 + signal.SIGTERM
        go_on.set()


async def test_while_it_enters_itself_nothing_of_it_is_left(database_urls, tmp_path):
    watching = await asyncpg.connect(database_urls.superuser)
    holding = await asyncpg.connect(database_urls.superuser)
    try:
        async with holding.transaction():
            await holding.execute("LOCK TABLE process IN ACCESS EXCLUSIVE MODE")
            async with starting(database_urls.app, tmp_path) as process:

                async def stands_still():
                    return await watching.fetchval(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                    )

                await until(stands_still)
                assert await ended(process) == 128 + signal.SIGTERM
        assert await watching.fetchval("SELECT count(*) FROM process") == 0
    finally:
        await holding.close()
        await watching.close()
