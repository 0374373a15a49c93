"""Releases as stored, loaded with this process's variables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from interlock.release.load import from_files
from interlock.release.model import Release
from interlock.store.controls import Controls


class StoredReleases:
    """Implements the gate's `Shelf`. Raises `UnknownReleaseError` or `ReleaseError`: calls are then refused."""

    def __init__(self, controls: Controls, variables: Mapping[str, str]) -> None:
        self._controls = controls
        self._variables = variables
        self._last: Release | None = None

    @property
    def latest(self) -> Release | None:
        """The release that was loaded last: a heartbeat behind the one in force, at most."""
        return self._last

    async def load(self, digest: str, *, is_old: bool = False) -> Release:
        """The release with this digest.

        INVARIANT: one that is no longer in force never becomes the latest again: whom is trusted, and how worried to be, is
        read from that.
        """
        if self._last is not None and self._last.digest == digest:
            return self._last
        files = await self._controls.release_files(digest)
        release = await asyncio.to_thread(from_files, files, self._variables)
        if not is_old:
            self._last = release
        return release
