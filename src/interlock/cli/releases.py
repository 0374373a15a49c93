"""Commands that put releases in force, as a person: propose, activate, roll back, and which were."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from interlock.cli.caller import ANYBODY, Caller, Reason
from interlock.cli.common import Json
from interlock.cli.output import NO, OK, print_json, print_table


def propose(
    folder: Annotated[Path, Parameter(help="The release folder.")],
    *,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Store a release for somebody else to activate. Exit code 1 when one of its own tests fails."""
    from interlock.cli.release import read_folder  # noqa: PLC0415  # the parser is heavy

    answer = caller.ask("/v1/releases", body={"files": read_folder(folder)})
    if as_json:
        print_json(answer)
    else:
        print(f"proposed: {answer['name']} {answer['digest']}")
        print(f"  changes: {', '.join(answer['changed']) or 'nothing'}")
        print(f"  owned by: {', '.join(answer['teams']) or 'nobody'}")
        print(f"  tests: {answer['tests_run'] - len(answer['tests_failed'])} of {answer['tests_run']} pass")
        for test in answer["tests_failed"]:
            print(f"    {test['place']}: {test['name']}: expected {test['expected']}, got {test['got']}")
        print("against what is in force:")
        print(_told(answer["diff"]))
        print(f"somebody else activates it: interlock release activate {answer['digest']} --reason … --as …")
    return NO if answer["tests_failed"] else OK


def activate(
    release: Annotated[str, Parameter(help="The digest of a proposed release, or its folder.")],
    *,
    reason: Reason,
    yes: Annotated[bool, Parameter(negative="", help="Do not ask in a terminal whether the changes are meant.")] = False,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Make a proposed release decide from now on; shows first what that changes, answers when every process decides by it."""
    digest = release
    if not release.startswith("sha256:"):
        from interlock.cli.release import read_folder  # noqa: PLC0415  # the parser is heavy
        from interlock.release.load import digest_of  # noqa: PLC0415

        digest = digest_of(read_folder(Path(release)))
    seen = caller.ask(f"/v1/releases/{digest}/diff")
    if not as_json:
        print(_told(seen))
        if not yes and sys.stdin.isatty() and input("put it in force? [y/N] ").strip().lower() not in {"y", "yes"}:
            print("nothing was changed")
            return NO
    answer = caller.ask(f"/v1/releases/{digest}/activate", body={"reason": reason, "instead_of": seen["old"]})
    return _in_force(answer, as_json=as_json)


def rollback(
    release: Annotated[str, Parameter(help="The digest of a release that was in force; the last one when not given.")] = "",
    *,
    reason: Reason,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Make an earlier release decide again. One person is enough: it was looked at before."""
    answer = caller.ask("/v1/releases/rollback", body={"reason": reason, "digest": release})
    return _in_force(answer, as_json=as_json)


def history(
    *,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Which releases were in force, newest first: who put them there, and why."""
    answer = caller.ask("/v1/releases/activations")
    if as_json:
        print_json(answer)
        return OK
    rows = []
    for item in answer["activations"]:
        since = datetime.fromtimestamp(item["at_us"] / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
        rows.append((since, item["name"], item["digest"].removeprefix("sha256:")[:12], item["activated_by"], item["reason"]))
    print_table(("since", "name", "digest", "by", "why"), rows, empty="no release was ever in force", whole="digest")
    return OK


def _told(found: dict[str, Any]) -> str:
    import msgspec  # noqa: PLC0415  # not needed by the other commands

    from interlock.release.diff.compare import Diff, render  # noqa: PLC0415  # the parser is heavy

    return render(msgspec.convert(found, Diff))


def _in_force(answer: dict[str, object], *, as_json: bool) -> int:
    if as_json:
        print_json(answer)
        return OK
    print(f"in force: {answer['name']} {answer['digest']}, after {answer['previous']}")
    late = answer["not_yet_loaded"]
    for process in late if isinstance(late, list) else ():
        print(f"  {process} has not loaded it yet; until it has, it refuses its calls")
    return OK
