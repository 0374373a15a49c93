"""The development directory as a file that may change while the server runs.

It is read again when it changes. As long as it is missing or broken nobody logs in and no login is renewed: tokens that were
made before end within minutes. What it said before is never used instead, for the change may have taken somebody out.
"""

from __future__ import annotations

from pathlib import Path

from interlock.identity.dev_issuer import Directory, load_directory
from interlock.identity.errors import DirectoryError


class DirectoryFile:
    """A `directory.yaml`, as it is now."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._read: Directory | None = None

    def now(self) -> Directory:
        """What it says now. Raises `DirectoryError` when it is not there or broken."""
        if self._path is None:
            raise DirectoryError("the built-in issuer knows nobody; start with `interlock up --directory FILE`")
        try:
            found = self._path.stat()
        except OSError as error:
            raise DirectoryError(f"{self._path} cannot be read: {error.strerror}") from error
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if self._read is None or seen != self._seen:
            self._read = None
            # Looked at before it is read: a change in between is read again the next time.
            self._read = load_directory(self._path)
            self._seen = seen
        return self._read
