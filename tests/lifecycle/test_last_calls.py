"""Nobody needs the store after the last meeting: it may go with the process of rank zero."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(240)

WORLDS = pytest.mark.parametrize("world_size", [2, 3])


def told_of(run: str, world_size: int) -> tuple[str, str]:
    """What the runs write to their two streams."""
    command = [sys.executable, "-m", "lifecycle.last_calls", run, str(world_size)]
    tests = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@WORLDS
def test_an_exchange_whose_ranks_are_late_at_any_call_of_the_store(world_size: int) -> None:
    wrong, counts = told_of("bare", world_size)
    assert wrong == ""
    assert counts.count(" calls") == 3


@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.nightly)])
def test_a_run_whose_ranks_are_late_at_all_calls_of_the_store(world_size: int) -> None:
    assert "LRG901" not in "".join(told_of("validate", world_size))
