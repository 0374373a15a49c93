"""The container file and how it is deployed, read: `make image` builds and runs them, which the tests have no engine for."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from bench.image.page import manifests, pod, variables
from interlock.app.leaving import LEAVE_WITHIN_S

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Containerfile").read_text()
KNOWN = {
    *(
        "ARG",
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "ENV",
        "USER",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    ),
}


def instructions():
    """Each instruction with its words, in order; lines that go on are joined."""
    joined = re.sub(r"\\\n\s*", " ", "\n".join(line for line in TEXT.splitlines() if not line.startswith("#")))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def said(name):
    return [words for kind, words in instructions() if kind == name]


def last_stage():
    listed = instructions()
    start = max(n for n, (kind, _) in enumerate(listed) if kind == "FROM")
    return listed[start:]


def test_every_instruction_is_one_that_is_known():
    assert {kind for kind, _ in instructions()} <= KNOWN


def test_all_of_it_is_made_from_one_image_with_a_full_version_that_a_builder_may_replace():
    assert {words.split()[0] for words in said("FROM")} == {"${BASE}"}
    (base,) = (words.removeprefix("BASE=") for words in said("ARG"))
    assert instructions()[0] == ("ARG", f"BASE={base}")
    name, _, tag = base.partition(":")
    assert re.match(r"\d+\.\d+\.\d+-", tag), base
    assert "/" not in name  # which registry is for whoever builds
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    least = tuple(map(int, re.search(r">=\s*(\d+)\.(\d+)", wanted).groups()))
    assert tuple(map(int, tag.split(".")[:2])) >= least


def test_everything_that_is_copied_is_there_and_no_secret_or_state_is():
    for words in said("COPY"):
        names = shlex.split(words)
        if names[0].startswith("--from=build"):
            continue
        for source in names[:-1]:
            assert (ROOT / source).exists(), source
            assert source not in {".", "*", "tests", ".interlock"}, source


def test_it_runs_as_a_number_that_is_not_root_until_the_end():
    users = [words for kind, words in last_stage() if kind == "USER"]
    assert users == ["10001:10001"]
    kinds = [kind for kind, _ in last_stage()]
    # Nothing is put into the image after it, so nothing in it belongs to that user but what was made for it.
    assert not {"RUN", "COPY"} & set(kinds[kinds.index("USER") :])


def test_what_is_installed_is_pinned_by_hash_and_so_is_what_builds_the_package():
    installs = [part.strip() for words in said("RUN") for part in words.split("&&") if " install " in part and "pip" in part]
    assert len(installs) == 3
    for line in installs:
        assert "--require-hashes" in line or "--no-deps --no-index" in line, line
    (build,) = (part for words in said("RUN") for part in words.split("&&") if "pip wheel" in part)
    assert "--no-build-isolation" in build
    assert "--no-index" in build
    for name in ("build", "run"):
        pinned = (ROOT / "requirements" / f"{name}.txt").read_text()
        assert f"requirements/{name}.txt" in TEXT
        for entry in re.split(r"\n(?=\S)", pinned.strip()):
            assert re.match(r"[\w.\[\]-]+==\S+ .*--hash=sha256:", entry, re.DOTALL), entry


def test_what_the_package_may_send_telemetry_with_is_installed():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["otel"]
    pinned = (ROOT / "requirements" / "run.txt").read_text()
    assert extras
    for name in extras:
        assert f"\n{name.partition('>')[0]}==" in pinned, name


def test_modules_are_compiled_and_nothing_is_written_into_the_image_later():
    assert any("compileall" in words for words in said("RUN"))
    assert "PYTHONDONTWRITEBYTECODE=1" in said("ENV")[-1]
    (volume,) = map(json.loads, said("VOLUME"))
    assert f"INTERLOCK_STATE={volume[0]}" in said("ENV")[-1]


def test_the_development_issuer_is_not_trusted_and_the_command_is_one_that_exists():
    from interlock.cli.main import app  # noqa: PLC0415  # only here

    (entry,), (command,) = map(json.loads, said("ENTRYPOINT")), map(json.loads, said("CMD"))
    assert entry == ["interlock"]
    assert "--no-dev-issuer" in command
    _, bound, _ = app.parse_args(command, exit_on_error=False, print_error=False)
    assert bound.arguments["host"] == "0.0.0.0"  # inside of a container
    assert bound.arguments["dev_issuer"] is False


def test_its_health_is_asked_where_it_listens():
    (check,) = said("HEALTHCHECK")
    words = json.loads(check[check.index("CMD") + 3 :])
    assert words[:2] == ["python", "-c"]
    compile(words[2], "HEALTHCHECK", "exec")
    assert "INTERLOCK_PORT" in words[2]
    assert "INTERLOCK_PORT=8080" in said("ENV")[-1]


def test_nothing_is_sent_to_a_builder_but_what_is_copied():
    first, *kept = (line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#"))
    assert first == "*"
    wanted = {source.split("/")[0] for words in said("COPY") if "--from" not in words for source in shlex.split(words)[:-1]}
    assert {line.removeprefix("!") for line in kept if line.startswith("!")} == wanted


STRICT = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize("kind", ["Job", "StatefulSet"])
def test_the_pods_of_the_deployment_page_have_no_more_rights_than_they_need(kind):
    made = pod(kind)
    ids = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), 10001)
    assert made["securityContext"] == {"runAsNonRoot": True, **ids}
    claims = [item["metadata"] for item in manifests()[kind]["spec"].get("volumeClaimTemplates", ())]
    volumes = {item["name"] for item in (*made["volumes"], *claims)}
    for container in (*made.get("initContainers", ()), *made["containers"]):
        assert container["securityContext"] == STRICT
        assert {item["name"] for item in container["volumeMounts"]} <= volumes
        assert all(":" not in value.partition("://")[2].partition("@")[0] for value in variables(container).values())


@pytest.mark.parametrize("kind", ["Job", "StatefulSet"])
def test_the_commands_and_variables_of_the_deployment_page_are_the_programs(kind, monkeypatch):
    from interlock.cli.main import app  # noqa: PLC0415  # only here

    (container,) = pod(kind)["containers"]
    command = app
    for word in container["args"]:
        if word.startswith("-"):
            break
        command = command[word]
    known = {name for argument in command.assemble_argument_collection() for name in argument.parameter.env_var or ()}
    assert known
    assert set(variables(container)) <= known
    for name, value in variables(container).items():
        monkeypatch.setenv(name, value)
    app.parse_args(container["args"], exit_on_error=False, print_error=False)


def test_the_platforms_patience_is_longer_than_the_time_to_leave():
    made = pod("StatefulSet")
    assert made["terminationGracePeriodSeconds"] >= LEAVE_WITHIN_S + 10
    (container,) = made["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert "preStop" not in str(made)


@pytest.mark.parametrize("word", ["password", "token", "secret", "curl", "sudo", "chmod 777", "apt-get"])
def test_it_holds_nothing_that_does_not_belong_there(word):
    assert word not in TEXT.lower()
