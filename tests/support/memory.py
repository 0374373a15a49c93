"""Where the suite keeps its files, and what it keeps. A thousand databases on a disk make most of the suite a wait for it."""

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
NEEDED_BYTES = 3 << 30


def keep_files_in_memory():
    """Make temporary folders in memory, here and in every process that is started; where there is no room, on disk as ever."""
    if "TMPDIR" not in os.environ and is_fit(MEMORY):
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # asked again


def keep_compiled_modules():
    """Whatever the shell says (PYTHONDONTWRITEBYTECODE): else each of the processes that tests start compiles all of us anew."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def is_fit(folder):
    """Roomy, open to everybody, safe from everybody else, and programs may be run from it."""
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return False
    is_sticky = bool(folder.stat().st_mode & stat.S_ISVTX)
    runs_programs = not os.statvfs(folder).f_flag & os.ST_NOEXEC
    return is_sticky and runs_programs and shutil.disk_usage(folder).free >= NEEDED_BYTES
