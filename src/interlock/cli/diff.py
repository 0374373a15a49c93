"""`interlock policy diff`: two releases beside each other, and what they decide differently."""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from interlock.cli.caller import ANYBODY, Caller
from interlock.cli.common import Json
from interlock.cli.output import NO, OK, Failure, print_json
from interlock.cli.release import extra_tests, read_folder, release_failure
from interlock.cli.shown import shown
from interlock.policy.engine import Engine
from interlock.policy.errors import PolicyError
from interlock.policy.whatif import render as render_decisions
from interlock.policy.whatif import what_would_change
from interlock.release.diff.compare import diff as compare
from interlock.release.diff.compare import render
from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from interlock.release.model import Release

ACTIVE: Final = "active"
Which = Annotated[str, Parameter(help="A release folder, the digest of a stored release, or `active`.")]


def diff(
    old: Which,
    new: Which,
    *,
    over: Annotated[
        list[Path] | None, Parameter(help="More requests to ask both: a file of tests, or a folder; may be repeated.")
    ] = None,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """How two releases differ, and which requests of their tests they decide differently. Exit code 1 when they differ."""
    was, now = _release(old, caller), _release(new, caller)
    found = compare(was, now)
    tests = (*was.tests, *now.tests, *extra_tests(over))
    try:
        decided = what_would_change(Engine(was), Engine(now), tests)
    except PolicyError as error:
        raise Failure(f"the releases cannot be asked: {error}") from error
    if as_json:
        print_json({"diff": found, "counts": found.counts, "decisions": decided})
    else:
        print(shown(render(found)))
        if found.changes:
            print(shown(render_decisions(decided)))
    return NO if found.changes or found.files else OK


def _release(which: str, caller: Caller) -> Release:
    try:
        return from_files(files_of(which, caller))
    except ReleaseError as error:
        raise release_failure(error, f"in {which}") from error


def files_of(which: str, caller: Caller) -> dict[str, str]:
    """The files of a release: of a folder, or of one that the server keeps. Raises `Failure`."""
    digest = which
    if which == ACTIVE and not Path(which).is_dir():
        digest = caller.ask("/v1/releases/active")["digest"]
    if not digest.startswith("sha256:"):
        return read_folder(Path(which))
    files: dict[str, str] = caller.ask(f"/v1/releases/{urllib.parse.quote(digest, safe=':')}")["files"]
    return files
