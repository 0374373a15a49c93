"""Commands that bring tools in: what a server lists becomes drafts, a person reviews them, and what changes is shown."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from rich.console import Console
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from interlock.app.upstreams import UnlistedError, all_listed, listed
from interlock.cli.asking import ask_all
from interlock.cli.common import Environment, Json, read_variables
from interlock.cli.output import NO, OK, UNREACHABLE, USAGE, Failure, print_json
from interlock.cli.release import Variables, load_whole, read_folder
from interlock.cli.shown import Text
from interlock.core.listing import ListedTool
from interlock.release.model import ToolSource
from interlock.release.review.answers import Answer, Pending, pending, reviewed
from interlock.release.review.changes import differences
from interlock.release.review.draft import ListingError, Source, drafted, extended, named
from interlock.release.review.scan import plain

_NAME: Final = re.compile(r"[^a-z0-9_-]+")
Server = Annotated[str, Parameter(help="An http(s) URL, or the command that starts the server, in quotes.")]
Name = Annotated[str, Parameter(help="What the tool is called here; taken from the server's address when not given.")]
Credential = Annotated[
    str, Parameter(help="The name of its secret: env:NAME or file:PATH. The secret itself is never written.")
]
Answers = Annotated[Path | None, Parameter(help="YAML file: operation: {effects: […], targets: […]}, or `skip`.")]
Yes = Annotated[bool, Parameter(negative="", help="Take the cautious suggestions; what looks suspicious stays a draft.")]
By = Annotated[str, Parameter(help="Who reviews; you when not given.")]


def import_tool(
    server: Server,
    *,
    into: Annotated[Path | None, Parameter(help="Release folder to write to; printed when not given.")] = None,
    name: Name = "",
    credential: Credential = "",
    as_json: Json = False,
) -> int:
    """Draft contracts from what an MCP server lists. A draft cannot be called until it is reviewed."""
    source = source_of(server, credential)
    tool = name or name_of(source)
    tools = list_named(tool, source)
    if into is None:
        text, new = drafted(source, tools), tuple(tools)
        if as_json:
            print_json({"tool": tool, "drafts": new, "file": text})
        else:
            print(text, end="")
        return OK
    read_folder(into)
    place = into / "tools" / f"{tool}.yaml"
    if place.exists():
        text, new = _spoken(lambda: extended(place.read_text(encoding="utf-8"), tools))
    else:
        text, new = drafted(source, tools), tuple(tools)
        place.parent.mkdir(exist_ok=True)
    place.write_text(text, encoding="utf-8")
    if as_json:
        print_json({"tool": tool, "drafts": new, "file": str(place)})
    else:
        print(f"{place}: {len(new)} drafts{': ' + ', '.join(new) if new else ''}")
        if new:
            print(f"next: interlock tools review {into}")
    return OK


def review(
    folder: Annotated[Path, Parameter(help="The release folder.")],
    operations: Annotated[list[str] | None, Parameter(help="tool.operation; every draft when not given.")] = None,
    *,
    answers: Answers = None,
    yes: Yes = False,
    by: By = "",
    as_json: Json = False,
) -> int:
    """Review drafts: one question each. Exit code 1 when drafts are left over."""
    files = read_folder(folder)
    wanted, done, left = set(operations or ()), [], []
    given = answers_in(answers)
    for file in sorted(name for name in files if name.startswith("tools/")):
        tool = file.removeprefix("tools/").removesuffix(".yaml")
        waiting = tuple(
            item
            for item in _spoken(lambda file=file: pending(files[file]))
            if not wanted or f"{tool}.{item.operation}" in wanted
        )
        if not waiting:
            continue
        said = answered(tool, waiting, given, yes=yes)
        text = _spoken(lambda file=file, said=said: reviewed(files[file], said, by=by or getuser(), on=today()))
        (folder / file).write_text(text, encoding="utf-8")
        done += [f"{tool}.{name}" for name in said]
        left += [f"{tool}.{item.operation}" for item in waiting if item.operation not in said]
    if as_json:
        print_json({"reviewed": done, "drafts": left})
    else:
        print(f"reviewed: {', '.join(done) or 'nothing'}")
        for name in left:
            print(f"  still a draft, and cannot be called: {name}")
        if done:
            print(f"next: grant them in agents.yaml, then interlock release check {folder}")
    return NO if left else OK


def diff(
    folder: Annotated[Path, Parameter(help="The release folder.")],
    *,
    environment: Environment = "prod",
    variables: Variables = None,
    as_json: Json = False,
) -> int:
    """What servers list now against what was reviewed. Exit code 1 when something differs."""
    release = load_whole(folder, variables)
    if variables is not None:
        read_variables(variables)
    found: list[dict[str, Any]] = []
    for tool, answer in asyncio.run(all_listed(release, environment)).items():
        if isinstance(answer, str):
            found.append({"operation": f"{tool}.*", "state": "unknown", "detail": answer})
            continue
        contracts = [contract for contract in release.contracts.values() if contract.tool == tool]
        found += [msgspec.to_builtins(item) for item in differences(contracts, answer)]
    if as_json:
        print_json(found)
    else:
        _tell(found)
    return NO if any(item["state"] in {"changed", "vanished", "unknown"} for item in found) else OK


def source_of(server: str, credential: str) -> Source:
    """Where a server is, from what a person typed. Raises `Failure`."""
    if server.startswith(("http://", "https://")):
        return Source(url=server, credential=credential)
    try:
        words = shlex.split(server)
    except ValueError as error:
        raise Failure(f"the command cannot be read: {error}", code=USAGE) from error
    if not words:
        raise Failure("say where the server is: an http(s) URL, or the command that starts it", code=USAGE)
    # `interlock up` may run elsewhere, so files are named in full; links stay links, for a venv's python is one.
    full = (str(Path(word).absolute()) if Path(word).is_file() else word for word in words)
    return Source(command=tuple(full), credential=credential)


def name_of(source: Source) -> str:
    """A name for a tool, from its address."""
    if source.url:
        host = source.url.partition("://")[2].partition("/")[0].partition(":")[0]
        parts = [part for part in host.split(".") if part not in {"www", "mcp", "api"}]
        text = parts[0] if parts and not parts[0].isdigit() else "tools"
    else:
        words = [word for word in source.command if not word.startswith("-")]
        text = Path(words[-1]).stem if words else "tools"
    return _NAME.sub("-", text.lower()).strip("-")[:64] or "tools"


def list_named(tool: str, source: Source) -> dict[str, ListedTool]:
    """What a server lists, by the names it gets here. Raises `Failure`."""
    place = ToolSource(url=source.url, command=source.command, credential=source.credential)
    try:
        return named(asyncio.run(listed(tool, place)))
    except UnlistedError as error:
        hint = "does the command run by itself? is the URL the server's MCP endpoint?"
        raise Failure(f"the server does not list its tools: {plain(str(error), 500)}", hint=hint, code=UNREACHABLE) from error
    except ListingError as error:
        raise Failure(str(error)) from error


def answered(tool: str, waiting: tuple[Pending, ...], given: Mapping[str, Any] | None, *, yes: bool) -> dict[str, Answer]:
    """What a person says of drafts: in a file, by taking the suggestions, or asked one by one. Raises `Failure`."""
    if given is not None:
        return _from_file(tool, waiting, given)
    if yes:
        return {
            item.operation: Answer(effects=item.effects, targets=item.targets, content=item.content)
            for item in waiting
            if not item.findings
        }
    return ask_all(waiting)


def today() -> str:
    """The day of a review, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def answers_in(place: Path | None) -> Mapping[str, Any] | None:
    """The answers in a file; None when no file is given. Raises `Failure`."""
    if place is None:
        return None
    try:
        found = YAML(typ="safe").load(place.read_text(encoding="utf-8"))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise Failure(f"{place} cannot be read: {error}", code=USAGE) from error
    if not isinstance(found, dict):
        raise Failure(f"{place}: answers are a mapping of operations", code=USAGE)
    return found


def _from_file(tool: str, waiting: tuple[Pending, ...], given: Mapping[str, Any]) -> dict[str, Answer]:
    found = {}
    for item in waiting:
        said = given.get(f"{tool}.{item.operation}", given.get(item.operation))
        if said is None or said == "skip":
            continue
        try:
            answer = msgspec.convert(said, Answer)
        except msgspec.ValidationError as error:
            raise Failure(f"the answer about {item.operation}: {error}", code=USAGE) from error
        found[item.operation] = answer
    return found


def _tell(found: list[dict[str, Any]]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    tones = {"changed": "bold red", "vanished": "red", "unknown": "yellow", "unpinned": "yellow", "new": "green"}
    for item in found:
        console.print(Text(f"{item['state']:<9} {item['operation']}", style=tones[item["state"]]))
        for line in str(item["detail"]).splitlines():
            console.print(Text(f"    {line}"))
    if not found:
        console.print("everything is as it was reviewed")


def _spoken(work: Any) -> Any:
    """Do something with a tool file; what is wrong with it becomes a `Failure`."""
    try:
        return work()
    except ListingError as error:
        raise Failure(str(error), code=USAGE) from error
