"""What marks tell of stops, postures and revocations, put back into a restored database. Nothing here loosens anything."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from interlock.core.ports import Ids
from interlock.core.terms import Posture
from interlock.ledger.drafts import draft
from interlock.ledger.restores import ControlRecovered
from interlock.store.mark import Part, Revoked, Standing, Stop, Worry
from interlock.store.restorations import Restorations


def latest(parts: Iterable[Part]) -> Standing | None:
    """What stood last, as far as these parts tell."""
    found = (line for part in parts for line in part.lines if isinstance(line, Standing))
    return max(found, key=lambda line: (line.epoch, line.seq, line.at_us), default=None)


async def put_back(restorations: Restorations, standing: Standing, ids: Ids, *, since_us: int) -> tuple[str, ...]:
    """Let everything stand at least as it stood; gives it in words. Of revocations only those after `since_us` are told.

    Raises `StoreUnavailableError`.
    """
    told = []
    for stop in standing.stops:
        body = ControlRecovered(
            what="stop" if stop.halted else "posture",
            target=stop.scope,
            posture=stop.posture,
            reason=stop.reason if stop.halted else stop.posture_reason,
            by=stop.by if stop.halted else stop.posture_by,
            marked_at_us=standing.at_us,
        )
        await restorations.stop_again(stop, draft(body, ids=ids))
        told.append(_of_stop(stop))
    for worry in standing.worries:
        body = ControlRecovered(
            what="posture",
            target=worry.lineage_id,
            posture=worry.posture,
            reason=worry.reason,
            by=worry.by,
            marked_at_us=standing.at_us,
        )
        await restorations.worry_again(worry, draft(body, ids=ids))
        told.append(_of_worry(worry))
    for revoked in standing.revoked:
        body = ControlRecovered(
            what="revocation",
            target=f"{revoked.target}:{revoked.name}",
            posture="",
            reason=revoked.reason,
            by=revoked.by,
            marked_at_us=standing.at_us,
        )
        await restorations.revoke_again(revoked, draft(body, ids=ids))
        if revoked.before_us > since_us:
            told.append(_of_revoked(revoked))
    return tuple(told)


def look_at(standing: Standing | None, halted: Iterable[str], release_digest: str) -> tuple[str, ...]:
    """What a person has to see to before writes go on. `halted` are the scopes that are stopped now."""
    if standing is None:
        return ("no mark tells of stops, postures, revocations and releases: look at what was changed after the backup",)
    stopped_then = {stop.scope for stop in standing.stops if stop.halted}
    resumed = sorted(scope for scope in set(halted) - stopped_then if not scope.startswith("quarantine:"))
    found = [
        f"{scope} was resumed after the backup, and is stopped as it was in it; resume it if it may go on" for scope in resumed
    ]
    if standing.release_digest != release_digest:
        then, now = _short(standing.release_digest), _short(release_digest)
        found.append(
            f"release {then} was in force, and {now} is now: what was narrowed since is open again until it is activated; "
            "whoever resumes under this one must name it"
        )
    if standing.cut:
        found.append("there was more stopped, worried or revoked than a mark holds: look at all of it")
    return tuple(found)


def _of_stop(stop: Stop) -> str:
    if stop.halted and stop.posture != Posture.HALTED:
        return f"{stop.scope} is stopped, as {stop.by} said: {stop.reason}"
    return f"{stop.scope} is {stop.posture}, as {stop.posture_by} said: {stop.posture_reason}"


def _of_worry(worry: Worry) -> str:
    where = f"{worry.agent} for {worry.user} ({worry.tenant}, {worry.environment})"
    return f"{where} is {worry.posture}, as {worry.by} said: {worry.reason}"


def _of_revoked(revoked: Revoked) -> str:
    at = datetime.fromtimestamp(revoked.before_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"what {revoked.target} {revoked.name} was issued before {at} is refused, as {revoked.by} said: {revoked.reason}"


def _short(digest: str) -> str:
    return digest[:19] if digest else "none"
