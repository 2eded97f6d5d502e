"""`LIGHTNING_RETRIEVAL_GUARD` adds a guard to programs of both packages that do not know of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_retrieval_guard.environment import VARIABLE

from .programs import reference

PACKAGES = ("lightning.pytorch", "pytorch_lightning")
ROOT = Path(__file__).parents[2]

# Does not import the guard; tells what each of two trainers of a package returned or raised.
SCRIPT = """
import importlib
import sys

from tests.lifecycle.programs import RestartingIds, make_trainer

for name in sys.argv[1:]:
    package = importlib.import_module(name)
    module = type("Module", (RestartingIds, package.LightningModule), {})
    for _ in range(2):
        try:
            [returned] = make_trainer(package=package).validate(module(), verbose=False)
        except ValueError as error:
            print("ended", name, error)
        else:
            print("ended", name, returned["mrr"])
"""


def run(value: str) -> tuple[dict[str, list[str]], str]:
    """What the trainers of each package did where the variable is set, and what was said."""
    environment = {name: value for name, value in os.environ.items() if name not in (VARIABLE, "PYTHONWARNINGS")}
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, VARIABLE: value}
    command = [sys.executable, "-c", SCRIPT, *PACKAGES]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    lines = [line.split(" ", 2)[1:] for line in ended.stdout.splitlines() if line.startswith("ended ")]
    return {package: [text for origin, text in lines if origin == package] for package in PACKAGES}, ended.stderr


def test_correct_corrects_every_trainer() -> None:
    ended, said = run("correct")
    right = pytest.approx(reference(), abs=1e-6)
    assert {package: list(map(float, texts)) for package, texts in ended.items()} == dict.fromkeys(
        PACKAGES, [right] * 2
    )
    assert said.count("GuardWarning: LRG301 restarting-query-ids") == 2 * len(PACKAGES)


def test_a_bad_value_is_answered_with_the_allowed_ones() -> None:
    ended, _ = run("loud")
    for texts in ended.values():
        first, second = texts
        assert first == second
        assert first.startswith(f"{VARIABLE}='loud' is not one of warn, correct, strict. Unset it")
