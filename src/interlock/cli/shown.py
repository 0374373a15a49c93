"""Texts of tools, agents and people on a terminal: what they hold is shown, and moves no cursor."""

from __future__ import annotations

from typing import Any, Final

from rich.style import Style
from rich.text import Text as Plain

# C0 and C1 controls, and the signs that turn the direction of what follows; line breaks and tabs stay.
_CONTROLS: Final = {*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {ord("\n"), ord("\t")}
_SHOWN: Final = {code: chr(code).encode("unicode_escape").decode() for code in _CONTROLS}


def shown(said: str) -> str:
    """The text with every control written out in letters and digits."""
    return said.translate(_SHOWN)


class Text(Plain):
    """rich's `Text` of which no part can be a command to the terminal."""

    def __init__(self, said: str = "", *more: Any, **named: Any) -> None:
        super().__init__(shown(said), *more, **named)

    def append(self, text: Plain | str, style: str | Style | None = None) -> Plain:
        """Add to the end; a string is made safe first."""
        return super().append(shown(text) if isinstance(text, str) else text, style)
