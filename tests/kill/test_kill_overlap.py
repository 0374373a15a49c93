"""Sections that overlap without a gap do not end a process whose lease is renewed; a pause beyond the lease still does."""

import subprocess
import sys

import pytest

from interlock.app.pause import pause_guard

SCRIPT = """
import sys, time
from interlock.app.pause import pause_guard

LEASE_S = 2.0  # a machine may stand still for a second without anything being wrong
renewing = sys.argv[1] == "renewing"
began = time.clock_gettime(time.CLOCK_BOOTTIME)
until = [began + LEASE_S]
guard = pause_guard(lambda: until[0])
guard.arm()
while time.clock_gettime(time.CLOCK_BOOTTIME) < began + 1.25 * LEASE_S:
    # The next section begins before the one before it ends.
    if renewing:
        until[0] = time.clock_gettime(time.CLOCK_BOOTTIME) + LEASE_S
    guard.arm()
    guard.disarm()
    time.sleep(0.01)
guard.disarm()
print("alive")
"""


@pytest.mark.skipif(pause_guard(lambda: 0.0) is None, reason="no dead man's switch on this system")
@pytest.mark.parametrize(("lease", "code", "said"), [("renewing", 0, "alive\n"), ("over", -9, "")])
def test_overlapping_sections_live_as_long_as_the_lease_that_was_renewed_last(lease, code, said):
    done = subprocess.run([sys.executable, "-c", SCRIPT, lease], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, said), done.stderr
