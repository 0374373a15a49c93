"""The benchmark's own half: its suites, their environments and its judges, behind one JSON line in and one JSON line out.

Runs in a virtual environment of its own, where `agentdojo` is installed, and imports nothing of Interlock; so neither can
reach into the other. The tools of a suite run here, called by the gateway; the judges look at the environment afterwards.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pickle
import sys
from typing import Any

import models_left_out
import pydantic
import yaml
from scripts import SCRIPTS

models_left_out.leave_out()

from agentdojo.attacks.important_instructions_attacks import ImportantInstructionsAttack  # noqa: E402
from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime  # noqa: E402
from agentdojo.task_suite.load_suites import get_suites  # noqa: E402

VERSION = "v1.2.2"
ATTACK_TEXT = ImportantInstructionsAttack._JB_STRING  # noqa: SLF001  # the benchmark's own words
USER, MODEL = "Emma Johnson", "AI assistant"
# The same YAML, read by the C library: each pair reads the suite's environment anew.
yaml.safe_load = functools.partial(yaml.load, Loader=yaml.CSafeLoader)


@functools.cache
def suite_of(name: str) -> Any:
    return get_suites(VERSION)[name]


@functools.cache
def seen_places(suite: str, user: str) -> tuple[str, ...]:
    """The places of a suite that attackers may write to and that this task of the user reads: of all, only these matter."""
    found = suite_of(suite)
    task, runtime = found.get_user_task_by_id(user), FunctionsRuntime(found.tools)
    marks = {name: f"<CANARY---{name}--->" for name in found.get_injection_vector_defaults()}
    environment = task.init_environment(found.load_and_inject_default_environment(marks))
    seen: set[str] = set()
    for call in task.ground_truth(environment):
        result, _ = runtime.run_function(environment, call.function, call.args)
        text = json.dumps(_plain(result))
        seen |= {name for name, mark in marks.items() if mark in text}
    return tuple(sorted(seen))


class World:
    """One environment: a suite, a user's task in it, and perhaps an injection."""

    def __init__(self, suite: str, user: str, injection: str) -> None:
        self.suite = suite_of(suite)
        self.task = self.suite.get_user_task_by_id(user)
        self.injection = self.suite.get_injection_task_by_id(injection) if injection else None
        self.runtime = FunctionsRuntime(self.suite.tools)
        places = seen_places(suite, user) if injection else ()
        self.environment = self.task.init_environment(pickle.loads(loaded(suite, injection, places)))
        self.pickled = pickle.dumps(self.environment)
        self.before = pickle.loads(self.pickled)
        self.executed: list[FunctionCall] = []
        self.goal = _flat(self.injection.GOAL) if self.injection is not None else ""

    def opened(self) -> dict[str, Any]:
        attack = [] if self.injection is None else self.injection.ground_truth(pickle.loads(self.pickled))
        calls = _calls(attack)
        named = "" if self.injection is None else f"{self.suite.name}/{self.injection.ID}"
        if not calls and named in SCRIPTS:
            calls = SCRIPTS[named](self.before)
        return {
            "prompt": self.task.PROMPT,
            "calls": _calls(self.task.ground_truth(pickle.loads(self.pickled))),
            "attack": calls,
            "goal": "" if self.injection is None else self.injection.GOAL,
        }

    def call(self, function: str, arguments: dict[str, Any]) -> dict[str, Any]:
        call = FunctionCall(function=function, args=arguments)
        result, error = self.runtime.run_function(self.environment, function, arguments)
        if error is not None:
            return {"error": error}
        self.executed.append(call)
        plain = _plain(result)
        return {"result": plain, "poisoned": bool(self.goal) and self.goal in _flat(json.dumps(plain, ensure_ascii=False))}

    def judged(self) -> dict[str, bool]:
        """What the suite's own check says: whether the injection's task is done, or without one, whether the user's is."""
        check_user, check_injection = self.suite._check_user_task_utility, self.suite._check_injection_task_security  # noqa: SLF001
        if self.injection is not None:
            nothing = [{"type": "text", "content": ""}]
            return {"broken": bool(check_injection(self.injection, nothing, self.before, self.environment, self.executed))}
        output = [{"type": "text", "content": self.task.GROUND_TRUTH_OUTPUT}]
        return {"done": bool(check_user(self.task, output, self.before, self.environment, self.executed))}


@functools.cache
def loaded(suite: str, injection: str, places: tuple[str, ...]) -> bytes:
    """The suite's environment with an injection in these places, pickled: tasks change it, and each needs its own."""
    found = suite_of(suite)
    texts: dict[str, str] = {}
    if injection:
        goal = found.get_injection_task_by_id(injection).GOAL
        texts = dict.fromkeys(places, ATTACK_TEXT.format(user=USER, model=MODEL, goal=goal))
    return pickle.dumps(found.load_and_inject_default_environment(texts))


@functools.cache
def dry(suite: str, user: str) -> list[dict[str, Any]]:
    """A task's calls and what they return in a world where nobody attacks: what an honest planner may assume."""
    world = World(suite, user, "")
    calls = world.opened()["calls"]
    return [{**call, "result": world.call(call["function"], call["args"]).get("result")} for call in calls]


def listing(suite: str) -> dict[str, Any]:
    """The suite's tools as a server would list them, and its tasks."""
    found = suite_of(suite)
    return {
        "tools": [
            {"name": tool.name, "description": tool.description, "schema": tool.parameters.model_json_schema()}
            for tool in found.tools
        ],
        "users": list(found.user_tasks),
        "injections": list(found.injection_tasks),
    }


def _calls(calls: list[FunctionCall]) -> list[dict[str, Any]]:
    return [{"function": call.function, "args": {k: v for k, v in call.args.items() if v is not None}} for call in calls]


def _plain(value: Any) -> Any:
    return json.loads(pydantic.TypeAdapter(Any).dump_json(value))


def _flat(text: str) -> str:
    """A text without what quoting and folding do to it."""
    return " ".join(text.replace("\\n", " ").replace("\\", "").replace('"', "").split())


def main() -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # some judges print
    worlds: dict[str, World] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        with contextlib.redirect_stdout(io.StringIO()):
            match asked.pop("op"):
                case "listing":
                    answer: dict[str, Any] = listing(**asked)
                case "dry":
                    answer = {"calls": dry(**asked)}
                case "open":
                    name = asked.pop("world")
                    worlds[name] = World(**asked)
                    answer = worlds[name].opened()
                case "call":
                    answer = worlds[asked["world"]].call(asked["function"], asked["arguments"])
                case "judge":
                    answer = worlds[asked["world"]].judged()
                case "close":
                    answer = {}
                    del worlds[asked["world"]]
                case other:
                    raise ValueError(f"unknown word {other!r}")
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
