"""Commands that put releases in force, as a person: propose, activate, roll back, and which were."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from interlock.cli.common import (
    DEFAULT_DIRECTORY,
    DEFAULT_SERVER,
    DEFAULT_STATE,
    Directory,
    Environment,
    Json,
    Server,
    State,
    ask,
    user_token,
)
from interlock.cli.output import NO, OK, print_json
from interlock.cli.people import As, Reason


def propose(
    folder: Annotated[Path, Parameter(help="The release folder.")],
    *,
    as_: As,
    environment: Environment = "prod",
    server: Server = DEFAULT_SERVER,
    state: State = DEFAULT_STATE,
    directory: Directory = DEFAULT_DIRECTORY,
    as_json: Json = False,
) -> int:
    """Store a release for somebody else to activate. Exit code 1 when one of its own tests fails."""
    from interlock.cli.release import read_folder  # noqa: PLC0415  # the parser is heavy

    token = user_token(state, directory, environment, as_)
    answer = ask(server, "/v1/releases", token=token, body={"files": read_folder(folder)})
    if as_json:
        print_json(answer)
    else:
        print(f"proposed: {answer['name']} {answer['digest']}")
        print(f"  changes: {', '.join(answer['changed']) or 'nothing'}")
        print(f"  owned by: {', '.join(answer['teams']) or 'nobody'}")
        print(f"  tests: {answer['tests_run'] - len(answer['tests_failed'])} of {answer['tests_run']} pass")
        for test in answer["tests_failed"]:
            print(f"    {test['place']}: {test['name']}: expected {test['expected']}, got {test['got']}")
        print(f"somebody else activates it: interlock release activate {answer['digest']} --reason … --as …")
    return NO if answer["tests_failed"] else OK


def activate(
    release: Annotated[str, Parameter(help="The digest of a proposed release, or its folder.")],
    *,
    reason: Reason,
    as_: As,
    environment: Environment = "prod",
    server: Server = DEFAULT_SERVER,
    state: State = DEFAULT_STATE,
    directory: Directory = DEFAULT_DIRECTORY,
    as_json: Json = False,
) -> int:
    """Make a proposed release decide from now on; answers when every live process decides by it."""
    digest = release
    if not release.startswith("sha256:"):
        from interlock.cli.release import read_folder  # noqa: PLC0415  # the parser is heavy
        from interlock.release.load import digest_of  # noqa: PLC0415

        digest = digest_of(read_folder(Path(release)))
    token = user_token(state, directory, environment, as_)
    answer = ask(server, f"/v1/releases/{digest}/activate", token=token, body={"reason": reason})
    return _in_force(answer, as_json=as_json)


def rollback(
    release: Annotated[str, Parameter(help="The digest of a release that was in force; the last one when not given.")] = "",
    *,
    reason: Reason,
    as_: As,
    environment: Environment = "prod",
    server: Server = DEFAULT_SERVER,
    state: State = DEFAULT_STATE,
    directory: Directory = DEFAULT_DIRECTORY,
    as_json: Json = False,
) -> int:
    """Make an earlier release decide again. One person is enough: it was looked at before."""
    token = user_token(state, directory, environment, as_)
    answer = ask(server, "/v1/releases/rollback", token=token, body={"reason": reason, "digest": release})
    return _in_force(answer, as_json=as_json)


def history(
    *,
    as_: As,
    environment: Environment = "prod",
    server: Server = DEFAULT_SERVER,
    state: State = DEFAULT_STATE,
    directory: Directory = DEFAULT_DIRECTORY,
    as_json: Json = False,
) -> int:
    """Which releases were in force, newest first: who put them there, and why."""
    answer = ask(server, "/v1/releases/activations", token=user_token(state, directory, environment, as_))
    if as_json:
        print_json(answer)
        return OK
    table = Table("since", "name", "digest", "by", "why")
    for item in answer["activations"]:
        since = datetime.fromtimestamp(item["at_us"] / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
        row = (since, item["name"], item["digest"].removeprefix("sha256:")[:12], item["activated_by"], item["reason"])
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
    return OK


def _in_force(answer: dict[str, object], *, as_json: bool) -> int:
    if as_json:
        print_json(answer)
        return OK
    print(f"in force: {answer['name']} {answer['digest']}, after {answer['previous']}")
    late = answer["not_yet_loaded"]
    for process in late if isinstance(late, list) else ():
        print(f"  {process} has not loaded it yet; until it has, it refuses its calls")
    return OK
