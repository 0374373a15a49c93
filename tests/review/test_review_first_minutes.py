"""The first ten minutes: a newcomer's own server, one command, and it is governed."""

import contextlib
import json
import subprocess
import sys

import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.review.test_review_terminal import WAIT_S, interlock
from tests.support.patience import patient_http

SERVER = """
from pathlib import Path
from mcp.server.mcpserver import MCPServer
server = MCPServer("notes", log_level="ERROR")
NOTES = Path({place!r})

@server.tool()
def list_notes() -> list[str]:
    "The names of all notes."
    return sorted(path.name for path in NOTES.iterdir())

@server.tool()
def write_note(name: str, text: str) -> str:
    "Write a note."
    with (NOTES / name).open("a") as file:
        file.write(text)
    return "written"

@server.tool()
def delete_note(name: str) -> str:
    "Delete a note."
    (NOTES / name).unlink()
    return "gone"

server.run("stdio")
"""


@pytest.fixture
def notes(tmp_path):
    place = tmp_path / "notes"
    place.mkdir()
    (place / "todo").write_text("tea")
    (tmp_path / "server.py").write_text(SERVER.format(place=str(place)))
    return place


@contextlib.contextmanager
def up(folder, database_url):
    words = ["up", "--release", "mine/release", "--directory", "mine/directory.yaml", "--state", "mine/state", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "interlock", *words, "--database-url", database_url, "--json"],
        cwd=folder, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_S)


async def test_the_first_read_flows_the_first_write_asks_and_somebody_else_approves_it(notes, database_urls, tmp_path):
    code, out, err = interlock(
        tmp_path, "init", "--mcp", f"{sys.executable} server.py", "--into", "mine", "--user", "ana", "--name", "notes", "--yes"
    )
    assert code == 0, err
    assert '"mcpServers"' in out
    assert interlock(tmp_path, "release", "check", "mine/release")[0] == 0
    assert interlock(tmp_path, "policy", "test", "mine/release")[0] == 0
    with up(tmp_path, database_urls.app) as url:
        place = ("--server", url, "--state", "mine/state", "--directory", "mine/directory.yaml")
        code, token, err = interlock(tmp_path, "token", "--agent", "assistant", "--user", "ana", "--task", "work", *place)
        assert code == 0, err
        headers = {"authorization": f"Bearer {token.strip()}"}
        async with (
            patient_http(headers=headers) as http,
            Client(streamable_http_client(url + "/mcp", http_client=http)) as client,
        ):
            assert {tool.name for tool in (await client.list_tools()).tools} >= {"notes.list_notes", "notes.write_note"}
            assert (await client.call_tool("notes.list_notes", {})).structured_content == {"result": ["todo"]}
            note = {"name": "today", "text": "x"}
            waits = await client.call_tool("notes.write_note", note)
            assert waits.meta["interlock/decision"]["outcome"] == "needs_approval"
            approval = waits.meta["interlock/decision"]["approvals"][0]["id"]
            assert interlock(tmp_path, "approvals", "approve", approval, "--as", "ana", *place)[0] != 0
            assert not (notes / "today").exists()
            code, _, err = interlock(tmp_path, "approvals", "approve", approval, "--as", "approver", *place)
            assert code == 0, err
            for _ in range(2):
                assert not (await client.call_tool("notes.write_note", note)).is_error
            assert (notes / "today").read_text() == "x"
            gone = await client.call_tool("notes.delete_note", {"name": "todo"})
            assert gone.meta["interlock/decision"]["outcome"] == "denied"
            assert (notes / "todo").exists()
        code, out, err = interlock(tmp_path, "tools", "list", "--as", "approver", *place, "--json")
        assert code == 0, err
        assert {item["pin"] for item in json.loads(out)["operations"]} == {"pinned"}
