"""Every command stands on one page, with its options as the program has them. `INTERLOCK_UPDATE_GOLDEN=1` writes it."""

import os
from pathlib import Path

from interlock.cli.main import app
from tests.house.test_house_docs import commands_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "commands.md"
SHARED = (
    "--as",
    "--environment",
    "--server",
    "--state",
    "--directory",
    "--database-password-command",
    "--database-password-from",
)
# What a command is for, and which commands that are, by the first word.
SUBJECTS = {
    "Serve": "up mcp db keys",
    "Log in": "login logout whoami token",
    "Stop, and be more careful": "kill resume posture revoke status",
    "Answer what waits for people": "approvals doubts",
    "Write and change a release": "init tools release policy decide redteam canary",
    "Look at what happened": "trace sessions agents budgets breakers audit",
}
HEAD = """# Commands

*For everybody who types them.* This page is made from the program by a test; `interlock COMMAND --help` says the same.

- **Who you are.** Commands that ask a server do so as the person who is logged in there (`interlock login`), or as the one that `--as` names, where
  the [development issuer](../how-to/log-in.md) is trusted. None of these opens the database; `db` and `audit` do.
- **`--json`** prints JSON, for programs. Every command has it, but `mcp`, which speaks MCP on its output.
- **Exit codes**: 0 done; 1 no (refused, problems found, something differs); 2 the command is not as it should be; 3 the server or the database is not
  there. `interlock up` ends with 143 when it is told to before it serves.
- **Variables** stand for options that are not given.
"""


def shown(argument):
    """An option, or the word in its place."""
    names = [name for name in argument.names if not name.startswith("--empty-")]
    return (
        f"`{names[0].removeprefix('--').upper()}`" if argument.index is not None else ", ".join(f"`{name}`" for name in names)
    )


def said(argument):
    """What it is, whether it must be there, what holds when it is not given, and the variable that may stand for it."""
    found = [argument.parameter.help.strip().replace("|", "\\|")]
    if argument.required:
        found.append("Needed.")
    elif argument.field_info.default not in (None, "", False, True):
        found.append(f"`{argument.field_info.default}` when not given.")
    return " ".join(found) + "".join(f" `{name}`" for name in argument.parameter.env_var or ())


def most_said(arguments):
    """Of one option of many commands, as most of them have it."""
    told = [said(argument) for argument in arguments]
    return max(arguments, key=lambda argument: told.count(said(argument)))


def table(arguments):
    """Rows of a table of options."""
    return ["| | |", "|---|---|", *(f"| {shown(argument)} | {said(argument)} |" for argument in arguments), ""]


def rendered():
    commands = {
        name: (command, [argument for argument in command.assemble_argument_collection() if not argument.children])
        for name, command in commands_of(app)
    }
    every = [argument for _, found in commands.values() for argument in found if argument.name in SHARED]
    shared = {name: most_said([argument for argument in every if argument.name == name]) for name in SHARED}
    lines = [HEAD, "## What many commands take", "", *table([shared[name] for name in SHARED])]
    for subject, words in SUBJECTS.items():
        lines += [f"## {subject}", ""]
        for name in (name for word in words.split() for name in commands if name.split()[0] == word):
            command, arguments = commands[name]
            also = [
                argument for argument in arguments if argument.name in shared and said(argument) == said(shared[argument.name])
            ]
            own = [argument for argument in arguments if argument not in also and argument.name != "--json"]
            also_takes = f" Also takes {', '.join(f'`{argument.name}`' for argument in also)}." if also else ""
            lines += [f"### `interlock {name}`", "", command.help + also_takes, ""]
            lines += table(own) if own else []
    return "\n".join(lines)


def test_the_page_of_commands_says_what_the_program_has():
    if os.environ.get("INTERLOCK_UPDATE_GOLDEN"):
        PAGE.write_text(rendered(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == rendered()


def test_every_command_has_a_place_on_the_page():
    assert {name.split()[0] for name, _ in commands_of(app)} == {word for words in SUBJECTS.values() for word in words.split()}
