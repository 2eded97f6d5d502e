"""`LIGHTNING_RETRIEVAL_GUARD` adds a guard to programs of both packages that do not know of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_retrieval_guard.cli import main
from lightning_retrieval_guard.environment import VARIABLE

from .programs import reference

PACKAGES = pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
TESTS = Path(__file__).parents[1]

# Does not import the guard; tells what each of two trainers returned.
SCRIPT = """
import importlib
import json
import sys

from lifecycle.programs import RestartingIds, make_trainer

package = importlib.import_module(sys.argv[1])


class Module(RestartingIds, package.LightningModule):
    pass


for _ in range(2):
    [returned] = make_trainer(package=package).validate(Module(), verbose=False)
    print("returned", json.dumps(returned))
"""


def run(package: str, value: str, **others: str) -> subprocess.CompletedProcess[str]:
    """Run the script in a process of its own, with the variable set, and others that begin with its name."""
    environment = {name: own for name, own in os.environ.items() if name not in (VARIABLE, "PYTHONWARNINGS")}
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, VARIABLE: value}
    environment |= {f"{VARIABLE}_{name}": text for name, text in others.items()}
    command = [sys.executable, "-c", SCRIPT, package]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def returned(ended: subprocess.CompletedProcess[str]) -> list[float]:
    lines = [line for line in ended.stdout.splitlines() if line.startswith("returned ")]
    return [json.loads(line.removeprefix("returned "))["mrr"] for line in lines]


@PACKAGES
def test_correct_corrects_every_trainer(package: str) -> None:
    ended = run(package, "correct")
    assert ended.returncode == 0, ended.stderr
    assert returned(ended) == [pytest.approx(reference(), abs=1e-6)] * 2
    assert ended.stderr.count("GuardWarning: LRG301 restarting-query-ids") == 2


@PACKAGES
def test_a_bad_value_is_answered_with_the_allowed_ones(package: str) -> None:
    ended = run(package, "loud")
    assert ended.returncode == 1
    assert returned(ended) == []
    assert f"ValueError: {VARIABLE}='loud' is not one of warn, correct, strict. Unset it" in ended.stderr


def test_the_steps_of_continuous_integration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As docs/usage.md has them: a run that nobody changed, and a check of its report."""
    report = tmp_path / "reports" / "report.json"
    assert run("lightning.pytorch", "warn", REPORT=str(report)).returncode == 0
    assert main(["check", str(report), "--format", "github"]) == 1
    command = capsys.readouterr().out
    assert command.startswith("::error file=")
    assert "title=LRG301 restarting-query-ids::" in command
    assert main(["check", str(report), "--format", "sarif"]) == 1
    [run_of_tool] = json.loads(capsys.readouterr().out)["runs"]
    assert [result["ruleId"] for result in run_of_tool["results"]] == ["LRG301"]
