"""What is around the gate fails: the release, the tool, the clock, the lease, the process's own disk."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from interlock.gateway.messages import Returned
from interlock.store.errors import StoreError
from tests.failures.world import EFFECTS, EVERY, code, done, files, world
from tests.support.patience import PATIENCE_S, until
from tests.support.shop import OPERATOR

pytestmark = pytest.mark.parametrize("effect", EVERY)
LAST_RESORT = "INSERT INTO control (scope, halted, reason) VALUES ('tool:shop', true, 'no release') ON CONFLICT (scope) DO UPDATE SET halted = true"
DAY_US = 86_400_000_000


async def test_when_the_policy_in_force_does_not_load_nothing_is_decided_and_one_statement_still_stops(made, session, effect):
    await made.sql("UPDATE epoch SET release = release + 1, release_digest = 'sha256:gone'")
    if effect == "control":
        with pytest.raises(StoreError):
            await made.kill()
        assert not await made.is_stopped()
        connection = await asyncpg.connect(made.urls.owner)
        await connection.execute(LAST_RESORT)
        await connection.close()
        assert await made.is_stopped()
        return
    assert code(await made.attempt(session, effect)) == "control_plane_unavailable"
    assert made.executed == []


async def test_with_the_tool_down_nothing_was_changed_and_people_still_stop_things(database_urls, postgres, tmp_path, effect):
    async with world(database_urls, postgres, tmp_path, files("url: http://127.0.0.1:1/mcp")) as made:
        session = await made.session()
        if effect == "control":
            await made.kill()
            assert await made.is_stopped()
            return
        answer = await made.attempt(session, effect)
        assert code(answer) == "tool_unavailable"
        assert answer.effect.value == "none"
        assert (await made.kinds(answer.call_id))[-1] == "call.settled"


@pytest.mark.parametrize("jump_us", [-DAY_US, DAY_US])
async def test_a_jump_of_the_wall_clock_changes_no_lease_and_does_nothing_twice(made, session, effect, jump_us, monkeypatch):
    real = made.system.clock.wall_us
    monkeypatch.setattr(made.system.clock, "wall_us", lambda: real() + jump_us)
    assert made.system.lease.is_valid()
    if effect == "control":
        await made.kill()
        assert await made.is_stopped()
        return
    first = await made.attempt(session, effect)
    again = await made.attempt(session, effect)
    if isinstance(first, Returned):
        assert made.executed == [effect] * (2 if effect == "read" else 1)
        assert ("interlock/replayed" in again.meta) == (effect != "read")
    else:
        assert made.executed == []
    await made.accounted()


async def test_a_process_without_a_lease_starts_nothing_and_is_no_obstacle_to_a_kill(made, session, effect):
    made.system.lease.surrender()
    if effect == "control":
        async with asyncio.timeout(PATIENCE_S):
            await made.kill()
        assert await made.is_stopped()
        return
    assert code(await made.attempt(session, effect)) == "control_plane_unavailable"
    assert made.executed == []


async def test_a_full_disk_of_the_process_stops_its_witness_and_no_record(made, session, effect):
    witness = made.system.settings.state / "heads.jsonl"
    witness.unlink(missing_ok=True)
    witness.symlink_to(Path("/dev/full"))
    if effect == "control":
        await made.kill()
        assert await made.is_stopped()
    else:
        done(await made.attempt(session, effect))
        assert made.executed == [effect]
        await made.accounted()
    with pytest.raises(OSError, match="No space left"):
        await made.system.sign_heads()
    # What could not be witnessed is signed and witnessed once there is room.
    witness.unlink()
    await made.system.plane.kill(OPERATOR, "tool:act", "so that a chain moves")
    assert await made.system.sign_heads() >= 1
    await until(witness.exists)


async def test_an_answer_too_long_to_keep_is_told_as_what_it_was(made, session, effect):
    made.answers = {name: {"n": 1, "more": "x" * 5_000_000} for name in EFFECTS}
    if effect == "control":
        assert code(await made.attempt(session, "write")) == "result_not_kept"
        await made.kill()
        assert await made.is_stopped()
        return
    for _ in range(2):
        told = await made.attempt(session, effect)
        expected = ("result_too_large", "none") if effect == "read" else ("result_not_kept", "done")
        assert (code(told), told.effect.value) == expected
    # A reading may be made again; what changes something is not.
    assert made.executed == [effect] * (2 if effect == "read" else 1)
    await made.accounted()
