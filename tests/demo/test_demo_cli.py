"""The command line of the demo, and its exit codes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_retrieval_guard import RetrievalGuard
from lightning_retrieval_guard.cli import main
from lightning_retrieval_guard.demo import render
from lightning_retrieval_guard.demo.corpus import Corpus, Pair
from lightning_retrieval_guard.demo.encoder import METRICS, DualEncoder
from lightning_retrieval_guard.demo.runs import Run

RIGHT = dict.fromkeys(METRICS, 0.5)
OFF = dict.fromkeys(METRICS, 0.5 + 2e-6)
STOPPED = Run("2 processes, strict", error="GuardError: LRG201")


def _faked(monkeypatch: pytest.MonkeyPatch, corrected: dict[str, float], strict: Run) -> None:
    """Puts ready results in the place of the training and of the runs."""
    pairs = tuple(Pair(f"sentence {number}", f"code {number}") for number in range(render.MIN_PAIRS))
    monkeypatch.setattr(render, "read_corpus", lambda min_pairs: Corpus(pairs, unparsed=3))
    monkeypatch.setattr(render, "train", lambda *args: DualEncoder())

    def evaluate(label: str, model: object, loader: object, devices: int, guard: RetrievalGuard | None) -> Run:
        if label.endswith("strict"):
            return strict
        return Run(label, corrected if label.endswith("correct") else RIGHT)

    monkeypatch.setattr(render, "evaluate", evaluate)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["dmeo"], "invalid choice: 'dmeo'"),
        (["demo", "--devices", "0"], "argument --devices: '0' is not a whole number from 1 to 8"),
        (["demo", "--devices", "9"], "argument --devices: '9' is not a whole number from 1 to 8"),
        (["demo", "--devices", "two"], "argument --devices: 'two' is not a whole number from 1 to 8"),
        (["demo", "--seed", "1.5"], "argument --seed: '1.5' is not a whole number from 0 to 4294967295"),
        (["demo", "--seed", "4294967296"], "'4294967296' is not a whole number from 0 to 4294967295"),
        (["demo", "--report", "r.txt"], "argument --report: 'r.txt' must end in .json or .html"),
        (["demo", "--report", "taken.txt/r.json"], "taken.txt' is not a folder"),
        (["demo", "--report", "taken.json"], "argument --report: 'taken.json' is a folder"),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.json").mkdir()
    (tmp_path / "taken.txt").write_text("")
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_report_that_may_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(SystemExit):
        main(["demo", "--report", str(tmp_path / "r.json")])
    assert "cannot be written: no permission on" in capsys.readouterr().err


def test_a_missing_standard_library_ends_with_2_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert main(["demo"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: There are no .py files under {tmp_path}.")
    assert "apt-get install libpython3-stdlib" in error


@pytest.mark.parametrize(
    ("corrected", "strict", "code", "last"),
    [
        (RIGHT, STOPPED, 0, "The corrected numbers are those of one process."),
        (OFF, STOPPED, 1, "FAILED: The corrected numbers are off by 2e-06, more than 1e-06."),
        (RIGHT, Run("strict", RIGHT), 1, "FAILED: Strict mode let the wrong numbers pass; it had to raise GuardError."),
    ],
)
def test_the_exit_code_follows_the_corrected_numbers_and_strict_mode(
    corrected: dict[str, float],
    strict: Run,
    code: int,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _faked(monkeypatch, corrected, strict)
    assert main(["demo"]) == code
    output = capsys.readouterr().out
    assert "(3 skipped: they do not parse)" in output
    assert output.splitlines()[-1] == last


@pytest.mark.timeout(330)
def test_end_to_end(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "lightning_retrieval_guard", "demo", "--report", str(report)]
    demo = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    rows = dict(re.findall(r"^(one process|2 processes, [\w ]+?)  +(.*)$", demo.stdout, re.MULTILINE))
    reference = rows["one process"].split()[:3]
    assert all(0.3 < float(number) < 1 for number in reference)
    assert rows["2 processes, correct"].split() == [*reference, "the", "same"]
    assert rows["2 processes, warn"] == rows["2 processes, no guard"]
    assert float(rows["2 processes, no guard"].split()[1]) == pytest.approx(float(reference[1]) / 2, abs=1e-4)
    assert rows["2 processes, strict"].startswith("-")
    assert "LRG201" in demo.stderr
    assert report.exists()
