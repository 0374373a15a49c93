"""Stands in for the packages of model providers, which agentdojo imports and this benchmark never calls: no model is asked.

So its virtual environment needs a tenth of them, and cannot reach a provider at all.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any, Final

LEFT_OUT: Final = frozenset({"anthropic", "cohere", "google", "openai", "langchain", "requests"})


class _Named(type):
    """A class of which whatever is looked up is such a class too: good for annotations and nothing else."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named(name, (Exception,), {"__module__": cls.__module__})


class _Package(types.ModuleType):
    """Whatever is looked up in it is a class of that name."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named(name, (Exception,), {"__module__": self.__name__})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:  # noqa: ARG002
        if name.partition(".")[0] not in LEFT_OUT:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Package(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


def leave_out() -> None:
    """Call it before anything of agentdojo is imported."""
    sys.meta_path.insert(0, _Finder())
