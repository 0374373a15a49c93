"""Is the process alive, and can it serve?"""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.exceptions import HTTPException

from interlock.app.plane import Plane, Ready
from interlock.release.errors import ReleaseError
from interlock.server.api.who import NOBODY, door
from interlock.store.errors import StoreError


def routes(plane: Plane) -> list[Any]:
    """The routes of this resource."""

    @get("/livez", summary="Is the process alive?", opt=door(NOBODY))
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @get("/readyz", summary="Can the process serve?", opt=door(NOBODY))
    async def readyz() -> Ready:
        try:
            return await plane.ready()
        except (StoreError, ReleaseError) as error:
            raise HTTPException(
                status_code=503, detail="not ready: no database, no lease, no release that loads, or leaving"
            ) from error

    return [livez, readyz]
