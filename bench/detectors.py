"""What the detectors find among public attack texts, and among harmless ones. Trained and tuned on none of the public sets.

Public sets are texts that ship in PyPI packages (all MIT): every template of the attacks of `agentdojo`, filled with every goal
of its suites; what stands in its suites' mailboxes, files and calendars, as harmless; `bastioncorpus` with its harmless traps;
`agent-injection-bench`; `jailbreak-corpus-mini-py`. Run it by `make bench-detectors`, which has an environment for it; with
`--benign` only the texts of this repository are looked at. A text is found when it alone makes a lineage guarded, by the
recommended thresholds.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Final

from interlock.core.risk import RiskRules, Signal
from interlock.core.terms import Posture
from interlock.risk.classifier import evidence, sentences
from interlock.risk.combine import assess
from interlock.risk.injection import InjectionRules

HERE: Final = Path(__file__).resolve().parents[1]
RECOMMENDED: Final = RiskRules(thresholds={Posture.GUARDED: 40, Posture.READ_ONLY: 70, Posture.HALTED: 95})
VERSION: Final = "v1.2.2"
MIN_WORDS: Final = 3
MEMORY_TEXTS: Final = 1_000


class Looks:
    """The rules, and the classifier where its extra is installed; each sentence is embedded once."""

    def __init__(self) -> None:
        self._rules = InjectionRules()
        self._known: dict[str, list[float]] = {}
        try:
            from interlock.app.detectors.embedding import Embedder, read_head  # noqa: PLC0415

            self.head = read_head()
            self.embed: Any = Embedder(self.head)
        except RuntimeError:
            self.embed = None

    def rules(self, text: str) -> tuple[Signal, ...]:
        return self._rules.look(text)

    def classifier(self, text: str) -> tuple[Signal, ...]:
        if self.embed is None:
            return ()
        found = sentences(text)
        new = [sentence for sentence in found if sentence not in self._known]
        for start in range(0, len(new), 16):
            batch = new[start : start + 16]
            self._known |= dict(zip(batch, self.embed(batch), strict=True))
        return evidence([(sentence, self.head.of(self._known[sentence])) for sentence in found], self.head)

    def share(self, texts: list[str]) -> dict[str, float]:
        """Percent of the texts that are found by each, and by either."""
        hits = {"rules": 0, "classifier": 0, "either": 0}
        for text in texts:
            looked = {"rules": self.rules(text), "classifier": self.classifier(text)}
            looked["either"] = looked["rules"] + looked["classifier"]
            for name, signals in looked.items():
                hits[name] += assess(signals, RECOMMENDED).posture is not Posture.NORMAL
        if self.embed is None:
            del hits["classifier"]
        return {"texts": len(texts), **{name: round(100 * number / len(texts), 1) for name, number in hits.items()}}


def written() -> Iterator[tuple[str, list[str]]]:
    """The harmless texts of this repository. Rules and classifier were made with the first, with the second neither was."""
    for name in ("benign", "benign_held_out"):
        lines = (HERE / "tests" / "risk" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        yield name, [line for line in lines if not line.startswith("#")]


def public() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Attack texts and harmless ones, by set."""
    from agentdojo.attacks.attack_registry import ATTACKS  # noqa: PLC0415  # only in an environment that has it
    from agentdojo.task_suite.load_suites import get_suites  # noqa: PLC0415

    hostile: dict[str, list[str]] = {}
    harmless: dict[str, list[str]] = {}
    for suite_name, suite in get_suites(VERSION).items():
        environment = suite.load_and_inject_default_environment({}).model_dump(mode="json")
        texts = [text for text in dict.fromkeys(_strings(environment)) if len(text.split()) >= MIN_WORDS]
        harmless[f"agentdojo environment {suite_name}"] = texts
        harmless[f"agentdojo users' requests {suite_name}"] = [task.PROMPT for task in suite.user_tasks.values()]
        for name, kind in sorted(ATTACKS.items()):
            if name != "manual":  # asks whoever sits there
                hostile.setdefault(f"agentdojo {name}", []).extend(_attacks(kind, suite))
    hostile["agentdojo all"] = [text for texts in hostile.values() for text in texts]
    entries = _lines("bastioncorpus", "corpus/injections.jsonl")
    hostile["bastioncorpus"] = [entry["text"] for entry in entries if entry["label"] == "malicious"]
    harmless["bastioncorpus traps"] = [entry["text"] for entry in entries if entry["label"] == "benign"]
    hostile["agent-injection-bench"] = [entry["injected"] for entry in _lines("aib", "data/attacks.jsonl")]
    corpus = json.loads(resources.files("jailbreak_corpus_mini").joinpath("corpus.json").read_text(encoding="utf-8"))
    hostile["jailbreak-corpus-mini"] = [entry["prompt"] for entry in corpus]
    return {name: texts for name, texts in hostile.items() if texts}, harmless


def _lines(package: str, place: str) -> list[dict[str, Any]]:
    text = resources.files(package).joinpath(place).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


class _Nobody:
    """Stands for a model where an attack asks for its name."""

    name = "gpt-4o-2024-05-13"


def _attacks(kind: Any, suite: Any) -> list[str]:
    """What an attack writes for some user tasks and every goal of a suite, each once; none when it needs a model for it."""
    try:
        attack = kind(suite, _Nobody())
    except Exception:  # noqa: BLE001  # attacks that need to know a real model
        return []
    found: dict[str, None] = {}
    for task in list(suite.user_tasks.values())[:3]:
        for goal in suite.injection_tasks.values():
            try:
                found |= dict.fromkeys(str(text) for text in attack.attack(task, goal).values())
            except Exception:  # noqa: BLE001  # a user task without a place for injections
                continue
    return list(found)


def speed(looks: Looks) -> dict[str, float]:
    """Milliseconds to look at a text of one kilobyte, and of several, the median of some tries."""
    lines = (HERE / "tests" / "risk" / "benign.txt").read_text(encoding="utf-8")
    found = {}
    for name, text in (("1_kb", lines[:1_000]), ("10_kb", lines[:10_000]), ("100_kb", (lines * 10)[:100_000])):
        found[f"rules_ms_of_{name}"] = _median_ms(lambda text=text: InjectionRules().look(text), 20)
    if looks.embed is not None:
        for name, text in (("1_kb", lines[:1_000]), ("10_kb", lines[:10_000])):
            cut = sentences(text)
            batches = [cut[start : start + 16] for start in range(0, len(cut), 16)]
            found[f"classifier_ms_of_{name}"] = _median_ms(lambda batches=batches: [looks.embed(batch) for batch in batches], 7)
            found[f"sentences_of_{name}"] = len(cut)
    return found


def memory() -> dict[str, float]:
    """Resident memory in MB of a process of its own: before the classifier is loaded, after it, and after 1,000 texts."""
    told = subprocess.run([sys.executable, "-m", "bench.detectors", "--memory"], check=True, capture_output=True, text=True)
    return dict(json.loads(told.stdout))


def _memory_of_this() -> dict[str, float]:
    lines = (HERE / "tests" / "risk" / "benign.txt").read_text(encoding="utf-8").splitlines()
    found = {"mb_before": _resident_mb()}
    looks = Looks()
    looks.classifier(lines[0])
    found["mb_with_classifier"] = _resident_mb()
    for number in range(MEMORY_TEXTS):
        looks.embed(sentences(f"{lines[number % len(lines)]} ({number})"))
    found[f"mb_after_{MEMORY_TEXTS}_texts"] = _resident_mb()
    return found


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def _median_ms(work: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begun) * 1e3)
    return round(statistics.median(taken), 2)


def main() -> None:
    if "--memory" in sys.argv:
        print(json.dumps(_memory_of_this()))
        return
    looks = Looks()
    hostile, harmless = ({}, {}) if "--benign" in sys.argv else public()
    figures = {
        "harmless": {name: looks.share(texts) for name, texts in [*written(), *harmless.items()]},
        "hostile": {name: looks.share(texts) for name, texts in hostile.items()},
        "speed": speed(looks),
    }
    if looks.embed is not None:
        figures["memory"] = memory()
    told = json.dumps(figures, indent=2)
    print(told)
    if "--json" in sys.argv:
        Path(sys.argv[sys.argv.index("--json") + 1]).write_text(told + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
