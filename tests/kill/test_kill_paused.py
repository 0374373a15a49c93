"""Real processes and real signals: what is paused, killed or silent when a kill comes starts nothing when it wakes up."""

import signal

import psutil
import pytest

from interlock.gateway.limits import LEASE_MARGIN_S, LEASE_S
from tests.kill.world import files, gateway
from tests.support.patience import until
from tests.support.shop import OPERATOR, counter


@pytest.fixture
async def here(database_urls, tmp_path, tool):
    """The gateway that people speak to; others run in processes of their own."""
    async with counter(database_urls.app, tmp_path / "here", files=files(tool.url)) as made:
        yield made


def leases(answer):
    return {held.process_id: held.lease for held in answer.processes}


async def test_stopped_before_the_check_and_woken_after_the_answer_it_sends_no_byte(here, tool, database_urls, tmp_path):
    async with gateway(database_urls.app, tmp_path / "there", tool.url) as there:
        await tool.settled(2)
        tool.shut("server/discover")
        await there.say("call", "send", "tea")
        await until(tool.asked["server/discover"].is_set)
        there.process.send_signal(signal.SIGSTOP)
        await until(lambda: psutil.Process(there.process.pid).status() == psutil.STATUS_STOPPED)
        answer = await here.system.plane.kill(OPERATOR, "fleet", "test")
        assert leases(answer)[there.process_id] == "ran out"
        assert [call.became for call in answer.in_flight] == ["may_still_take_effect"]
        so_far = tool.raw
        tool.doors["server/discover"].set()
        there.process.send_signal(signal.SIGCONT)
        assert (await there.hear())["code"] in {"halted", "control_plane_unavailable"}
        assert tool.raw == so_far
        assert tool.calls == []


async def test_stopped_between_the_check_and_the_write_it_does_not_wake_up(here, tool, database_urls, tmp_path):
    async with gateway(database_urls.app, tmp_path / "there", tool.url, "stop-in-window") as there:
        await tool.settled(2)
        await there.say("call", "send", "tea")
        await until(lambda: psutil.Process(there.process.pid).status() in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE})
        so_far = tool.raw
        answer = await here.system.plane.kill(OPERATOR, "fleet", "test")
        assert leases(answer)[there.process_id] == "ran out"
        # By the time of the answer there is nobody left to be woken.
        assert await there.process.wait() == -signal.SIGKILL
        assert tool.raw == so_far
        assert tool.calls == []


async def test_a_dead_process_costs_a_kill_at_most_a_lease_and_the_next_one_nothing(here, tool, database_urls, tmp_path):
    async with gateway(database_urls.app, tmp_path / "there", tool.url) as there:
        there.process.kill()
        await there.process.wait()
        answer = await here.system.plane.kill(OPERATOR, "tool:far", "test")
        assert leases(answer)[there.process_id] == "ran out"
        assert answer.took_ms < (LEASE_S + LEASE_MARGIN_S) * 1000 + 5_000
        closed = False
        while not closed:
            await here.system.keeper.close_run_out()
            closed = there.process_id not in {holder.process_id for holder in await here.system.leases.holders()}
        answer = await here.system.plane.kill(OPERATOR, "tool:far", "again")
        assert leases(answer) == {here.system.process_id: "acknowledged"}


async def test_a_paused_process_that_wakes_up_is_told_and_goes_on(here, tool, database_urls, tmp_path):
    async with gateway(database_urls.app, tmp_path / "there", tool.url) as there:
        await there.say("call", "send", "tea")
        assert (await there.hear())["code"] == ""
        there.process.send_signal(signal.SIGSTOP)
        await until(lambda: psutil.Process(there.process.pid).status() == psutil.STATUS_STOPPED)
        await here.system.plane.kill(OPERATOR, "tool:far", "test")
        await here.system.plane.resume(OPERATOR, "tool:far", "over")
        there.process.send_signal(signal.SIGCONT)
        await there.say("call", "send", "coffee")
        assert (await there.hear())["code"] == ""
        assert [call["arguments"]["item"] for call in tool.calls] == ["tea", "coffee"]
