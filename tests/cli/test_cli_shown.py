"""What tools, agents and people wrote is shown on a terminal, and moves no cursor."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from interlock.cli.output import print_table
from interlock.cli.shown import Text, shown

WIPES_THE_SCREEN = "harmless\x1b[2J\x1b]0;title\x07\u202e"


def test_an_escape_sequence_is_written_out():
    assert shown(WIPES_THE_SCREEN) == "harmless\\x1b[2J\\x1b]0;title\\x07\\u202e"


@given(st.text())
def test_no_text_holds_a_control_but_line_breaks_and_tabs(said):
    out = io.StringIO()
    line = Text("> ").append(said)
    Console(file=out, force_terminal=False, soft_wrap=True, markup=False).print(Text(said), line)
    assert not {sign for sign in out.getvalue() if ord(sign) < 32 or 127 <= ord(sign) < 160} - {"\n", "\t"}


def test_neither_does_a_table_or_what_is_already_harmless(capsys):
    print_table(("tool",), [(WIPES_THE_SCREEN,)], empty="")
    assert "\x1b" not in capsys.readouterr().out
    assert shown("ordinary\ttext\nof two lines, é 漢") == "ordinary\ttext\nof two lines, é 漢"
