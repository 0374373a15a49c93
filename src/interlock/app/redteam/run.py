"""A whole red-team run: one dry process for each environment of the release, all attacks in it, one report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from interlock.app.redteam.dry import DryConnectors, World, dry_files
from interlock.app.redteam.identities import handed_on, stopped, tokens
from interlock.app.redteam.misuses import approvals, listings, loops, repeats
from interlock.app.redteam.stage import Stage
from interlock.app.redteam.verdicts import Verdicts
from interlock.app.system import Settings, running
from interlock.core.ports import Clock
from interlock.core.risk import RiskRules
from interlock.core.terms import Effect
from interlock.policy.engine import Engine
from interlock.redteam.derive import derive
from interlock.redteam.model import Finding, Report
from interlock.redteam.principals import Casting
from interlock.redteam.suspects import effects_of
from interlock.release.load import digest_of, from_files

_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
NOWHERE: Final = "http://nowhere.invalid/mcp"
BEARER: Final = (
    "a session token that is stolen while it is good: whoever holds it is the agent, for a quarter of an hour at most; "
    "`interlock revoke` ends it at once"
)


class UnknownOperationError(ValueError):
    """The release has no such operation."""


class UnknownEnvironmentError(ValueError):
    """The release has no identity in an environment that was named."""


async def red_team(
    files: Mapping[str, str], *, state: Path, database_url: str, environments: Iterable[str] = (), only: Iterable[str] = ()
) -> Report:
    """Attack the release in these files. `state` takes keys, `database_url` is a migrated database of its own.

    `only` names the operations to attack, all when there are none.

    Raises:
        ReleaseError: the release does not load.
        UnknownEnvironmentError, UnknownOperationError: nothing can be tried there, or on it.
        StoreUnavailableError: the database went away.
    """
    variables = {name: NOWHERE for text in files.values() for name in _VARIABLE.findall(text)}
    original = from_files(files, variables)
    dry = dry_files(files, original)
    release = from_files(dry, variables)
    known = tuple(dict.fromkeys(identity.environment for identity in release.identities))
    chosen = tuple(environments) or known
    named = frozenset(only)
    if named - release.contracts.keys():
        raise UnknownOperationError(f"there is no operation {', '.join(sorted(named - release.contracts.keys()))}")
    for environment in chosen:
        if environment not in known:
            raise UnknownEnvironmentError(f"no agent has an identity in {environment!r}; there are {', '.join(known)}")
    findings: list[Finding] = []
    untried: dict[str, None] = {}
    recorded = 0
    engine = Engine(release)
    for environment in chosen:
        world = World(release)
        settings = Settings(
            state=state,
            database_url=database_url,
            environment=environment,
            variables=variables,
            release_files=dry,
            trust_dev_issuer=True,
        )
        casting = Casting(engine, environment)
        attacks, missed = derive(casting)
        untried |= dict.fromkeys(missed)

        def recorders(clock: Clock, environment: str = environment, world: World = world) -> DryConnectors:
            return DryConnectors(environment=environment, clock=clock, world=world)

        async with running(settings, connectors=recorders) as system:
            # What detectors find is taken for nothing: the next text is written so that they do not.
            system.risk.rules = RiskRules
            stage = Stage(system, world, Verdicts(engine.prepared.slices), release)
            findings += [await stage.play(attack) for attack in attacks if not named or attack.operation in named]
            findings += await _people(stage, casting, state, named)
        recorded += len(world.calls)
    untried[BEARER] = None
    return Report(
        release=original.name,
        digest=digest_of(files),
        environments=chosen,
        findings=tuple(findings),
        untried=tuple(untried),
        recorded_calls=recorded,
    )


async def _people(stage: Stage, casting: Casting, folder: Path, named: frozenset[str]) -> list[Finding]:
    """What needs more than a script: tokens, approvals, repeats, loops, listings."""
    callable_here = [
        (contract, principal)
        for _, contract in sorted(casting.release.contracts.items())
        if not contract.internal
        and (not named or contract.operation in named)
        and (principal := casting.best(contract)) is not None
        and principal.expected != "deny"
    ]
    freely = [(contract, principal) for contract, principal in callable_here if principal.expected == "allow"]
    found: list[Finding] = []
    if freely:
        contract, principal = freely[0]
        found.append(await tokens(stage, contract, principal, folder))
        found += [item for item in (await stopped(stage, contract, principal),) if item is not None]
        for other, whose in freely[1:]:
            if (whose.agent, whose.task) == (principal.agent, principal.task):
                found.append(await handed_on(stage, contract, other, whose))
                break
    for contract, principal in freely:
        if effects_of(contract) == {Effect.READ}:
            continue
        again = await repeats(stage, contract, principal)
        found += [] if again is None else [again]
        found.append(await loops(stage, contract, principal))
    for contract, _ in callable_here:
        waiting = casting.waiting(contract)
        asked = None if waiting is None else await approvals(stage, contract, waiting)
        found += [] if asked is None else [asked]
    return [*found, *await listings(stage, callable_here)]
