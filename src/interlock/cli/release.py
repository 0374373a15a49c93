"""Commands about releases and policies that need no server: check, show, test, explain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from interlock.cli.common import Json, read_variables
from interlock.cli.output import NO, OK, USAGE, Failure, print_json
from interlock.policy.coverage import coverage_of, detail, summary
from interlock.policy.engine import Engine
from interlock.policy.errors import PolicyError
from interlock.policy.testing import explanations, facts_of, render, run_test
from interlock.release.errors import ReleaseError
from interlock.release.load import load, read_files
from interlock.release.model import PolicyTest, Release
from interlock.release.show import cedar_text, schema_text
from interlock.release.testfiles import load_tests

Folder = Annotated[Path, Parameter(help="The release folder.")]
Variables = Annotated[Path | None, Parameter(help="File of NAME=value lines for ${NAME} in tool sources.")]


def read_folder(folder: Path) -> dict[str, str]:
    """The files of a release folder, for sending. Raises `Failure` with every problem."""
    try:
        return read_files(folder)
    except ReleaseError as error:
        raise release_failure(error) from error


def check(folder: Folder, *, variables: Variables = None, as_json: Json = False) -> int:
    """Validate a release folder. Exit code 1 and every problem with file and line when there are any."""
    release = load_whole(folder, variables)
    found = {
        "name": release.name,
        "digest": release.digest,
        "operations": len(release.contracts),
        "policies": len(release.policies),
        "tests": len(release.tests),
    }
    if as_json:
        print_json(found)
    else:
        print(f"{release.name} is fine: {found['operations']} operations, {found['policies']} policies, {found['tests']} tests")
        print(release.digest)
    return OK


def show(
    folder: Folder,
    *,
    cedar: Annotated[bool, Parameter(negative="", help="All policies, grants compiled, by layer.")] = False,
    schema: Annotated[bool, Parameter(negative="", help="The Cedar schema generated from the contracts.")] = False,
    variables: Variables = None,
    as_json: Json = False,
) -> int:
    """Show what a release compiles to: --cedar, --schema, or its contracts."""
    release = load_whole(folder, variables)
    if schema:
        print(json.dumps(json.loads(release.cedar_schema), indent=2) if as_json else schema_text(release))
    elif cedar and as_json:
        print_json([{"id": policy.id, "layer": policy.layer, "cedar": policy.cedar} for policy in release.policies])
    elif cedar:
        print(cedar_text(release))
    elif as_json:
        print_json(list(release.contracts.values()))
    else:
        for contract in sorted(release.contracts.values(), key=lambda item: item.operation):
            kind = ", ".join(sorted(contract.effects)) + (", internal" if contract.internal else "")
            print(f"{contract.operation:32} {kind:24} {contract.description}")
    return OK


def run(
    folder: Folder,
    *,
    tests: Annotated[list[Path] | None, Parameter(help="More tests: a file, or a folder of *.yaml; may be repeated.")] = None,
    only: Annotated[str, Parameter(name="--filter", help="Only tests whose name, operation or place contains this.")] = "",
    coverage: Annotated[bool, Parameter(negative="", help="Say what no test exercises, line by line.")] = False,
    min_coverage: Annotated[
        int, Parameter(help="Exit code 1 below this many percent of policies.", validator=Number(gte=0, lte=100))
    ] = 0,
    variables: Variables = None,
    as_json: Json = False,
) -> int:
    """Run the release's own tests, and others; say what they do not exercise. Exit code 1 when one fails."""
    release = load_whole(folder, variables)
    chosen = [test for test in (*release.tests, *extra_tests(tests)) if _matches(test, only)]
    if not chosen:
        raise Failure("no test matches" if only else "there are no tests", hint="write some in tests/*.yaml", code=NO)
    engine = Engine(release)
    results = tuple(run_test(engine, test) for test in chosen)
    covered = coverage_of(release, explanations(engine, chosen))
    if as_json:
        shown = {**msgspec.to_builtins(covered), "exercised": covered.exercised, "percent": covered.percent}
        print_json({"results": results, "coverage": shown})
    else:
        print(render(results))
        print(summary(covered))
        if coverage:
            print(detail(covered))
        if covered.percent < min_coverage:
            print(f"coverage is below {min_coverage} %")
    return OK if all(result.passed for result in results) and covered.percent >= min_coverage else NO


def extra_tests(places: list[Path] | None) -> tuple[PolicyTest, ...]:
    """The tests in files and folders outside of a release. Raises `Failure` with every problem."""
    try:
        return tuple(test for place in places or () for test in load_tests(place))
    except ReleaseError as error:
        raise release_failure(error, "in the tests") from error


def _matches(test: PolicyTest, text: str) -> bool:
    return text.casefold() in f"{test.name}\n{test.call}\n{test.file}:{test.line}".casefold()


def explain(
    folder: Folder,
    *,
    call: Annotated[str, Parameter(help="The operation, as tool.operation.")],
    args: Annotated[str, Parameter(help="Its arguments as JSON.")] = "{}",
    role: Annotated[list[str] | None, Parameter(help="A role of the user; may be repeated.")] = None,
    agent: Annotated[str, Parameter(help="The agent; needed when several may run the operation.")] = "",
    user: Annotated[str, Parameter(help="The user.")] = "someone",
    tenant: Annotated[str, Parameter(help="The user's tenant.")] = "",
    environment: Annotated[str, Parameter(help="The environment; prod, or the agent's first, when not given.")] = "",
    task: Annotated[str, Parameter(help="The task; the one that fits when not given.")] = "",
    attributes: Annotated[str, Parameter(help="The user's attributes as JSON.")] = "{}",
    resource: Annotated[str, Parameter(help="The attributes of the object as JSON; unknown when not given.")] = "",
    posture: Annotated[str, Parameter(help="How worried the session is: normal, guarded, read_only or halted.")] = "normal",
    variables: Variables = None,
    as_json: Json = False,
) -> int:
    """For one request: which policy of which layer said what. Exit code 1 when it is not allowed."""
    release = load_whole(folder, variables)
    asked = PolicyTest(
        name="explain",
        call=call,
        args=args,
        roles=tuple(role or ()),
        expect="allow",
        agent=agent,
        user=user,
        tenant=tenant,
        environment=environment,
        task=task,
        attributes=_json(attributes, "--attributes"),
        resource=_json(resource, "--resource") if resource else None,
        session={"posture": posture},
    )
    engine = Engine(release)
    try:
        facts = facts_of(engine, asked)
    except (ValueError, PolicyError) as error:
        raise Failure(str(error), code=USAGE) from error
    explanation = engine.explain(facts)
    print(explanation.json() if as_json else explanation.text())
    return OK if engine.decide(facts).__struct_config__.tag == "allow" else NO


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Failure(f"{name} is not JSON: {error}", code=USAGE) from error
    if not isinstance(value, dict):
        raise Failure(f"{name} is a JSON object", code=USAGE)
    return value


def load_whole(folder: Path, variables: Path | None) -> Release:
    """A release folder, loaded. Raises `Failure` with every problem."""
    try:
        if variables is not None:
            return load(folder, read_variables(variables))
        return load(folder, None)
    except ReleaseError as error:
        raise release_failure(error) from error


def release_failure(error: ReleaseError, where: str = "in the release") -> Failure:
    """Every problem as one failure."""
    count = len(error.problems)
    listed = "\n".join(f"  {problem}" for problem in error.problems)
    return Failure(f"{count} problem{'s' if count > 1 else ''} {where}:\n{listed}", details=list(error.problems))
