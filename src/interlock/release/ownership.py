"""Which team owns which part of a release, and whose people must stand behind a change of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def changed(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """The files that were added, removed or edited, sorted."""
    return tuple(sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)))


def owners_of(file: str, owners: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """The teams that own a file by the longest path that covers it; none when nobody claims it."""
    found: dict[str, int] = {}
    for team, places in owners.items():
        lengths = [len(place) for place in places if file == place or file.startswith(place.rstrip("/") + "/")]
        if lengths:
            found[team] = max(lengths)
    longest = max(found.values(), default=0)
    return frozenset(team for team, length in found.items() if length == longest)


def teams_needed(files: Iterable[str], owners: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """The teams that own any of these files."""
    return frozenset().union(*(owners_of(file, owners) for file in files))


def teams_of(roles: Iterable[str], teams: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """The teams that somebody with these roles belongs to."""
    held = set(roles)
    return frozenset(team for team, members in teams.items() if held & set(members))
