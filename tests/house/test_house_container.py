"""The container file, read: it cannot be built where the tests run, so what can be known of it without building is."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Containerfile").read_text()
KNOWN = {
    *("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
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


def test_what_it_is_made_from_has_a_full_version_and_is_never_the_latest():
    for words in said("FROM"):
        image = words.split()[0]
        name, _, tag = image.partition(":")
        assert re.match(r"\d+\.\d+\.\d+-", tag), image
        assert "latest" not in tag
        assert "/" not in name  # which registry is for whoever builds


def test_it_is_made_from_a_python_that_the_project_runs_on():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    least = tuple(map(int, re.search(r">=\s*(\d+)\.(\d+)", wanted).groups()))
    versions = {tuple(map(int, re.match(r"python:(\d+)\.(\d+)", words).groups())) for words in said("FROM")}
    assert len(versions) == 1
    assert versions.pop() >= least


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


def test_what_is_installed_is_pinned_by_hash():
    (libraries,) = [words for words in said("RUN") if "requirements/run.txt" in words]
    assert "--require-hashes" in libraries
    own = next(words for words in said("RUN") if "--no-deps ." in words)
    assert "--no-deps" in own


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


@pytest.mark.parametrize("word", ["password", "token", "secret", "curl", "sudo", "chmod 777", "apt-get"])
def test_it_holds_nothing_that_does_not_belong_there(word):
    assert word not in TEXT.lower()
