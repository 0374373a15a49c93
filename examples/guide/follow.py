"""Follow docs/guide.md word by word, and say how long it takes: `make guide`, or `python -m examples.guide.follow`.

Every block is done as it is written, in a fresh folder: clone, set-up, files, commands, conversations at a terminal, the browser; every output is
compared. Nothing of a command is changed. What the guide says a reader may set is set in the environment: the port, and where the repository is.
Exit code 1 names the block that did not hold.
"""

import argparse
import contextlib
import json
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

from examples.guide.blocks import Broken, blocks_of, missing
from examples.guide.terminals import WAIT_S, Terminal, clean_environment
from examples.guide.window import Window
from tests.support.postgres import forget_all

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide.md"
DEFAULT_SERVER = "http://127.0.0.1:8080"
FIRST = "first-governed-call"


def a_free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Reader:
    """Somebody who does what a guide says, in a folder of their own."""

    def __init__(self, folder, *, here, pictures=None, tell=print, patience_s=WAIT_S):
        self.timeline, self.first_call_s = [], None
        self._here, self._tell, self._kept, self._patience_s = here, tell, {}, patience_s
        self._start, self._memory = folder / "start", folder / "memory"
        self._start.mkdir()
        self._memory.mkdir()
        port = a_free_port()
        self._server = f"http://127.0.0.1:{port}"
        self._environment = clean_environment(
            INTERLOCK_PORT=str(port), INTERLOCK_SERVER=self._server, INTERLOCK_REPOSITORY=str(ROOT)
        )
        self._terminals = {}
        self._window = Window(self._local, pictures)
        self._output, self._began = "", time.monotonic()
        if here:
            self._stand_in()

    def follow(self, blocks):
        """Do all of it. Raises `Broken` for the first block that does not hold."""
        waiting = list(blocks)
        self._began = time.monotonic()
        while waiting:
            block = waiting.pop(0)
            began = time.monotonic()
            follower = waiting[0] if waiting else None
            if block.kind == "run" and follower is not None and follower.kind == "conversation":
                self._output = self._terminal(block).converse(block, self._expected(waiting.pop(0)))
            elif block.kind == "replace":
                self._replace(block, waiting.pop(0) if follower is not None and follower.kind == "by" else None)
            elif "set-up" in block.words and self._here:
                continue
            else:
                self._do(block)
            ended = time.monotonic()
            if FIRST in block.words:
                self.first_call_s = round(ended - self._began, 1)
            self._note(block, began, ended)

    def close(self):
        self._window.close()
        for terminal in self._terminals.values():
            terminal.close()

    def _do(self, block):
        match block.kind:
            case "run" if "until" in block.words:
                self._output = self._terminal(block).leave_running(block)
            case "run":
                self._output = self._terminal(block).run(block)
                if name := block.words.get("keep"):
                    self._kept[name] = self._output.strip()
            case "shows":
                expected = self._expected(block).lines
                if (line := missing(expected, self._output, whole="whole" in block.words)) is not None:
                    raise Broken(block.place, f"not shown: {line}\nwhat was shown is\n{self._output}")
            case "file":
                place = Path(self._terminal(block).folder, block.words["file"])
                place.write_text(block.text, encoding="utf-8")
            case "browser":
                self._window.do(block, self._kept)
            case "keys":
                self._terminal(block).interrupt(block.place)
            case _:
                raise Broken(block.place, f"a block of {block.kind} cannot stand here")

    def _replace(self, block, by):
        place = Path(self._terminal(block).folder, block.words["replace"])
        text = place.read_text(encoding="utf-8")
        if by is None or text.count(block.text) != 1:
            raise Broken(block.place, f"this does not stand in {place.name} exactly once, which holds\n{text}")
        place.write_text(text.replace(block.text, by.text), encoding="utf-8")

    def _terminal(self, block):
        name = block.words.get("terminal", "first")
        if name not in self._terminals:
            self._terminals[name] = Terminal(name, self._start, self._memory, self._environment, self._patience_s)
        return self._terminals[name]

    def _expected(self, block):
        """What a reader who chose another port expects to see."""
        return type(block)(place=block.place, kind=block.kind, words=block.words, text=self._local(block.text))

    def _local(self, text):
        return text.replace(DEFAULT_SERVER, self._server)

    def _note(self, block, began, ended):
        at, took = began - self._began, ended - began
        what = "; ".join(block.lines[:2]) if block.kind == "run" else " ".join([block.kind, *block.words.values()])
        self.timeline.append({"place": block.place, "kind": block.kind, "at_s": round(at, 2), "took_s": round(took, 2)})
        if block.kind not in {"shows", "file"}:
            self._tell(f"{at:7.1f} s  {took:6.1f} s  {block.place:20} {what[:90]}")

    def _stand_in(self):
        """In place of clone and set-up: this very environment, found where the guide expects it."""
        program = shutil.which("interlock", path=Path(sys.executable).parent)
        if program is None:
            raise Broken(str(GUIDE), "there is no interlock beside this python; run make install")
        place = self._start / "interlock" / ".venv" / "bin"
        place.mkdir(parents=True)
        (place / "activate").write_text(f'export PATH="{Path(program).parent}:$PATH"\n')


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("guide", nargs="?", type=Path, default=GUIDE)
    parser.add_argument("--here", action="store_true", help="use this environment in place of clone and set-up")
    parser.add_argument("--pictures", type=Path, help="folder to keep the guide's pictures in")
    parser.add_argument("--patience-s", type=float, default=WAIT_S, help="for each conversation at a terminal")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(words)
    tell = (lambda _: None) if given.json else (lambda line: print(line, flush=True))
    name = given.guide.resolve().relative_to(ROOT) if given.guide.resolve().is_relative_to(ROOT) else given.guide
    broken = None
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interlock-guide-", ignore_cleanup_errors=True)))
        stack.callback(forget_all, folder)  # root's Postgres keeps its data elsewhere
        reader = Reader(folder, here=given.here, pictures=given.pictures, tell=tell, patience_s=given.patience_s)
        stack.callback(reader.close)
        try:
            reader.follow(blocks_of(given.guide.read_text(encoding="utf-8"), str(name)))
        except Broken as error:
            broken = error
    told = {
        "guide": str(name),
        "held": broken is None,
        "broken": None if broken is None else {"place": broken.place, "why": broken.why},
        "cloned": not given.here,
        "first_governed_call_s": reader.first_call_s,
        "blocks": reader.timeline,
    }
    if given.json:
        print(json.dumps(told, indent=2))
    elif broken is not None:
        print(f"\nThe guide does not hold.\n{broken}", file=sys.stderr)
    else:
        since = "from the first step (nothing was cloned or set up)" if given.here else "from clone"
        print(f"\nThe guide holds: {len(reader.timeline)} blocks.")
        print(f"time {since} to the first governed call: {reader.first_call_s} s")
    return 0 if broken is None else 1


if __name__ == "__main__":
    sys.exit(main())
