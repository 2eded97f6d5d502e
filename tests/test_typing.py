"""Type checkers take the guard for a callback of both packages, and refuse what it refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import lightning.pytorch as pl
import pytorch_lightning as old
from lightning_retrieval_guard import Finding, GuardError, RetrievalGuard, Severity

guard = RetrievalGuard(mode="correct", ignore=["LRG203"], report="report.html")
pl.Trainer(callbacks=[guard])
pl.Trainer(callbacks=guard)
old.Trainer(callbacks=[guard])
old.Trainer(callbacks=guard)
callbacks: list[pl.Callback] = [guard]
others: list[old.Callback] = [guard]
found: list[Finding] = guard.findings
severity: Severity = found[0].severity
error: type[Exception] = GuardError
with guard.ignore("LRG203"):
    guard.raise_for_findings(at_least="error")
RetrievalGuard(mode="loud")  # wrong
RetrievalGuard(report_to_loggers=1)  # wrong
guard.finding  # wrong
number: int = guard  # wrong
"""
WRONG = [number for number, line in enumerate(PROGRAM.splitlines(), 1) if "# wrong" in line]


def refused_lines(command: list[str], folder: Path) -> list[int]:
    """The lines of the program at which a checker reports an error."""
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    # in the root, where what `make lint` has learnt about the packages is kept
    checker = [sys.executable, "-m", *command, str(folder / "program.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(checker, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return sorted(int(line) for line in re.findall(r"program\.py:(\d+):.*error", ended.stdout))


@pytest.mark.timeout(600)
def test_mypy(tmp_path: Path) -> None:
    assert refused_lines(["mypy", "--config-file", "pyproject.toml"], tmp_path) == WRONG


@pytest.mark.timeout(300)
def test_pyright(tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="pyright is not installed")
    start = [sys.executable, "-m", "pyright", "--version"]
    if subprocess.run(start, capture_output=True, check=False).returncode:
        pytest.skip("pyright does not start: it installs a package of npm first")
    assert refused_lines(["pyright", "--pythonpath", sys.executable], tmp_path) == WRONG
