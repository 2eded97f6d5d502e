"""The page about parity: its programs are run, and its output is what is really printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_retrieval_guard.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
RUNS = re.findall(r"```console\n\$ lightning-retrieval-guard ([^\n]*)\n(.*?)\n```", PAGE, re.DOTALL)
EXIT_CODES = {"DIFFERENT": 1, "SAME": 0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("command", "output"), RUNS, ids=[command for command, _ in RUNS])
def test_the_output_is_what_is_printed(
    command: str, output: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(shlex.split(command))
    assert capsys.readouterr().out.rstrip("\n") == output
    assert code == EXIT_CODES[output.splitlines()[-1].partition(":")[0]]


def test_the_page_shows_a_difference_and_both_repairs() -> None:
    assert [output.splitlines()[-1].partition(":")[0] for _, output in RUNS] == ["DIFFERENT", "SAME", "SAME"]


@pytest.mark.nightly  # the fixture is tested with a shorter program each time
@pytest.mark.timeout(240)
def test_the_tests_of_the_page_pass(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "lightning_retrieval_guard.pytest_plugin",
        "test_retriever.py",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=230, check=False)
    assert "2 passed" in run.stdout, run.stdout + run.stderr


def test_the_readme_shows_the_table_of_the_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [(command, table)] = re.findall(
        r"```text\n\$ lightning-retrieval-guard (parity [^\n]*)\n(.*?)\n```", readme, re.DOTALL
    )
    assert command == RUNS[0][0]
    assert table in RUNS[0][1]
