"""Unusual input and unusual runs: the number or the exception is the one without a guard."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.distributed.harness import Pool

from .programs import reference
from .unusual import UNUSUAL, run_all

Endings = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def ended(pools: Mapping[int, Pool]) -> Callable[[int, str], list[Endings]]:
    """What every rank told of everything unusual; run once for each number of ranks and mode."""
    kept: dict[tuple[int, str], list[Endings]] = {}

    def of(world: int, mode: str) -> list[Endings]:
        if (world, mode) not in kept:
            outcomes = pools[world].run(f"{__package__}.unusual:{run_all.__name__}", mode=mode, timeout=110)
            assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
            kept[world, mode] = [outcome.value for outcome in outcomes]
        return kept[world, mode]

    return of


def same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, abs_tol=1e-6) or (math.isnan(one) and math.isnan(other))


@pytest.mark.parametrize("name", UNUSUAL)
def test_alone(ended: Callable[[int, str], list[Endings]], name: str) -> None:
    for rank in ended(2, "plain"):
        number, error = rank[name]["number"], rank[name]["error"].partition(":")[0]
        what = "no number" if number is None else "right" if same(number, reference()) else "wrong"
        assert (error or what) == UNUSUAL[name].plain


@pytest.mark.parametrize(
    ("world", "mode"),
    [
        (2, "warn"),
        (2, "correct"),
        pytest.param(3, "correct", marks=pytest.mark.nightly),
        pytest.param(4, "correct", marks=pytest.mark.nightly),
    ],
)
def test_the_guard_changes_nothing(ended: Callable[[int, str], list[Endings]], world: int, mode: str) -> None:
    for plain, guarded in zip(ended(world, "plain"), ended(world, mode), strict=True):
        other = {
            name: (plain[name], guarded[name])
            for name in UNUSUAL
            if not same(plain[name]["number"], guarded[name]["number"])
            or plain[name]["error"] != guarded[name]["error"]
        }
        assert other == {}
        assert {name: ending["codes"] for name, ending in guarded.items() if "LRG901" in ending["codes"]} == {}
