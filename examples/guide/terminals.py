"""Terminals as a reader has them: each remembers its folder and variables from one block to the next."""

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from examples.guide.blocks import Broken, pattern, typed

WAIT_S = 180
SET_UP_S = 1_200
STOP_S = 40
SIZE = struct.pack("HHHH", 50, 240, 0, 0)


def clean_environment(**more):
    """The environment of somebody who has not set anything up: nothing of ours but what the guide says one may set."""
    ours = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("INTERLOCK_")}
    own = str(Path(sys.prefix, "bin"))
    if sys.prefix != sys.base_prefix:
        kept["PATH"] = os.pathsep.join(
            part for part in kept["PATH"].split(os.pathsep) if os.path.realpath(part) != os.path.realpath(own)
        )
    return {**kept, "TERM": "dumb", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", **more}


class Terminal:
    """A shell in a folder."""

    def __init__(self, name, start, memory, environment, patience_s=WAIT_S):
        self._env, self._cwd = memory / f"{name}.env", memory / f"{name}.cwd"
        self._script = memory / f"{name}.sh"
        self._environment = environment
        self._running = None
        self._patience_s = patience_s
        self._env.write_text("")
        self._cwd.write_text(f"{start}\n")

    @property
    def folder(self):
        return self._cwd.read_text().removesuffix("\n")

    def run(self, block):
        """Run a block to its end. Gives what it printed. Raises `Broken`."""
        process = self._started(block, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        try:
            output, _ = process.communicate(timeout=SET_UP_S if "set-up" in block.words else WAIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Broken(block.place, f"it did not end; it printed\n{process.communicate()[0].decode()}") from None
        return self._ended(block, process.returncode, output.decode())

    def converse(self, block, conversation):
        """Run a block at a terminal and type what the conversation says, when it says it. Raises `Broken`."""
        main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, SIZE)
        process = self._started(block, stdout=side, stdin=side)
        os.close(side)
        try:
            seen = _said(main, conversation, self._patience_s)
        finally:
            os.close(main)
            with contextlib.suppress(ProcessLookupError):
                if process.poll() is None:
                    process.wait(STOP_S)
        return self._ended(block, process.returncode, seen)

    def leave_running(self, block):
        """Start what stays, and wait until it says that it is ready. Raises `Broken`."""
        process = self._started(block, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self._running = process
        text, deadline = "", time.monotonic() + WAIT_S
        while not any(block.words["until"] in line for line in text.splitlines()[: text.count("\n")]):
            ready, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
            more = os.read(process.stdout.fileno(), 65_536) if ready else b""
            if not more:
                raise Broken(block.place, f"{block.words['until']!r} did not come; it printed\n{text}")
            text += more.decode()
        return text

    def interrupt(self, place):
        """Ctrl-C. Raises `Broken` when what runs does not end by it."""
        if self._running is None:
            raise Broken(place, "nothing runs in this terminal")
        os.killpg(self._running.pid, signal.SIGINT)
        try:
            self._running.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            raise Broken(place, "it goes on after Ctrl-C") from None

    def close(self):
        """End what is left, as closing a window does."""
        if self._running is None or self._running.stdout.closed:
            return
        if self._running.poll() is None:
            os.killpg(self._running.pid, signal.SIGTERM)
        try:
            self._running.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._running.pid, signal.SIGKILL)
            self._running.communicate()

    def _started(self, block, *, stdout, stdin):
        env, cwd = shlex.quote(str(self._env)), shlex.quote(str(self._cwd))
        keep = f"trap 'status=$?; export -p > {env}; pwd > {cwd}; exit $status' EXIT"
        self._script.write_text(f". {env}\ncd {shlex.quote(self.folder)}\n{keep}\n{block.text}")
        return subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-e", str(self._script)],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
        )

    def _ended(self, block, code, output):
        wanted = int(block.words.get("exit", "0"))
        if code != wanted:
            raise Broken(block.place, f"it ended with {code} and not with {wanted}; it printed\n{output}")
        return output


def _said(main, conversation, patience_s):
    decoder = codecs.getincrementaldecoder("utf-8")()
    everything, ahead, deadline = "", "", time.monotonic() + patience_s

    def more():
        nonlocal everything, ahead
        ready, _, _ = select.select([main], [], [], max(0, deadline - time.monotonic()))
        try:
            data = os.read(main, 65_536) if ready else b""
        except OSError:  # the other side has closed
            data = b""
        text = decoder.decode(data).replace("\r\n", "\n")
        everything, ahead = everything + text, ahead + text
        return bool(data)

    for line in conversation.lines:
        prompt, answer = typed(line)
        look = re.compile(pattern(prompt))
        while not (found := look.search(ahead)):
            if not more():
                raise Broken(conversation.place, f"{line.strip()!r} did not come; what came was\n{everything}")
        ahead = ahead[found.end() :]
        if answer is not None:
            os.write(main, f"{answer}\n".encode())
    while more():
        pass
    return everything
