"""Releases from the command line: who puts one forward or in force sees what it changes, and agrees to exactly that."""

import asyncio
import json

import pytest

from interlock.cli.diff import diff
from interlock.cli.output import NO, OK, Failure
from interlock.cli.releases import activate, propose, rollback
from tests.app.test_app_releases import OWNED
from tests.support.served import served
from tests.support.shop import counter

WIDER = {**OWNED, "agents.yaml": OWNED["agents.yaml"].replace('max: "100.00"', 'max: "500.00"')}
TEST = "- {name: big, call: shop.refund, args: {order_id: A1, amount: '200.00'}, as: Staff, attributes: {teams: [north]}, resource: {team: north}, expect: ask refunds}\n"


@pytest.fixture
async def office(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=OWNED) as shop, served(shop, tmp_path) as made:
        yield made


def folder(place, files):
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


async def run(command, *arguments, **named):
    return await asyncio.to_thread(command, *arguments, **named)


async def proposed(office, tmp_path, capsys, files):
    code = await run(propose, folder(tmp_path / "new", files), caller=office.as_("sam"), as_json=True)
    return code, json.loads(capsys.readouterr().out)


async def test_who_proposes_sees_what_would_widen(office, tmp_path, capsys):
    files = {**WIDER, "tests/a.yaml": TEST}
    assert await run(propose, folder(tmp_path / "new", files), caller=office.as_("sam")) == OK
    out = capsys.readouterr().out
    assert "tests: 1 of 1 pass" in out
    assert "WIDENS   grant bot on shop.refund  (agents.yaml:12)" in out
    assert 'amount: {"max": "100.00"} → {"max": "500.00"}' in out


async def test_who_activates_is_shown_the_difference_first_and_it_is_on_record(office, tmp_path, capsys):
    wider = {**WIDER, "policies/guard/more.cedar": '@id("m")\n@owner("security")\nforbid (principal, action, resource)\nwhen { context.session.tainted };\n'}  # fmt: skip
    owned = {**wider, "agents.yaml": OWNED["agents.yaml"], "policies/guard/rules.cedar": ""}
    _, answer = await proposed(office, tmp_path, capsys, owned)
    assert await run(activate, answer["digest"], reason="as agreed", caller=office.as_("sue")) == OK
    out = capsys.readouterr().out
    assert out.index("gone: forbids writes, egress") < out.index("in force:")
    events = [body for kind, body in await office.shop.events("control") if kind in {"release.proposed", "release.activated"}]
    for event in events[-2:]:
        assert event["changes"] == {"widens": 1, "unknown": 0, "narrows": 1, "neutral": 0}
        assert event["widens"] == ["widens: policy worried (guard, owner security) (policies/guard/rules.cedar:2): gone: forbids writes, egress"]  # fmt: skip
    assert (events[-1]["reason"], events[-1]["by"], events[-1]["proposed_by"]) == ("as agreed", "sue", "sam")


async def test_a_release_that_was_compared_with_another_than_the_one_in_force_is_not_activated(office, tmp_path, capsys):
    releases = office.shop.system.plane.releases
    _, answer = await proposed(office, tmp_path, capsys, {**OWNED, "policies/guard/rules.cedar": ""})
    seen = await run(office.as_("sue").ask, f"/v1/releases/{answer['digest']}/diff")
    await releases.put_in_force({**OWNED, "README.md": "something else"}, by="test")
    body = {"reason": "as agreed", "instead_of": seen["old"]}
    with pytest.raises(Failure, match="look at the difference again"):
        await run(office.as_("sue").ask, f"/v1/releases/{answer['digest']}/activate", body=body)


async def test_a_rollback_says_what_it_changes_back(office, tmp_path, capsys):
    _, answer = await proposed(office, tmp_path, capsys, {**OWNED, "policies/guard/rules.cedar": ""})
    await run(activate, answer["digest"], reason="as agreed", caller=office.as_("sue"))
    assert await run(rollback, reason="too wide", caller=office.as_("sue"), as_json=True) == OK
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [change["direction"] for change in told["diff"]["changes"]] == ["narrows"]


async def test_folders_stored_releases_and_the_active_one_are_compared(office, tmp_path, capsys):
    wider = folder(tmp_path / "wider", {**WIDER, "tests/a.yaml": TEST})
    pat = office.as_("pat")
    assert await run(diff, "active", str(wider), caller=pat) == NO
    out = capsys.readouterr().out
    assert "- deny 4 (arguments_not_permitted)\n           + ask refunds" in out
    assert "1 of 1 decisions differ" in out
    digest = (await run(pat.ask, "/v1/releases/active"))["digest"]
    assert await run(diff, digest, "active", caller=pat, as_json=True) == OK
    assert json.loads(capsys.readouterr().out)["diff"]["changes"] == []
    folder(tmp_path / "more", {"x.yaml": TEST.replace("200.00", "600.00"), "y.yaml": TEST.replace("200.00", "300.00")})
    assert await run(diff, "active", str(wider), over=[tmp_path / "more"], caller=pat) == NO
    assert "2 of 3 decisions differ" in capsys.readouterr().out


async def test_stored_releases_are_for_people_who_may_look(office):
    digest = (await run(office.as_("pat").ask, "/v1/releases/active"))["digest"]
    for path in (f"/v1/releases/{digest}", f"/v1/releases/{digest}/diff"):
        with pytest.raises(Failure, match="is for"):
            await run(office.as_("ana").ask, path)
    with pytest.raises(Failure, match="is for"):
        await run(office.as_("sue").ask, f"/v1/releases/{digest}")
    assert (await run(office.as_("sue").ask, f"/v1/releases/{digest}/diff"))["changes"] == []
    with pytest.raises(Failure):
        await run(office.as_("pat").ask, "/v1/releases/sha256:unknown")


async def test_a_folder_with_mistakes_is_named(tmp_path, capsys):
    bad = folder(tmp_path / "bad", {**OWNED, "tasks.yaml": "selling: {}\n"})
    with pytest.raises(Failure, match=r"problems? in "):
        await run(diff, str(bad), str(bad))
