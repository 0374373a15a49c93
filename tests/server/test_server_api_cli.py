"""The command line is a client of the API, as a person: what it prints came over HTTP."""

import csv
import io
import json

import pytest

from tests.support.commands import typed_aside

DIRECTORY = """
users:
  ana: {tenant: acme, roles: [Staff], attributes: {teams: [north]}}
  aud: {tenant: acme, roles: [Auditor]}
  oki: {tenant: acme, roles: [Operator]}
  dee: {tenant: acme, roles: [Decider]}
  sam: {tenant: acme, roles: [Security]}
agents:
  bot: {subjects: {test: bot}}
"""


@pytest.fixture
def command(office, tmp_path):
    (tmp_path / "directory.yaml").write_text(DIRECTORY)

    async def run(*words, user, code=0):
        place = ["--state", tmp_path, "--directory", tmp_path / "directory.yaml", "--environment", "test"]
        told, out, errors = await typed_aside(*words, *place, "--server", office.url, "--as", user)
        assert told == code, (out, errors)
        return out

    return run


async def test_traces_are_listed_told_and_exported_by_people_who_may(office, command):
    token, session = await office.session("ana")
    call = (await office.call(token, "stock", item="tea")).json()["call_id"]
    listed = json.loads(await command("trace", "list", "--operation", "shop.stock", "--json", user="ana"))
    assert [item["call_id"] for item in listed["calls"]] == [call]
    assert "shop.stock" in await command("trace", "list", user="aud")
    assert "allowed by grant:bot" in await command("trace", "show", session, user="ana")
    rows = list(csv.DictReader(io.StringIO(await command("trace", "export", "--format", "csv", user="aud"))))
    assert [row["call_id"] for row in rows] == [call]
    assert await command("trace", "export", user="ana", code=1) == ""
    await command("trace", "show", "ses_unknown", user="aud", code=1)


async def test_a_user_begins_afresh_from_the_command_line(office, command):
    token, session = await office.session("ana")
    await office.call(token, "stock", item="tea")
    await command("sessions", "fresh", "bot", user="oki", code=1)
    answer = json.loads(await command("sessions", "fresh", "bot", "--json", user="ana"))
    assert answer["ended"] == [session]
    await command("sessions", "fresh", "bot", user="ana", code=1)


async def test_sessions_agents_and_decisions_are_asked_for_as_a_person(office, command):
    _, session = await office.session("ana")
    listed = json.loads(await command("sessions", "list", "--json", user="ana"))
    assert [item["session_id"] for item in listed["sessions"]] == [session]
    assert "bot" in await command("sessions", "show", session, user="ana")
    agents = json.loads(await command("agents", "--json", user="oki"))["agents"]
    assert {agent["agent"] for agent in agents} == {"bot", "idle"}
    asked = ("decide", "shop.stock", "--args", '{"item": "tea"}', "--agent", "bot", "--role", "Staff")
    assert (await command(*asked, user="dee")).startswith("allow")
    told = await command("decide", "shop.stock", "--agent", "bot", "--role", "Staff", user="dee", code=1)
    assert told.startswith("deny invalid_arguments")
    await command(*asked, user="ana", code=1)


async def test_a_session_is_ended_by_people_with_the_role_and_calls_nothing_any_more(office, command):
    token, session = await office.session("ana")
    await command("sessions", "end", session, "--reason", "odd", user="oki", code=1)
    assert await command("sessions", "end", session, "--reason", "odd", user="sam") == f"ended: {session}\n"
    assert (await office.call(token, "stock", item="tea")).status_code in {401, 403}
    assert "ended" in await command("sessions", "list", "--which", "ended", user="sam")


async def test_an_export_that_breaks_off_is_told_to_have_failed(office, command, monkeypatch):
    token, _ = await office.session("ana")
    for number in range(3):
        await office.call(token, "stock", item=f"i{number}")
    monkeypatch.setattr("interlock.app.traces.EXPORT_PAGE_CALLS", 1)
    search, asked = office.system.plane.desk.traces._traces.search, []

    async def breaks(*words, **more):
        asked.append(1)
        if len(asked) > 1:
            raise RuntimeError("gone")
        return await search(*words, **more)

    monkeypatch.setattr(office.system.plane.desk.traces._traces, "search", breaks)
    await command("trace", "export", user="aud", code=3)
