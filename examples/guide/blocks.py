"""The blocks of a guide: what a reader is told to do, and what they are told they will see.

A fence says what its block is: ```` ```sh run ```` is typed into a terminal, ```` ```text shows ```` is what that prints. A block without such a word is
for reading only. `…` stands for what differs each time; ⏎ is the Enter key, with what is typed before it.
"""

import re

import msgspec

FENCE = re.compile(r"^```(\S+)(.*)$")
WORD = re.compile(r'([\w-]+)(?:=("[^"]*"|\S+))?')
KINDS = {
    ("sh", "run"): "run",
    ("text", "shows"): "shows",
    ("conversation", ""): "conversation",
    ("browser", ""): "browser",
    ("keys", ""): "keys",
    ("yaml", "replace"): "replace",
    ("yaml", "by"): "by",
}
ANYTHING = "…"
ENTER = re.compile(r"^(.*\s)(\S*)⏎$")


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One fenced block. `place` is file:line of its fence; `words` what the fence says besides the language."""

    place: str
    kind: str
    words: dict[str, str]
    text: str

    @property
    def lines(self):
        return [line for line in self.text.splitlines() if line.strip()]


class Broken(Exception):  # noqa: N818  # the guide's failure, not ours
    """Something in the guide did not hold."""

    def __init__(self, place, why):
        super().__init__(f"{place}: {why}")
        self.place, self.why = place, why


def blocks_of(text, name):
    """The blocks of a guide that are to be followed, in order. Raises `Broken` for a fence that nobody would follow."""
    found, fence, inside = [], None, []
    for number, line in enumerate(text.splitlines(), start=1):
        if fence is None:
            if match := FENCE.match(line):
                fence, inside = (number, match[1], match[2].strip()), []
        elif line == "```":
            block = _block(name, *fence, "\n".join(inside) + "\n")
            found += [block] if block is not None else []
            fence = None
        else:
            inside.append(line)
    if fence is not None:
        raise Broken(f"{name}:{fence[0]}", "this block is never closed")
    return found


def _block(name, number, language, rest, text):
    place = f"{name}:{number}"
    words = {word: value.strip('"') for word, value in WORD.findall(rest)}
    if "file" in words:
        return Block(place=place, kind="file", words=words, text=text)
    first = next(iter(words), "")
    kind = KINDS.get((language, first)) or KINDS.get((language, ""))
    if kind is None and words:
        raise Broken(place, f"nobody knows how to follow a block of {language} {rest}")
    return None if kind is None else Block(place=place, kind=kind, words=words, text=text)


def pattern(line):
    """A line of a guide as it is looked for: spaces at its ends do not count, … is anything."""
    return ".*?".join(
        re.escape(part.strip() if index == 0 else part) for index, part in enumerate(line.rstrip().split(ANYTHING))
    )


def missing(expected, output, *, whole=False):
    """The first expected line that does not stand in the output, in order; None when all do. `whole`: and nothing else does."""
    lines = [line for line in output.splitlines() if line.strip()]
    if whole and len(lines) != len(expected):
        return next((line for line in lines if line.strip() not in expected), "exactly these lines")
    at = 0
    for wanted in expected:
        look = re.compile(pattern(wanted))
        while at < len(lines) and not look.search(lines[at]):
            at += 1
        if at == len(lines):
            return wanted
        at += 1
    return None


def typed(line):
    """What a line of a conversation waits for, and what is typed then; None when nothing is."""
    match = ENTER.match(line)
    return (match[1], match[2]) if match else (line, None)
