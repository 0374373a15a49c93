"""`interlock init`: from somebody's MCP server to a small release around it, in one conversation."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from getpass import getuser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from interlock.cli.common import DEFAULT_DIRECTORY, DEFAULT_ENVIRONMENT, DEFAULT_SERVER, DEFAULT_STATE, Environment, Json
from interlock.cli.output import OK, USAGE, Failure, print_json
from interlock.cli.tools import (
    Answers,
    Credential,
    Name,
    Yes,
    answered,
    answers_in,
    list_named,
    name_of,
    source_of,
    today,
)
from interlock.policy.testing import run_tests
from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from interlock.release.review.answers import pending, reviewed
from interlock.release.review.draft import ListingError, drafted
from interlock.release.review.starter import TASK, Names, directory, first_release


def init(
    *,
    mcp: Annotated[str, Parameter(help="Your MCP server: an http(s) URL, or the command that starts it, in quotes.")],
    into: Annotated[Path, Parameter(help="Folder to write to; it must not exist, or be empty.")] = Path("interlock"),
    name: Name = "",
    credential: Credential = "",
    user: Annotated[str, Parameter(help="Who the agent acts for; you when not given.")] = "",
    approver: Annotated[
        str, Parameter(help="Who approves; somebody else, even if that is you with another hat on.")
    ] = "approver",
    agent: Annotated[str, Parameter(help="What the agent is called.")] = "assistant",
    answers: Answers = None,
    yes: Yes = False,
    environment: Environment = DEFAULT_ENVIRONMENT,
    as_json: Json = False,
) -> int:
    """List a server's tools, ask one question for each, and write a small release around them."""
    if into.exists() and any(into.iterdir()):
        raise Failure(f"{into} is not empty", hint="choose another folder with --into", code=USAGE)
    source = source_of(mcp, credential)
    tool = name or name_of(source)
    who = user or re.sub(r"[^a-z0-9._-]", "", getuser().lower()) or "me"
    if who == approver:
        raise Failure("whoever approves is somebody else than the user", hint="give --approver another name", code=USAGE)
    names = Names(release=tool, tool=tool, agent=agent, user=who, approver=approver, environment=environment)
    tools = list_named(tool, source)
    if not as_json:
        print(f"{tool} lists {len(tools)} tools.\n")
    try:
        draft = drafted(source, tools)
        waiting = pending(draft)
        said = answered(tool, waiting, answers_in(answers), yes=yes)
        text = reviewed(draft, said, by=who, on=today())
        files = first_release(names, text)
        results = run_tests(from_files(files))
    except ListingError as error:
        raise Failure(str(error), code=USAGE) from error
    except ReleaseError as error:
        listed = "\n".join(f"  {problem}" for problem in error.problems)
        raise Failure(f"what the server lists makes no release:\n{listed}", details=list(error.problems)) from error
    for place, content in files.items():
        path = into / "release" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (into / "directory.yaml").write_text(directory(names), encoding="utf-8")
    left = [item.operation for item in waiting if item.operation not in said]
    failed = [result.name for result in results if not result.passed]
    if as_json:
        print_json({"folder": str(into), "tool": tool, "reviewed": list(said), "drafts": left, "tests_failed": failed})
    else:
        _tell(into, names, list(said), left, failed)
    return OK


def _tell(into: Path, names: Names, said: list[str], left: list[str], failed: list[str]) -> None:
    print(f"{into / 'release'}: a release with {len(said)} reviewed operations; reads flow, writes ask, the rest is denied.")
    for name in left:
        print(f"  still a draft, and cannot be called: {name}")
    for name in failed:
        print(f"  its test does not pass, so look at it: {name}")
    elsewhere = names.environment != DEFAULT_ENVIRONMENT
    environment = f" --environment {names.environment}" if elsewhere else ""
    # In its own folder every command finds the people and the keys by itself.
    print("\nServe it:\n")
    if into.resolve() != Path.cwd():
        print(f"  cd {shlex.quote(str(into))}")
    print(f"  interlock up --release release --directory {DEFAULT_DIRECTORY}{environment}")
    print(
        "\nPut this into your MCP client's configuration (Claude Desktop, Claude Code, Cursor: mcpServers; VS Code: servers):\n"
    )
    place = into.resolve()
    arguments = ["mcp", "--agent", names.agent, "--user", names.user, "--task", TASK]
    arguments += ["--directory", str(place / DEFAULT_DIRECTORY), "--state", str(place / DEFAULT_STATE)]
    arguments += ["--environment", names.environment] if elsewhere else []
    block = {"mcpServers": {names.tool: {"command": _program(), "args": arguments}}}
    print("\n".join(f"  {line}" for line in json.dumps(block, indent=2).splitlines()))
    print(f"\nOr give a client {DEFAULT_SERVER}/mcp and a token, from another terminal in the same folder:\n")
    print(f"  interlock token --agent {names.agent} --user {names.user} --task {TASK}{environment}")
    print(f"\nThen open {DEFAULT_SERVER}/ and log in as {names.approver}, who answers, with the code that this prints:\n")
    print(f"  interlock login --code --as {names.approver}{environment}")


def _program() -> str:
    """How a client that starts programs in a folder and with a PATH of its own finds this one."""
    return shutil.which(Path(sys.argv[0]).name) or "interlock"
