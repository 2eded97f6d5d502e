"""What docs/lint.md and the hook show is run as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_retrieval_guard.lint.finding import STATIC

from .test_runner import WRONG

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "lint.md").read_text(encoding="utf-8")
HOOKS = ROOT / ".pre-commit-hooks.yaml"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def settings(key: str) -> dict[str, Any]:
    [found] = [block for block in map(yaml.safe_load, blocks("yaml")) if key in block]
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a wrong program, and the command on the path as an installation puts it there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    command = programs / "lightning-retrieval-guard"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lightning_retrieval_guard "$@"\n')
    command.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    (work / "wrong.py").write_text(WRONG)
    monkeypatch.chdir(work)
    monkeypatch.setenv("PATH", os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]))
    return work


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_page_names_every_static_rule() -> None:
    assert re.findall(r"^\| \[?(LRG\d+)", PAGE, re.MULTILINE) == list(STATIC)


def test_the_commands_of_the_page_run(folder: Path) -> None:
    [commands] = blocks("shell")
    _, *others = commands.splitlines()
    (folder / "src").mkdir()
    (folder / "src" / "wrong.py").write_text(WRONG)
    assert len(others) == 2
    for line in others:
        done = run("sh", "-c", line)
        assert (done.returncode, "src/wrong.py:6:9: LRG204" in done.stdout) == (1, True), done


def test_the_github_job_writes_what_it_uploads(folder: Path) -> None:
    job = settings("jobs")["jobs"]["lint"]
    [command] = [step["run"] for step in job["steps"] if "lint ." in step.get("run", "")]
    [upload] = [step["with"]["sarif_file"] for step in job["steps"] if "upload-sarif" in step.get("uses", "")]
    done = run("sh", "-ec", command)
    assert done.returncode == 0, done
    results = json.loads((folder / upload).read_text())["runs"][0]["results"]
    assert [result["ruleId"] for result in results] == ["LRG204"]


def test_the_pre_commit_block_stops_a_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(settings("repos")))
    _check_hook(folder, monkeypatch)


def test_the_hook_of_the_repository_stops_a_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cloned as pre-commit clones it, in the environment at hand, where nothing is downloaded."""
    assert run(sys.executable, "-m", "pre_commit", "validate-manifest", str(HOOKS)).returncode == 0
    origin = folder.parent / "origin"
    origin.mkdir()
    (origin / HOOKS.name).write_text(HOOKS.read_text())
    _commit_all(origin)
    revision = run("git", "-C", str(origin), "rev-parse", "HEAD").stdout.strip()
    [hook] = yaml.safe_load(HOOKS.read_text())
    assert hook["additional_dependencies"] == ["--no-deps"]
    local = {"id": hook["id"], "language": "system", "additional_dependencies": []}
    configuration = {"repos": [{"repo": str(origin), "rev": revision, "hooks": [local]}]}
    (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(configuration))
    _check_hook(folder, monkeypatch)


def _check_hook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRE_COMMIT_HOME", str(folder.parent / "cache"))
    _commit_all(folder)
    hook = (sys.executable, "-m", "pre_commit", "run", "--all-files")
    done = run(*hook)
    assert (done.returncode, "wrong.py:6:9: LRG204" in done.stdout) == (1, True), done
    (folder / "wrong.py").write_text(WRONG.replace(", rank_zero_only=True", ""))
    done = run(*hook)
    assert (done.returncode, "Passed" in done.stdout) == (0, True), done


def _commit_all(folder: Path) -> None:
    for command in ("init -q", "add -A", "-c user.name=a -c user.email=a@example.com commit -q -m first"):
        done = run("git", "-C", str(folder), *shlex.split(command))
        assert done.returncode == 0, done


def test_the_lightning_cli_example_runs_and_says_what_the_page_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_RETRIEVAL_GUARD_REPORT", "report.json")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings("trainer")))
    [program] = blocks("python")
    (folder / "main.py").write_text(program)
    [command] = re.findall(r"`(python main\.py [^`]*)`", PAGE)
    done = run(*shlex.split(command))
    assert done.returncode == 0, done.stderr
    [line] = [number for number, text in enumerate(program.splitlines(), start=1) if "self.log" in text]
    [finding] = json.loads((folder / "report.json").read_text())["findings"]
    assert (finding["code"], finding["line"], Path(finding["path"]).name) == ("LRG301", line, "main.py")
    [update] = [number for number, text in enumerate(program.splitlines(), start=1) if ".update" in text]
    assert f"main.py:{update}:9: LRG301" in run("lightning-retrieval-guard", "lint", "main.py").stdout
