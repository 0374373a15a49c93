"""A JSON-RPC message too long to keep, gone through as it comes: did it say that the call was done, or that it was not?

Nothing of it is kept but the few short members at its top that say so. Below them only strings and brackets are counted:
that is enough to know that the message came whole, and fast enough to do it where other calls wait.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from interlock.tools.errors import AnswerNotKeptError, CallFailedError
from interlock.tools.messages import PROTOCOL_ERRORS

_SLICE_BYTES: Final = 16 * 1024
_STEPS_MAX: Final = 1_000_000
_BRACKETS_A_STEP: Final = 64
_ROUNDS_MAX: Final = 32
_DEEPEST: Final = 1_000
_SHORT_BYTES: Final = 96

_STRING: Final = re.compile(rb"(?:[^\"\\]++|\\.)*+", re.DOTALL)
_SHALLOW: Final = re.compile(rb"([ \t\r\n]*+)(?:([{}\[\]:,\"])|([^ \t\r\n{}\[\]:,\"]++))?")
_DEEP: Final = re.compile(rb"[\"{}\[\]\\\x00]")
_NO_BRACKET: Final = bytes(set(range(256)) - set(b"{}[]"))
_SHUTS_OF: Final = bytes.maketrans(b"{[", b"}]")
_QUOTE, _OPENS, _SHUTS = ord('"'), frozenset(b"{["), frozenset(b"}]")

_INSIDE: Final = frozenset({"result", "error"})
_CONTENT: Final = ("content", "contents", "messages", "completion")
_WANTED: Final[dict[str, frozenset[str]]] = {
    "": frozenset({"jsonrpc", "id", "method", "result", "error"}),
    "result": frozenset({"isError", "resultType", *_CONTENT}),
    "error": frozenset({"code"}),
}


class Skimmed(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole message said at its top. `is_error` is None when it cannot be told whether the call was done."""

    id: int | str | None
    is_reply: bool
    is_error: bool | None

    def failure(self, size_bytes: int) -> CallFailedError:
        """How waiting for the answer ends that was this reply."""
        if self.is_error is None:
            return CallFailedError("too_large", f"{size_bytes} bytes, which do not say whether the call was done")
        return AnswerNotKeptError(is_error=self.is_error, size_bytes=size_bytes, request_id=self.id)


class Skim:
    """Takes one message in pieces; `told` says at the end what it was."""

    def __init__(self) -> None:
        self._cut = b""
        self._broken = False
        self._steps_left = _STEPS_MAX
        self._shuts = bytearray()
        self._inside = ""
        self._awaits = "value"
        self._key: str | None = None
        self._in_string = False
        self._short: bytearray | None = None
        self._scalar = bytearray()
        self._found: dict[tuple[str, str], bytes] = {}

    def feed(self, piece: bytes) -> None:
        """The next bytes of the message. Raises `CallFailedError` (`too_large`) as soon as nothing can be told of it."""
        self._feed(piece)
        if self._broken:
            raise CallFailedError("too_large", "what is too long to keep is no message that can be told")

    def _feed(self, piece: bytes) -> None:
        for start in range(0, len(piece), _SLICE_BYTES):
            self._broken = self._broken or self._steps_left < 0
            if self._broken:
                return
            part = self._cut + piece[start : start + _SLICE_BYTES]
            # No part ends between a backslash and what it escapes.
            self._cut = b"\\" if (len(part) - len(part.rstrip(b"\\"))) % 2 else b""
            part = part.removesuffix(self._cut)
            if len(self._shuts) <= self._top or not self._passed_over(part):
                self._walk(part)

    @property
    def _top(self) -> int:
        """How many brackets are open where members are looked at."""
        return 2 if self._inside else 1

    def told(self) -> Skimmed | None:
        """What the message was; None when it is not whole, or is none."""
        if self._broken or self._awaits != "end" or self._cut:
            return None
        try:
            found = {about: msgspec.json.decode(value) for about, value in self._found.items()}
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        own = found.get(("", "id"))
        if found.get(("", "jsonrpc")) != "2.0" or not (own is None or type(own) in {int, str}):
            return None
        is_reply = ("", "id") in found and ("", "method") not in found
        return Skimmed(id=own, is_reply=is_reply, is_error=_is_error(found))

    def _passed_over(self, part: bytes) -> bool:
        """Count the brackets of a part that stays below the top; False, with nothing done, when it does not."""
        quoted = part.replace(b"\\\\", b"\x00").replace(b'\\"', b"\x00").split(b'"')
        between = b"".join(quoted[self._in_string :: 2])
        if b"\x00" in between or b"\\" in between:
            # Outside of a string nothing is escaped; readers may differ on where the next one begins.
            self._broken = True
            return True
        brackets = between.translate(None, _NO_BRACKET)
        for _ in range(_ROUNDS_MAX):
            self._steps_left -= len(brackets) // _BRACKETS_A_STEP
            paired = brackets.replace(b"{}", b"").replace(b"[]", b"")
            if len(paired) == len(brackets):
                break
            brackets = paired
        opened = brackets.lstrip(b"}]")
        shut = len(brackets) - len(opened)
        if b"}" in opened or b"]" in opened or len(self._shuts) - shut <= self._top:
            return False
        if shut and bytes(reversed(self._shuts[-shut:])) != brackets[:shut]:
            self._broken = True
        del self._shuts[len(self._shuts) - shut :]
        self._shuts += opened.translate(_SHUTS_OF)
        self._broken = self._broken or len(self._shuts) > _DEEPEST
        self._in_string ^= len(quoted) % 2 == 0
        return True

    def _walk(self, part: bytes) -> None:
        at = 0
        while at < len(part) and not self._broken:
            self._steps_left -= 1
            if self._steps_left < 0:
                self._broken = True
            elif self._in_string:
                at = self._through_string(part, at)
            elif len(self._shuts) > self._top:
                at = self._below(part, at)
            else:
                at = self._at_top(part, at)

    def _through_string(self, part: bytes, at: int) -> int:
        end = part.find(b'"', at)
        if part.find(b"\\", at, len(part) if end < 0 else end) >= 0:
            matched = _STRING.match(part, at)
            end = -1 if matched is None or matched.end() == len(part) else matched.end()
        stop = len(part) if end < 0 else end
        if self._short is not None and len(self._short) <= _SHORT_BYTES:
            # One byte more than is short, so that what is too long shows.
            self._short += part[at : min(stop, at + _SHORT_BYTES + 1)]
        if end < 0:
            return stop
        self._in_string = False
        self._ended_string()
        return stop + 1

    def _below(self, part: bytes, at: int) -> int:
        matched = _DEEP.search(part, at)
        if matched is None:
            return len(part)
        sign = part[matched.start()]
        if sign == _QUOTE:
            self._in_string = True
        elif sign in _OPENS:
            self._opened(sign)
        elif sign in _SHUTS:
            self._shut(sign)
        else:
            self._broken = True
        return matched.end()

    def _at_top(self, part: bytes, at: int) -> int:
        matched = _SHALLOW.match(part, at)
        if matched is None or matched.end() == at:
            self._broken = True
            return at
        blank, sign, scalar = matched.groups()
        if self._scalar and (blank or sign is not None):
            self._ended_scalar()
        if scalar is not None:
            self._broken = self._awaits != "value" or not self._shuts or len(self._scalar) > _SHORT_BYTES
            self._scalar += scalar[: _SHORT_BYTES + 1]
        elif sign is not None:
            self._signed(sign[0])
        return matched.end()

    def _signed(self, sign: int) -> None:
        """A quote, bracket, colon or comma among the members at the top."""
        awaited = self._awaits
        if sign in _OPENS and awaited == "value" and (self._shuts or sign == ord("{")):
            enters = len(self._shuts) == 1 and self._key in _INSIDE and sign == ord("{")
            if self._shuts:
                self._put(b"{}" if sign == ord("{") else b"[]")
            self._opened(sign)
            if enters:
                self._inside = self._key or ""
            if enters or len(self._shuts) == 1:
                self._awaits = "key"
        elif sign in _SHUTS and awaited in {"key", "comma"} and self._shuts:
            self._shut(sign)
        elif sign == _QUOTE and self._shuts and awaited in {"key", "value"}:
            self._in_string, self._short = True, bytearray(b'"')
        elif (sign == ord(":") and awaited == "colon") or (sign == ord(",") and awaited == "comma"):
            self._awaits = "value" if awaited == "colon" else "key"
        else:
            self._broken = True

    def _opened(self, sign: int) -> None:
        self._shuts += bytes((sign,)).translate(_SHUTS_OF)
        self._broken = self._broken or len(self._shuts) > _DEEPEST

    def _shut(self, sign: int) -> None:
        if self._shuts.pop() != sign:
            self._broken = True
        if len(self._shuts) == 1:
            self._inside = ""
        self._awaits = "comma" if self._shuts else "end"

    def _ended_string(self) -> None:
        kept, self._short = self._short, None
        if kept is None:
            return
        whole = bytes(kept) + b'"' if len(kept) <= _SHORT_BYTES else None
        if self._awaits == "value":
            self._put(b'""' if whole is None else whole)
            self._awaits = "comma"
            return
        self._awaits = "colon"
        try:
            self._key = None if whole is None else msgspec.json.decode(whole, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._broken = True

    def _ended_scalar(self) -> None:
        self._put(bytes(self._scalar))
        self._scalar.clear()
        self._awaits = "comma"

    def _put(self, value: bytes) -> None:
        if self._key is None or self._key not in _WANTED[self._inside]:
            return
        about = (self._inside, self._key)
        # Two of one name are read differently by different readers.
        self._broken = self._broken or about in self._found
        self._found[about] = value


def _is_error(found: dict[tuple[str, str], object]) -> bool | None:
    """Whether the call failed. INVARIANT: anything odd means that it cannot be told."""
    result, error = found.get(("", "result")), found.get(("", "error"))
    if isinstance(error, dict) and ("", "result") not in found:
        code = found.get(("error", "code"))
        return True if type(code) is int and code not in PROTOCOL_ERRORS else None
    if not isinstance(result, dict) or ("", "error") in found:
        return None
    fails = found.get(("result", "isError"), False)
    complete = found.get(("result", "resultType"), "complete") == "complete"
    holds = any(isinstance(found.get(("result", name)), list | dict) for name in _CONTENT)
    return fails if isinstance(fails, bool) and complete and holds else None
