"""Stopping and finding out from the command line: which scope is meant, and a person's word on a call in doubt."""

import asyncio
import json

import pytest

from interlock.cli.doubts import list_doubts, settle, show
from interlock.cli.output import OK, USAGE, Failure
from interlock.cli.people import kill, resume, status
from interlock.cli.scoped import Scoped
from tests.doubt.test_doubt_reconciled import lost
from tests.doubt.world import RELEASE, Payments, reconcile
from tests.support.served import served
from tests.support.shop import counter

ADMINISTERED = {**RELEASE, "release.yaml": RELEASE["release.yaml"].replace("settle: [Clerk]", "settle: [Security]")}


@pytest.fixture
async def front(database_urls, tmp_path):
    tool = Payments()
    async with counter(database_urls.app, tmp_path, shop=tool, files=ADMINISTERED) as made, served(made, tmp_path) as door:
        made.tool = tool
        yield door


async def run(command, *arguments, **named):
    return await asyncio.to_thread(command, *arguments, **named)


@pytest.mark.parametrize(
    ("written", "options", "meant"),
    [
        ("tool:payments", {}, "tool:payments"),
        ("", {"tool": "payments"}, "tool:payments"),
        ("", {"operation": "payments.refund"}, "operation:payments.refund"),
        ("", {"user": "acme/ana"}, "user:acme/ana"),
        ("", {"fleet": True}, "fleet"),
    ],
)
def test_a_scope_is_written_out_or_said_by_one_option(written, options, meant):
    assert Scoped(**options).or_written(written) == meant


@pytest.mark.parametrize(("written", "options"), [("", {}), ("fleet", {"tool": "x"}), ("", {"tool": "x", "agent": "y"})])
def test_what_is_no_scope_or_more_than_one_stops_nothing(written, options):
    with pytest.raises(Failure) as refused:
        Scoped(**options).or_written(written)
    assert refused.value.code == USAGE


async def test_what_one_command_stops_another_shows_and_only_somebody_else_may_resume(front, capsys):
    tool = Scoped(tool="shop")
    assert await run(kill, reason="odd", scoped=tool, caller=front.as_("oki")) == OK
    assert "stopped: tool:shop" in capsys.readouterr().out
    assert await run(status, caller=front.as_("oki")) == OK
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "tool:shop" in line]
    assert [word.strip() for word in line.strip("│").split("│")] == ["tool:shop", "stopped", "normal", "oki", "odd"]
    with pytest.raises(Failure):
        await run(resume, reason="fine", scoped=tool, caller=front.as_("ana"))
    assert await run(kill, reason="odd", scoped=tool, caller=front.as_("oki"), as_json=True) == OK
    assert json.loads(capsys.readouterr().out)["scope"] == "tool:shop"


async def test_a_call_in_doubt_is_listed_shown_with_both_answers_and_settled_by_somebody_else(front, capsys):
    _, told, _ = await lost(front.shop, "blind")
    await reconcile(front.shop)
    sam = front.as_("sam")
    assert await run(list_doubts, caller=front.as_("oki")) == OK
    listed = capsys.readouterr().out
    assert told.call_id in listed
    assert "asks you: the contract does not say how to find out; look at shop.paid" in listed
    assert await run(show, told.call_id, caller=front.as_("oki")) == OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f'{told.call_id}  shop.blind {{"order": "A1"}}'
    assert [line.partition(":")[0] for line in lines[-2:]] == ["--done", "--not-done"]
    with pytest.raises(Failure):
        await run(settle, told.call_id, done=True, reason="I am sure", caller=front.as_("ana"))
    assert await run(settle, told.call_id, done=True, reason="it is in the book", caller=sam) == OK
    assert capsys.readouterr().out == f"{told.call_id} is settled: done\n"
    with pytest.raises(Failure, match="no call of this name"):
        await run(settle, told.call_id, done=False, reason="or is it", caller=sam)
    assert await run(list_doubts, caller=front.as_("oki")) == OK
    assert capsys.readouterr().out.strip() == "nothing is in doubt"
