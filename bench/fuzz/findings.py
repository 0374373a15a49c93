"""What a part of the fuzzing gives back, and how the report shows it."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must not be. `how` is what shows it again: a request, a seed, bytes."""

    what: str
    where: str
    how: str = ""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one part did, in figures, and what it found."""

    name: str
    seconds: float
    figures: dict[str, int]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run."""

    seed: int
    minutes: float
    version: str
    parts: tuple[Part, ...]

    @property
    def findings(self) -> int:
        """How many things were found in all."""
        return sum(len(part.findings) for part in self.parts)

    def text(self) -> str:
        """For people."""
        lines = [f"make fuzz: seed {self.seed}, {self.minutes:g} minutes, version {self.version}"]
        for part in self.parts:
            lines += ["", f"{part.name} ({part.seconds:.0f} s)"]
            lines += [f"  {value:>10,}  {name}" for name, value in part.figures.items()]
            lines += [f"  note: {note}" for note in part.notes]
            for found in part.findings:
                lines += [f"  FOUND {found.where}: {found.what}", *(f"      {line}" for line in found.how.splitlines())]
        return "\n".join([*lines, "", "nothing was found" if not self.findings else f"{self.findings} things were found"])
