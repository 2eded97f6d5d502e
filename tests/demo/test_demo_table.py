"""The closing table and the verdict on it."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from lightning_retrieval_guard.demo.encoder import METRICS
from lightning_retrieval_guard.demo.render import difference, problems, render_table
from lightning_retrieval_guard.demo.runs import Run


def _numbers(mrr: float, first: float, fifth: float) -> dict[str, float]:
    return dict(zip(METRICS, (mrr, first, fifth), strict=True))


RIGHT = _numbers(0.6818, 0.5833, 0.7964)
WRONG = _numbers(0.6444, 0.2917, 0.7161)
REFERENCE = Run("one process", RIGHT)
UNGUARDED = Run("2 processes, no guard", WRONG)
WARNED = Run("2 processes, warn", WRONG)
CORRECTED = Run("2 processes, correct", RIGHT)
STRICT = Run("2 processes, strict", error="GuardError: src/m.py:3: LRG201 gathered: and LRG101, LRG201 again")
RUNS = [REFERENCE, UNGUARDED, WARNED, CORRECTED, STRICT]

TABLE = """\
                          MRR  Recall@1  Recall@5  beside the reference
---------------------  ------  --------  --------  ----------------------
one process            0.6818    0.5833    0.7964  the reference
2 processes, no guard  0.6444    0.2917    0.7161  off by up to 0.2916
2 processes, warn      0.6444    0.2917    0.7161  off by up to 0.2916
2 processes, correct   0.6818    0.5833    0.7964  the same
2 processes, strict         -         -         -  stopped: LRG201 LRG101"""


def _found(devices: int = 2, **changed: Run) -> list[str]:
    names = ("reference", "unguarded", "warned", "corrected", "strict")
    runs = dict(zip(names, RUNS, strict=True)) | changed
    return list(problems(list(runs.values()), devices))


def test_the_table_is_aligned_and_compares_each_row_with_the_reference() -> None:
    assert render_table(RUNS) == TABLE


def test_a_failed_run_has_no_numbers_and_says_so() -> None:
    failed = Run("2 processes, warn", error="RuntimeError: no network")
    last = render_table([REFERENCE, failed]).splitlines()[-1]
    assert " ".join(last.split()) == "2 processes, warn - - - failed"


def test_difference_is_the_largest_one_and_infinite_without_a_number() -> None:
    assert difference(UNGUARDED, REFERENCE) == pytest.approx(0.2916)
    assert difference(STRICT, REFERENCE) == float("inf")
    assert difference(Run("x", _numbers(0.6818, float("nan"), 0.7964)), REFERENCE) == float("inf")


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        (RIGHT, None),
        (RIGHT | {"val_mrr": RIGHT["val_mrr"] + 0.9e-6}, None),
        (RIGHT | {"val_mrr": RIGHT["val_mrr"] - 0.9e-6}, None),
        (RIGHT | {"val_mrr": RIGHT["val_mrr"] + 1.1e-6}, "The corrected numbers are off by 1.1e-06, more than 1e-06."),
        (RIGHT | {"val_mrr": RIGHT["val_mrr"] - 1.1e-6}, "The corrected numbers are off by 1.1e-06, more than 1e-06."),
        (RIGHT | {"val_mrr": float("nan")}, "The corrected numbers are off by inf, more than 1e-06."),
    ],
)
def test_corrected_numbers_may_be_off_by_a_millionth(numbers: Mapping[str, float], problem: str | None) -> None:
    assert _found(corrected=replace(CORRECTED, numbers=numbers)) == ([] if problem is None else [problem])


@pytest.mark.parametrize("which", ["reference", "unguarded", "warned", "corrected"])
def test_a_failed_run_is_a_problem(which: str) -> None:
    (problem, *_) = _found(**{which: Run("this one", error="RuntimeError: no network\nand more")})
    assert problem == "The run 'this one' failed: RuntimeError: no network"


@pytest.mark.parametrize(
    ("devices", "strict", "problem"),
    [
        (2, Run("strict", WRONG), "Strict mode let the wrong numbers pass; it had to raise GuardError."),
        (
            2,
            Run("strict", error="RuntimeError: Connection closed"),
            "The run 'strict' failed, but not with GuardError: RuntimeError: Connection closed",
        ),
        (1, Run("strict", RIGHT), None),
        (1, STRICT, "Strict mode raised on one process, where nothing is wrong."),
    ],
)
def test_strict_mode_has_to_raise_its_own_error_on_several_processes(
    devices: int, strict: Run, problem: str | None
) -> None:
    assert _found(devices, strict=strict) == ([] if problem is None else [problem])
