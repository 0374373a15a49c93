"""The memory of a serving process: what stays is not looked through again, and what is free goes back to the system."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

# How many new objects the collector lets be before it looks at them. The interpreter's own 700 is less than one call makes.
YOUNG_OBJECTS: Final = 10_000
LARGE_BLOCK_BYTES: Final = 128 * 1024
MAX_FREE_AT_THE_END_BYTES: Final = 256 * 1024
MAX_HEAPS: Final = 2
# The parameters of `mallopt` (malloc.h of the GNU C library).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def keep_what_is_loaded() -> None:
    """What a serving process has loaded by now stays until it ends: the collector need not look through it again and again.

    While it looks, every thread of the process stands still, the one that acknowledges a kill among them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def give_back_what_is_free() -> bool:
    """Have the C library give memory back once it is free; call it before there are threads. False where it cannot be told.

    The GNU C library keeps a heap for each thread, up to eight a core. And with the first large block that is freed it begins
    to make blocks as large as that inside of its heaps, where a small one that is made later keeps the place of a large one
    from going back: results of some hundred kilobytes left a process 20 to 40 MB larger.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library
        return False
    wanted = {
        _M_MMAP_THRESHOLD: LARGE_BLOCK_BYTES,
        _M_TRIM_THRESHOLD: MAX_FREE_AT_THE_END_BYTES,
        _M_ARENA_MAX: MAX_HEAPS,
    }
    return all(mallopt(what, value) for what, value in wanted.items())
