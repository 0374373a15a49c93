"""Each release compiled once: what is made of the same texts is the same frozen value, and hundreds of tests begin with it."""

from interlock.app import releases, shelf
from interlock.release.load import from_files

_made = {}


def compile_each_release_once():
    """From now on, for the processes that tests run in this one. A release with problems is read again each time."""
    releases.from_files = shelf.from_files = _from_files_once


def _from_files_once(files, variables=None):
    key = (tuple(files.items()), None if variables is None else tuple(variables.items()))
    if key not in _made:
        _made[key] = from_files(files, variables)
    return _made[key]
