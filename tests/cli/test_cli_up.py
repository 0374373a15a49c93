"""`interlock up` where it cannot be: it says what is in the way and what to do, and leaves no traceback."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("state", ["/sys/interlock", "/dev/full/interlock"])
def test_a_state_folder_that_cannot_be_written_is_named_with_what_to_do(state):
    words = [sys.executable, "-m", "interlock", "up", "--state", state, "--port", "0"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert f"{state} cannot be written" in done.stderr
    assert "--state" in done.stderr
    assert "Traceback" not in done.stderr
