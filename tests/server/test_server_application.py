"""What the server loads before anybody has called."""

import subprocess
import sys
from pathlib import Path

import interlock.server

_MADE = """
import sys
from interlock.server.application import Application
Application([])
print(*(name for name in ("pydantic", "mcp", "mcp_types") if name in sys.modules))
"""


def test_an_application_loads_nothing_for_models_that_nobody_here_has():
    done = subprocess.run([sys.executable, "-c", _MADE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_application_of_the_server_is_one_of_these():
    folder = Path(interlock.server.__file__).parent
    made = [path.name for path in folder.rglob("*.py") if " Litestar(" in path.read_text()]
    assert made == []
