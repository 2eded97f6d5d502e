"""The terminal after a fit over three epochs with a fault that appears in the second, as a whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .screen import run_on_terminal, screen_of

PROGRAM = Path(__file__).with_name("program.py")
ROOT = Path(__file__).parents[2]

HEADS = {
    80: """\
train.py:39: GuardWarning: LRG301 restarting-query-ids: 'recall@02' got 60
  queries, one for each sample, under at most 8 ids that restart in each batch
  or on each rank, so different queries merge.
""",
    100: """\
train.py:39: GuardWarning: LRG301 restarting-query-ids: 'recall@02' got 60 queries, one for each
  sample, under at most 8 ids that restart in each batch or on each rank, so different queries
  merge.
""",
    120: """\
train.py:39: GuardWarning: LRG301 restarting-query-ids: 'recall@02' got 60 queries, one for each sample, under at most 8
  ids that restart in each batch or on each rank, so different queries merge.
""",
}
KEYS = """\
              logged   one device
  recall@02   0.0000       0.0333
  recall@03   0.0000       0.0500
  recall@04   0.0000       0.0500
  recall@05   0.0156       0.0833
  ... 15 more keys
"""
FIXES = dict.fromkeys(HEADS, "  Fix: Pass ids that are unique over the epoch, such as the index in the dataset.\n") | {
    80: "  Fix: Pass ids that are unique over the epoch, such as the index in the\n       dataset.\n"
}
END = """\
  lightning-retrieval-guard explain LRG301
  self.log_dict(self.recalls)
"""
LAST = "RetrievalGuard: 1 fault, 19 of 20 keys wrong\n"


def block(columns: int) -> str:
    """The warning as it is on a terminal of so many columns."""
    return f"{HEADS[columns]}{KEYS}{FIXES[columns]}{END}"


def command_for(bar: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The program under a short name, so that lines are as long wherever the checkout is."""
    (folder / "train.py").write_text(PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")
    script = "import sys; exec(compile(open('train.py').read(), 'train.py', 'exec'), {'__name__': '__main__'})"
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "PYTHONWARNINGS")}
    environment |= {"PYTHONPATH": str(ROOT), "TERM": "xterm", "OMP_NUM_THREADS": "1"}
    return [sys.executable, "-c", script, bar], environment


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("bar", "columns"),
    [
        ("rich", 80),
        *(pytest.param(*both, marks=pytest.mark.nightly) for both in (("rich", 120), ("tqdm", 80), ("tqdm", 120))),
    ],
)
def test_blocks_fit_the_terminal_and_bars_stay_whole(bar: str, columns: int, tmp_path: Path) -> None:
    command, environment = command_for(bar, tmp_path)
    lines = [line for line in run_on_terminal(command, columns, tmp_path, environment) if line]
    bars = [line for line in lines if line.startswith("Epoch")]
    others = [line for line in lines if line not in bars and not line.startswith("Training:")]
    assert "\n".join(others) + "\n" == f"{block(columns)}{LAST}"
    # how many of the earlier ones are drawn over depends on time
    assert re.match(r"Epoch 2.* 8/8 .*it/s", bars[-1])
    assert len(bars) <= 3
    assert all(" 8/8 " in line for line in bars)


@pytest.mark.timeout(120)
def test_without_a_terminal_nothing_else_is_written(tmp_path: Path) -> None:
    command, environment = command_for("none", tmp_path)
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", f"{block(100)}{LAST}")
    assert len(ended.stderr.splitlines()) <= 15


def test_the_screen_is_what_a_terminal_shows() -> None:
    assert screen_of("one\rtwo\nthree\x1b[1A\r\x1b[2Kfour\n", 80) == ["four", "three"]
    assert screen_of("abcdef", 4) == ["abcd", "ef"]
    assert screen_of("\x1b[31mred\x1b[0m\x1b[K", 80) == ["red"]
