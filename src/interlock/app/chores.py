"""What a process does in the background, from its start until the last call has settled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from interlock.app.readiness import ROOM_EVERY_S
from interlock.app.upstream_watch import WATCH_S
from interlock.gateway.calls import is_ended
from interlock.store.errors import StoreUnavailableError

if TYPE_CHECKING:
    from interlock.app.system import System

_log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 1.0
SIGN_HEADS_S: Final = 5.0
FORGET_S: Final = 60.0
ISSUER_KEYS_S: Final = 30.0


def begin_chores(system: System) -> list[asyncio.Task[None]]:
    """A task for each; whoever begins them ends them."""
    return [
        asyncio.create_task(_every(HEARTBEAT_S, system.heartbeat), name="heartbeat"),
        asyncio.create_task(_every(HEARTBEAT_S, system.gate.given_up.round), name="given-up"),
        asyncio.create_task(_every(HEARTBEAT_S, system.reconcile), name="reconcile"),
        asyncio.create_task(_every(ROOM_EVERY_S, system.plane.readiness.look_for_room), name="room"),
        asyncio.create_task(_every(HEARTBEAT_S, system.keeper.close_run_out), name="leases"),
        asyncio.create_task(_every(HEARTBEAT_S, system.flush_refusals), name="refusals"),
        asyncio.create_task(_every(HEARTBEAT_S, system.breakers.tend), name="breakers"),
        asyncio.create_task(_every(HEARTBEAT_S, system.risk.tend), name="risk-habits"),
        asyncio.create_task(_every(FORGET_S, system.breakers.forget), name="forget-breakers"),
        asyncio.create_task(_every(SIGN_HEADS_S, system.sign_heads), name="heads"),
        asyncio.create_task(_every(HEARTBEAT_S, system.marking.tend), name="mark"),
        asyncio.create_task(_every(HEARTBEAT_S, system.gate.streams.tend), name="streams"),
        asyncio.create_task(_every(HEARTBEAT_S, system.upstreams.tend), name="quarantine"),
        asyncio.create_task(_every(WATCH_S, system.upstreams.look), name="upstreams"),
        asyncio.create_task(system.upstreams.listening.run(), name="upstream-listening"),
        asyncio.create_task(_every(FORGET_S, system.processes.forget_outcomes), name="forget"),
        asyncio.create_task(_every(HEARTBEAT_S, system.approvals.expire), name="expire-approvals"),
        asyncio.create_task(_every(FORGET_S, system.budgets.forget), name="forget-budgets"),
        asyncio.create_task(_every(FORGET_S, system.plane.outside_logins.forget), name="forget-logins"),
        asyncio.create_task(_every(ISSUER_KEYS_S, system.outside.refresh_due), name="issuer-keys"),
    ]


async def _every(pause_s: float, chore: Callable[[], Awaitable[object]]) -> None:
    name, waits = getattr(chore, "__name__", "chore"), False
    while True:
        await asyncio.sleep(pause_s)
        try:
            await chore()
            waits = False
        except StoreUnavailableError as error:
            if not waits:  # said once, not once a second by every chore until the database is back
                _log.warning(
                    "a chore waits for the database: %s: %s", name, error, extra={"event": "chore.waits", "chore": name}
                )
            waits = True
        except OSError as error:
            if not waits:
                about = {"event": "chore.no_room", "chore": name}
                _log.error("a chore cannot use its disk, and is done again: %s: %s", name, error, extra=about)
            waits = True
        except asyncio.CancelledError:
            if is_ended():
                raise
            # Something that it waited for was cancelled, and not the chore: it must not end with it, for nobody would notice.
            _log.exception("a chore failed: %s", name, extra={"event": "chore.failed", "chore": name})
        except Exception:  # noqa: BLE001  # a chore that failed is done again; what must not be missed is checked in the claim
            _log.exception("a chore failed: %s", name, extra={"event": "chore.failed", "chore": name})
