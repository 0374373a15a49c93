"""How the story is told and checked: scenes, calls and commands as they happen, and expectations that must hold."""

import asyncio
import json
import os
import time
from pathlib import Path

from rich.console import Console

console = Console(soft_wrap=True, highlight=False)
FOLDER = Path(os.environ.get("INTERLOCK_DEMO_FOLDER", ".demo"))
PATIENCE_S = 60


class Expectations:
    """Counts what held. A demo that only prints proves nothing."""

    def __init__(self):
        self.held, self.failed = 0, []

    def that(self, holds, sentence):
        if holds:
            self.held += 1
            console.print(f"   [green]✓[/] {sentence}")
        else:
            self.failed.append(sentence)
            console.print(f"   [bold red]✗ {sentence}[/]")


expect = Expectations()


def scene(title):
    console.print()
    console.rule(f"[bold]{title}", align="left")


def said(result):
    return " ".join(block.text for block in result.content if block.type == "text")


def decision(result):
    return (result.meta or {}).get("interlock/decision", {})


async def tell(connected, name, **arguments):
    """Make a call and show it."""
    console.print(f"   [cyan]agent →[/] {name} {json.dumps(arguments)}")
    result = await connected.call_tool(name, arguments)
    style = "red" if result.is_error else "white"
    console.print(f"   [{style}]      ← {said(result)[:300]}[/]")
    return result


def shown(words, user, out):
    console.print(f"   [yellow]{user} →[/] interlock {words}")
    console.print("\n".join(f"      {line[:200]}" for line in out.strip().splitlines()[:16]), markup=False)


async def until(ask, holds):
    """Ask until the answer is as it should be: some things come true in moments, not at once."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        told = await ask()
        if holds(told) or time.monotonic() > deadline:
            return told
        await asyncio.sleep(0.2)
