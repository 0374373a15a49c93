"""The plot: what every process held over the hour, as an SVG that a page can show. By hand, so that no library comes along."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

WIDTH, HEIGHT, LEFT, GAP = 860, 190, 64, 58
STAYED, REPLACED, OTHER = "#0b6e4f", "#8fb8a8", "#34495e"
_FONT: Final = 'font-family="system-ui, sans-serif" font-size="12"'

Points = Sequence[tuple[float, float]]


def plotted(samples: Sequence[Mapping[str, Any]], rolls: Sequence[float]) -> str:
    """Memory and open files of each gateway, private memory of Postgres's backends, and the database's size, over minutes."""
    panels = [
        ("memory of each gateway, MB (dark: the one that was never replaced)", gateways(samples, "rss_mb")),
        ("open files and sockets of each gateway", gateways(samples, "fds")),
        ("private memory of Postgres's backends, MB", [(OTHER, 1.8, _of(samples, "postgres_private_mb"))]),
        ("size of the database, MB (it keeps the record)", [(OTHER, 1.8, _of(samples, "database_mb"))]),
    ]
    end = max((sample["minutes"] for sample in samples), default=1.0)
    height = len(panels) * (HEIGHT + GAP) + 30
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT + 20} {height}" {_FONT}>',
        f'<rect width="100%" height="{height}" fill="white"/>',
    ]
    for number, (title, lines) in enumerate(panels):
        drawn += _panel(title, lines, 34 + number * (HEIGHT + GAP), end, rolls)
    drawn += [
        f'<text x="{LEFT}" y="{height - 8}" fill="#555">minutes; each tick at the foot of a panel is a gateway replaced</text>'
    ]
    return "\n".join([*drawn, "</svg>"]) + "\n"


def gateways(samples: Sequence[Mapping[str, Any]], what: str) -> list[tuple[str, float, Points]]:
    """A line for each gateway that there was."""
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    stayed: set[int] = set()
    for sample in samples:
        for one in sample["gateways"]:
            if what in one:
                found[one["number"]].append((sample["minutes"], one[what]))
                if one["place"] == 0:
                    stayed.add(one["number"])
    order = sorted(found, key=lambda number: number in stayed)
    return [(STAYED if number in stayed else REPLACED, 2.2 if number in stayed else 1.0, found[number]) for number in order]


def _of(samples: Sequence[Mapping[str, Any]], what: str) -> Points:
    return [(sample["minutes"], sample[what]) for sample in samples]


def _panel(title: str, lines: Sequence[tuple[str, float, Points]], top: int, end: float, rolls: Sequence[float]) -> list[str]:
    most = _round_up(max((value for _, _, points in lines for _, value in points), default=1.0))

    def at(minute: float, value: float) -> str:
        return f"{LEFT + minute / end * WIDTH:.1f},{top + HEIGHT - value / most * HEIGHT:.1f}"

    drawn = [f'<text x="{LEFT}" y="{top - 10}" font-weight="600" fill="#222">{escape(title)}</text>']
    for step in range(5):
        value = most * step / 4
        y = top + HEIGHT - step / 4 * HEIGHT
        drawn.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + WIDTH}" y2="{y:.1f}" stroke="#e5e5e5"/>')
        drawn.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{value:g}</text>')
    for minute in range(0, int(end) + 1, max(1, round(end / 12))):
        x = LEFT + minute / end * WIDTH
        drawn.append(f'<text x="{x:.1f}" y="{top + HEIGHT + 17}" text-anchor="middle" fill="#555">{minute}</text>')
    for minute in rolls:
        x = LEFT + min(minute, end) / end * WIDTH
        drawn.append(f'<line x1="{x:.1f}" y1="{top + HEIGHT}" x2="{x:.1f}" y2="{top + HEIGHT - 4}" stroke="#c0392b"/>')
    for colour, width, points in lines:
        if points:
            path = " ".join(at(*point) for point in points)
            drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" points="{path}"/>')
    return drawn


def _round_up(value: float) -> float:
    step = 10.0 ** max(0, len(str(int(value))) - 1)
    return max(4.0, next(step * part for part in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 5, 6, 8, 10) if step * part >= value))
