"""What the figures are measured with goes on working while what they measure changes."""

import ast
import asyncio
import importlib
import importlib.util
from pathlib import Path

import pytest

from bench.bare_handler import bare_app
from bench.load import load, tools_call
from tests.support.listening import listening


def test_the_bare_handler_answers_as_the_gateway_would_with_nothing_behind_it():
    async def asked():
        async with listening(bare_app()) as port:
            request = tools_call("127.0.0.1", port, "t", "shop.pay", b"{}")
            return await load(
                "127.0.0.1",
                port,
                lambda _, __: request,
                clients=1,
                seconds=1.0,  # one call is enough; a busy machine may need that long for it
                warm_up_s=0,
                is_right=lambda body: b'"ok":true' in body,
            )

    result = asyncio.run(asked())
    assert result.calls > 0
    assert result.wrong == 0
    assert set(result.statuses) == {"200"}


ROOT = Path(__file__).resolve().parents[2]
OURS = {"bench", "examples", "interlock", "tests"}
MODULES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "bench").rglob("*.py") if "node_modules" not in path.parts)


def found_in(module, name):
    """Whether a module of ours has a name; one that needs libraries of another environment is taken at its word."""
    try:
        made = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in OURS:
            raise
        return True
    return hasattr(made, name) or importlib.util.find_spec(f"{module}.{name}") is not None


@pytest.mark.parametrize("path", MODULES)
def test_what_a_bench_takes_from_elsewhere_in_this_project_is_there(path):
    taken = [
        node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.ImportFrom) and node.module
    ]
    ours = [(node.module, name.name) for node in taken if node.module.partition(".")[0] in OURS for name in node.names]
    assert [about for about in ours if not found_in(*about)] == []
