"""What the guard sends: as good as nothing, never in a step, and no more for more updates."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed.counting import Step, counted_collectives
from tests.distributed.evaluate import guards, make_trainer, recorded_warnings
from tests.distributed.harness import Pool
from tests.distributed.ranks import once

from .ways import WAYS, reference

pytestmark = pytest.mark.timeout(90)

FEW, MANY = 5, 50
LIMIT = 4
EVERY_WAY = pytest.mark.parametrize("way", WAYS)
SPLIT = pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])


def run(way: str, updates: int, split: bool, mode: str) -> dict[str, Any]:
    """Validate on this rank; the collectives of the epoch and the number."""
    step, guard = Step(), guards(mode, {})
    trainer = make_trainer(step.around(*guard), False)
    with recorded_warnings(), counted_collectives(step) as seen:
        [returned] = trainer.validate(WAYS[way](updates, split), verbose=False)
    return {"mrr": returned["mrr"], **vars(seen)}


def seen(pool: Pool, way: str, updates: int, split: bool, mode: str) -> list[dict[str, Any]]:
    case = f"{way}, {updates} updates, split {split}, {mode}"
    return once(pool, f"{__name__}:run", case=case, way=way, updates=updates, split=split, mode=mode)


@SPLIT
@EVERY_WAY
def test_the_count_does_not_grow_with_updates(pool: Pool, way: str, split: bool) -> None:
    few, many = (seen(pool, way, updates, split, "correct") for updates in (FEW, MANY))
    for one, other in zip(few, many, strict=True):
        assert one["ours"] == other["ours"]
        assert 1 <= len(one["ours"]) <= LIMIT


@SPLIT
@EVERY_WAY
def test_no_more_than_four_in_an_epoch(pool: Pool, way: str, split: bool) -> None:
    """Those of torchmetrics and Lightning for the logged number included."""
    first, second = seen(pool, way, MANY, split, "correct")
    # metrics that have seen parts of queries: their mean is Lightning's, which reduces its value and its weight
    lightnings = ["barrier", "all_reduce"] * 2 if way == "InStep" and split else []
    for rank in (first, second):
        assert len(rank["in_epoch"]) <= LIMIT + len(lightnings), rank["in_epoch"]
        assert rank["in_epoch"][-len(lightnings) :] == lightnings or not lightnings
        assert not rank["in_steps"]
    assert first["mrr"] == second["mrr"]
    if way in ("Object", "AtEnd", "Twelve") or not split:  # a mean of batches is another number where queries are split
        assert first["mrr"] == pytest.approx(reference(MANY, split), abs=1e-6)


def test_the_facts_of_twelve_metrics_fit_one_frame(pool: Pool) -> None:
    """Facts, sums, nothing else."""
    for rank in seen(pool, "Twelve", MANY, False, "correct"):
        assert rank["ours"] == ["all_gather"] * 2
        assert rank["mrr"] == pytest.approx(reference(MANY, False), abs=1e-6)


def test_torchmetrics_needs_nine_an_update(pool: Pool) -> None:
    """What is saved."""
    few, many = (seen(pool, "Object", updates, False, "none")[0]["theirs"] for updates in (FEW, MANY))
    assert len(many) - len(few) == 9 * (MANY - FEW)


RIGHT = [("Object", False), ("Object", True), ("AtEnd", False), ("AtEnd", True), ("InStep", False), ("Twelve", True)]
CASES = [("warn", way, split) for way in WAYS for split in (False, True)]
CASES += [("strict", way, split) for way, split in RIGHT]


@pytest.mark.parametrize(("mode", "way", "split"), CASES)
def test_the_collectives_of_others_stay(pool: Pool, mode: str, way: str, split: bool) -> None:
    """Those of the program and of Lightning are the same, in the same order; strict raises for the other programs."""
    plain, guarded = (seen(pool, way, FEW, split, used) for used in ("none", mode))
    for one, other in zip(plain, guarded, strict=True):
        assert other["theirs"] == one["theirs"]
        assert other["in_steps"] == one["in_steps"]
        assert 1 <= len(other["ours"]) <= LIMIT
