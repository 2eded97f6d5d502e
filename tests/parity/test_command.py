"""The command, the assertion and the fixture: exit codes, text, JSON, and what is said of bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from lightning_retrieval_guard.cli import main
from lightning_retrieval_guard.parity.compare import Run, compare
from lightning_retrieval_guard.parity.options import build_options
from lightning_retrieval_guard.testing import ParityError, assert_same_on_any_world_size, end_processes

from . import targets

HERE = f"{__package__}.targets"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    end_processes()


@pytest.mark.parametrize(
    ("name", "options", "code", "last"),
    [
        ("mean", [], 0, "SAME: 1 key on 1 and 2 processes."),
        ("retriever", [], 1, "DIFFERENT: 1 of 2 keys."),
        ("retriever", ["--mode", "correct"], 0, "SAME: 2 keys on 1 and 2 processes."),
        ("gathered_pool", ["--keep", "per-rank"], 1, "DIFFERENT: 1 of 1 key."),
        ("mean", ["--stage", "test", "--seed", "3"], 0, "SAME: 1 key on 1 and 2 processes."),
        ("shard", ["--rtol", "100"], 0, "SAME: 1 key on 1 and 2 processes."),
        ("dying", [], 2, "NOT RUN: 2 processes."),
    ],
)
def test_exit_codes_and_verdicts(
    name: str, options: list[str], code: int, last: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "parity.json"
    assert main(["parity", f"{HERE}:{name}", "--world-sizes", "1,2", "--json", str(path), *options]) == code
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == last
    assert [line.split(":")[0] for line in shown.err.splitlines()] == [
        "1 process ...",
        "1 process",
        "2 processes ...",
        "2 processes",
    ]
    assert json.loads(path.read_text())["verdict"] == ["same", "different", "not run"][code]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no target"], "error: 'no target' is no target. Give path/to/file.py:function or package.module:function."),
        (["m:f", "--timeout", "0"], "error: timeout=0.0 must be a number of seconds above 0."),
        (["m:f", "--world-sizes", "1"], "error: world_sizes=(1,) is not allowed. Give whole numbers from 1 to 64"),
    ],
)
def test_what_is_refused_before_anything_runs(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["parity", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--world-sizes", "1,x"], "'1,x' is not a list of whole numbers, such as 1,2,4"),
        (["--stage", "fit"], "invalid choice: 'fit'"),
        (["--json", "parity.txt"], "'parity.txt' must end in .json"),
        (["--json", "/dev/null/parity.json"], "'/dev/null' is not a folder"),
        (["--seed", "-1"], "'-1' is not a whole number from 0 to 4294967295"),
    ],
)
def test_options_that_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["parity", "m:f", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_json_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, text: str, **_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    parity = compare(build_options("m:f"), [Run(1, ({"key": 1.0},)), Run(2, ({"key": 1.0},) * 2)])
    monkeypatch.setattr("lightning_retrieval_guard.parity.check.check", lambda *_: parity)
    assert main(["parity", f"{HERE}:mean", "--json", str(tmp_path / "p.json")]) == 2
    assert "p.json' cannot be written: no space left" in capsys.readouterr().err


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_retrieval_guard.parity.check.check", interrupted)
    assert main(["parity", f"{HERE}:mean"]) == 130
    assert capsys.readouterr().err == "interrupted; all processes are ended\n"


# --- in tests -------------------------------------------------------------------------------------------------


def test_equal_numbers_pass() -> None:
    assert_same_on_any_world_size(targets.mean, world_sizes=[2])
    assert_same_on_any_world_size(f"{HERE}:odd", world_sizes=[2])


def test_different_numbers_fail_with_the_table() -> None:
    with pytest.raises(AssertionError) as failed:
        assert_same_on_any_world_size(targets.retriever, world_sizes=[2])
    text = str(failed.value)
    assert "processes       1       2  largest difference" in text
    assert "targets.py:" in text
    assert "LRG201 gathered-before-sync" in text
    assert text.endswith("DIFFERENT: 1 of 2 keys.")
    assert_same_on_any_world_size(targets.retriever, world_sizes=[2], mode="correct")


def test_a_program_whose_numbers_no_finding_explains() -> None:
    with pytest.raises(AssertionError) as failed:
        assert_same_on_any_world_size(targets.unexplained, world_sizes=[2])
    assert "only_on_one  1.0000       -" in str(failed.value)
    assert str(failed.value).count("On 2 processes: no finding explains it.") == 2


def test_what_could_not_be_run_is_an_error_of_its_own() -> None:
    with pytest.raises(ParityError, match="Rank 0 of 1 raised LookupError: no such data set"):
        assert_same_on_any_world_size(targets.raising, world_sizes=[2])
    assert_same_on_any_world_size(targets.mean, world_sizes=[2])


PLUGIN_TESTS = """
def test_same(parity):
    parity("tests.parity.targets:mean", world_sizes=[2])

def test_different(parity):
    parity("tests.parity.targets:shard", world_sizes=[2])
"""


@pytest.mark.timeout(240)
def test_the_fixture_of_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_of_user.py").write_text(PLUGIN_TESTS)
    run = _pytest(tmp_path, "-p", "lightning_retrieval_guard.pytest_plugin", "--tb=short")
    assert "1 failed, 1 passed" in run.stdout, run.stdout + run.stderr
    assert "On 2 processes rank 0 shows" in run.stdout
    assert "LRG203" in run.stdout
    assert "assert_same_on_any_world_size" not in run.stdout  # the failure is the test's, not the assertion's


@pytest.mark.timeout(240)
def test_the_plugin_costs_nothing_until_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "test_of_user.py").write_text("import sys\n\ndef test_it():\n    assert 'torch' not in sys.modules\n")
    run = _pytest(tmp_path, "-p", "lightning_retrieval_guard.pytest_plugin")
    assert "1 passed" in run.stdout, run.stdout + run.stderr


def test_the_plugin_is_an_entry_point() -> None:
    [plugin] = [
        entry for entry in entry_points(group="pytest11") if entry.value == "lightning_retrieval_guard.pytest_plugin"
    ]
    assert plugin.name == plugin.value  # under another name it could not also be given with -p


def _pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", f"--rootdir={folder}", *arguments, str(folder)]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=230, check=False
    )
