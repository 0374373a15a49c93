"""`tests/*.yaml`: requests and what must be decided, of the release's own folder or of another place."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from interlock.core.terms import Origin
from interlock.release.documents import Node, Problems, read_yaml
from interlock.release.errors import Problem, ReleaseError
from interlock.release.model import PolicyTest

TEST_FILE: Final = re.compile(r"^tests/[^/]+\.yaml$")
MAX_TEST_FILES: Final = 2_000


class TestSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `tests/*.yaml`."""

    call: str
    expect: str
    name: str = ""
    args: dict[str, Any] = {}
    roles: str | list[str] = msgspec.field(default_factory=list, name="as")
    agent: str = ""
    user: str = "someone"
    tenant: str = ""
    environment: str = ""
    task: str = ""
    attributes: dict[str, Any] = {}
    resource: dict[str, Any] | None = None
    session: dict[str, Any] = {}
    obligations: list[str] | None = None
    provenance: dict[str, Origin] = {}
    plan: dict[str, bool] | None = None
    history: dict[str, bool | int | str] = {}


def read_tests(node: Node, operations: Collection[str] | None, problems: Problems) -> list[PolicyTest]:
    """The tests of one file. With `operations` None, operations that a release does not have are left for the run to name."""
    found: list[PolicyTest] = []
    if node.value and not isinstance(node.value, list):
        problems.add(node, "a file of tests is a list of requests: `- {call: …, args: …, as: …, expect: …}`")
    for number, inside in enumerate(node.each(), start=1):
        spec = problems.convert(inside, TestSpec)
        if spec is None:
            continue
        if operations is not None and spec.call not in operations:
            problems.add(inside.at("call"), f"there is no operation {spec.call!r}")
        found.append(
            PolicyTest(
                name=spec.name or f"{spec.call} #{number}",
                call=spec.call,
                args=json.dumps(spec.args),
                roles=(spec.roles,) if isinstance(spec.roles, str) else tuple(spec.roles),
                expect=spec.expect,
                agent=spec.agent,
                user=spec.user,
                tenant=spec.tenant,
                environment=spec.environment,
                task=spec.task,
                attributes=spec.attributes,
                resource=spec.resource,
                session=spec.session,
                obligations=None if spec.obligations is None else tuple(spec.obligations),
                provenance=spec.provenance,
                plan=spec.plan,
                history=spec.history,
                file=inside.file,
                line=inside.line,
            )
        )
    return found


def read_test_files(files: Mapping[str, str]) -> tuple[PolicyTest, ...]:
    """The tests in the texts of files that belong to no release. Raises `ReleaseError` with every problem found."""
    problems = Problems()
    found: list[PolicyTest] = []
    for name in sorted(files):
        node = read_yaml(name, files[name], problems)
        if node is not None:
            found += read_tests(node, None, problems)
    if problems.found:
        raise ReleaseError(tuple(sorted(set(problems.found))))
    return tuple(found)


def load_tests(place: Path) -> tuple[PolicyTest, ...]:
    """The tests of a file, or of every `*.yaml` below a folder. Raises `ReleaseError`; also when there are none."""
    paths = sorted(place.rglob("*.yaml")) if place.is_dir() else [place]
    if len(paths) > MAX_TEST_FILES:
        raise ReleaseError((Problem(str(place), 0, f"more than {MAX_TEST_FILES} files; is this a folder of tests?"),))
    try:
        files = {str(path): path.read_text(encoding="utf-8") for path in paths}
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError((Problem(str(place), 0, f"cannot be read as UTF-8 text: {error}"),)) from error
    found = read_test_files(files)
    if not found:
        raise ReleaseError((Problem(str(place), 0, "there are no tests here"),))
    return found
