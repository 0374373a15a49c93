"""The report of a red-team run: a table for terminals, Markdown, and one HTML file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from typing import Final

from interlock.redteam.model import Attempt, Finding, Outcome, Report
from interlock.redteam.owasp import BY_ID, TOP_TEN
from interlock.release.review.scan import plain

WORDS: Final = {
    Outcome.STOPPED: "stopped",
    Outcome.HUMAN: "reached a person",
    Outcome.BROKEN: "could not be tried",
    Outcome.OPEN: "OPEN",
}
_WORST_FIRST: Final = (Outcome.OPEN, Outcome.BROKEN, Outcome.HUMAN, Outcome.STOPPED)
_SHOWN_CHARS: Final = 160
DRY: Final = "No tool was called: recorders stood in their place. The gate, the policies and the database were the real ones."


def summary(report: Report) -> str:
    """The run in one line."""
    counts = ", ".join(f"{report.count(outcome)} {WORDS[outcome]}" for outcome in _WORST_FIRST if report.count(outcome))
    tried = sum(len(finding.attempts) for finding in report.findings)
    return f"{len(report.findings)} attacks in {tried} attempts: {counts or 'nothing was tried'}"


def rows(report: Report) -> Iterator[tuple[str, str, str, str, str]]:
    """Worst first: what became of it, OWASP's id, the attack, where, and what stopped it."""
    for finding in in_order(report.findings):
        where = f"{finding.environment} {finding.agent}".strip()
        yield WORDS[finding.outcome], finding.risk, finding.title, where, what_stopped(finding)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The open ones first, then by risk."""
    return sorted(findings, key=lambda item: (_WORST_FIRST.index(item.outcome), item.risk, item.id))


def what_stopped(finding: Finding) -> str:
    """What kept the attempts of an attack from running, in a line; for an open one, what ran."""
    if finding.outcome is Outcome.OPEN:
        ran = [attempt for attempt in finding.attempts if attempt.outcome is Outcome.OPEN]
        return f"{len(ran)} of {len(finding.attempts)} ran: {ran[0].name}"
    return ", ".join(dict.fromkeys(stopper(attempt) for attempt in finding.attempts))


def stopper(attempt: Attempt) -> str:
    """What stopped one attempt: its kind, and the policy, budget or control by name."""
    if attempt.by is None:
        return attempt.code
    return f"{attempt.by.value}: {', '.join(attempt.rules)}" if attempt.rules else f"{attempt.by.value} ({attempt.code})"


def advice(report: Report) -> Iterator[str]:
    """What to do about what is open, each once."""
    found = (f"{item.id}: {item.advice}" for item in in_order(report.findings) if item.outcome is Outcome.OPEN)
    return iter(dict.fromkeys(found))


def notes(report: Report) -> Iterator[str]:
    """What to know about the rest: what proves little, and what was not tried."""
    yield from dict.fromkeys(f"{item.id}: {item.note}" for item in report.findings if item.note)
    yield from (f"not tried: {item}" for item in report.untried)
    for risk in TOP_TEN:
        if risk.untried:
            yield f"not tried, of {risk.id} {risk.name}: {risk.untried}"


def markdown(report: Report) -> str:
    """The whole report as Markdown."""
    lines = [
        f"# Red team: {_md(report.release)}",
        "",
        f"`{report.digest}`, in {', '.join(report.environments)}. {summary(report)}.",
        DRY,
        "",
    ]
    if not report.is_closed:
        lines += ["## What is open", "", *(f"- {_md(item)}" for item in advice(report)), ""]
    for risk in TOP_TEN:
        found = in_order(item for item in report.findings if item.risk == risk.id)
        lines += [f"## {risk.id} {risk.name}", "", risk.means, ""]
        if not found:
            lines += ["Nothing in this release gave rise to an attack of this kind.", ""]
            continue
        lines += ["| attack | where | attempt | became | stopped by |", "|---|---|---|---|---|"]
        lines += [
            f"| {_md(item.title)} | {_md(item.environment)} {_md(item.agent)} | {_md(attempt.name)} "
            f"| {WORDS[attempt.outcome]} | {_md(stopper(attempt))} |"
            for item in found
            for attempt in item.attempts
        ]
        lines.append("")
    lines += ["## What this does not say", "", *(f"- {_md(item)}" for item in notes(report)), ""]
    return "\n".join(lines)


def _md(text: str) -> str:
    return plain(text.replace("|", "\\|").replace("`", "'").replace("<", "&lt;").replace("\n", " "), _SHOWN_CHARS * 2)


_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1,h2{line-height:1.2}table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}
td,th{border-bottom:1px solid #d5dae1;padding:.35rem .6rem;text-align:left;vertical-align:top}
code{font-size:.85em;overflow-wrap:anywhere}.open{color:#b00020;font-weight:700}.human{color:#8a5a00}.stopped{color:#0b6b3a}
.broken{color:#5b3a9e;font-weight:700}.note{color:#57606a}
@media (prefers-color-scheme:dark){body{background:#14171a;color:#e6e9ec}td,th{border-color:#343a41}
.open{color:#ff7b8a}.human{color:#e3b35a}.stopped{color:#5ecb92}.broken{color:#b69cf0}.note{color:#9aa4ae}}
"""


def page(report: Report) -> str:
    """The whole report as one HTML file: no script, nothing fetched, every text escaped."""
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>Red team: {_h(report.release)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Red team: {_h(report.release)}</h1><p><code>{_h(report.digest)}</code> in {_h(', '.join(report.environments))}.",
        f"<br>{_h(summary(report))}.</p><p class=note>{DRY}</p>",
    ]
    if not report.is_closed:
        parts.append(f"<h2>What is open</h2><ul>{''.join(f'<li>{_h(item)}' for item in advice(report))}</ul>")
    for risk in TOP_TEN:
        found = in_order(item for item in report.findings if item.risk == risk.id)
        parts.append(f"<h2>{risk.id} {_h(risk.name)}</h2><p>{_h(risk.means)}</p>")
        if not found:
            parts.append("<p class=note>Nothing in this release gave rise to an attack of this kind.</p>")
            continue
        parts.append("<table><tr><th>attack<th>where<th>attempt<th>became<th>stopped by")
        parts += [_row(item, attempt) for item in found for attempt in item.attempts]
        parts.append("</table>")
    parts.append(f"<h2>What this does not say</h2><ul>{''.join(f'<li>{_h(item)}' for item in notes(report))}</ul>")
    return "".join(parts) + "</body></html>\n"


def _row(item: Finding, attempt: Attempt) -> str:
    what = f"<br><code>{_h(attempt.operation)} {_h(attempt.arguments)}</code>" if attempt.arguments else ""
    return (
        f"<tr><td>{_h(item.title)}<td>{_h(item.environment)} {_h(item.agent)}<td>{_h(attempt.name)}{what}"
        f"<td class={attempt.outcome.value}>{WORDS[attempt.outcome]}<td>{_h(stopper(attempt))}"
    )


def _h(text: str) -> str:
    return html.escape(plain(text, _SHOWN_CHARS * 2))


def risk_name(identifier: str) -> str:
    """OWASP's name of a risk, by its id."""
    return BY_ID[identifier].name
