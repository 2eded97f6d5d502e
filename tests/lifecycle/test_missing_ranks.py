"""Ranks that come late, not at all, or have nothing to evaluate."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset, Subset

from lightning_retrieval_guard.callback import TIMEOUT_VARIABLE
from tests.distributed.evaluate import guards, make_trainer, recorded_warnings
from tests.distributed.harness import Pool
from tests.distributed.programs.data import Batch, queries, rows_of

from .programs import Right, Sharded, floats, reference

TIMEOUT = 2


class Late(Right):
    """Rank 1 sleeps in its last step."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        if batch_idx == 2 and self.global_rank == 1:
            time.sleep(self.seconds)


def come_late(mode: str, seconds: float) -> dict[str, Any]:
    """Validate on this rank with a short time-out of the guard."""
    os.environ[TIMEOUT_VARIABLE] = str(TIMEOUT)
    guard = guards(mode, {})
    trainer = make_trainer(guard, False)
    try:
        with recorded_warnings():
            [returned] = trainer.validate(Late(seconds), verbose=False)
    finally:
        del os.environ[TIMEOUT_VARIABLE]
    return {"mrr": returned["mrr"], "codes": [finding.code for each in guard for finding in each.findings]}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["correct", "strict"])
def test_a_rank_that_never_comes_is_named(pool: Pool, mode: str) -> None:
    first, second = pool.run(f"{__name__}:come_late", mode=mode, seconds=40, grace=1.0)
    assert first.status == "raised", str(first)
    assert "GuardError" in first.error_types
    assert f"rank(s) 1 did not come to 'validate/0/batches' (time-out {TIMEOUT} s)" in first.error
    assert second.status == "killed"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["correct", "strict"])
def test_a_rank_that_comes_too_late_hears_of_it(pool: Pool, mode: str) -> None:
    outcomes = pool.run(f"{__name__}:come_late", mode=mode, seconds=2 * TIMEOUT, grace=12.0)
    for outcome in outcomes:
        assert outcome.status == "raised", str(outcome)
        assert "GuardError" in outcome.error_types


@pytest.mark.timeout(60)
def test_warn_steps_aside_and_the_run_goes_on(pool: Pool) -> None:
    outcomes = pool.run(f"{__name__}:come_late", mode="warn", seconds=2 * TIMEOUT)
    for outcome in outcomes:
        assert outcome.ok, str(outcome)
        assert outcome.value == {"mrr": pytest.approx(reference(), abs=1e-6), "codes": ["LRG901"]}
    assert "LRG901" in outcomes[0].log
    assert "rank(s) 1" in outcomes[0].log


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
def test_a_rank_that_is_late_but_in_time_is_waited_for(pool: Pool, mode: str) -> None:
    for outcome in pool.run(f"{__name__}:come_late", mode=mode, seconds=0.5):
        assert outcome.ok, str(outcome)
        assert outcome.value == {"mrr": pytest.approx(reference(), abs=1e-6), "codes": []}


# --- ranks without a batch --------------------------------------------------------------------------------------


class OnRankZero(IterableDataset[Batch]):
    """All queries on rank 0, nothing on the others."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __iter__(self) -> Iterator[Batch]:
        data = queries(30, empty=False)
        yield from (data[index] for index in range(len(data) if self.rank == 0 else 0))


class OneSided:
    """All queries on rank 0; the loader of rank 1 is empty."""

    sized = True

    def __init__(self) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def val_dataloader(self) -> Any:
        data = queries(30, empty=False)
        if not self.sized:
            return DataLoader(OnRankZero(self.global_rank), batch_size=6)
        return DataLoader(data if self.global_rank == 0 else Subset(data, []), batch_size=6)


class OneSidedObject(OneSided, Right):
    """The metric is logged as an object."""


class OneSidedAtEnd(OneSided, Right):
    """compute() is logged when the epoch ends."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch))

    def on_validation_epoch_end(self) -> None:
        self.log("mrr", self.metric.compute())
        self.metric.reset()


class OneSidedForward(OneSided, Sharded):
    """The value of forward() is logged."""


ONE_SIDED = {program.__name__: program for program in (OneSidedObject, OneSidedAtEnd, OneSidedForward)}


def one_sided(program: str, sized: bool, mode: str) -> dict[str, float]:
    """Validate on this rank."""
    module = ONE_SIDED[program]()
    module.sized = sized
    trainer = make_trainer(guards(mode, {}), False, use_distributed_sampler=False)
    with recorded_warnings():
        trainer.validate(module, verbose=False)
    return floats(trainer.callback_metrics)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("sized", [True, False], ids=["sized", "iterable"])
@pytest.mark.parametrize("program", ONE_SIDED)
def test_a_rank_without_a_batch(pool: Pool, program: str, sized: bool) -> None:
    """The number is that of the rank that has all; the other one logs no key, where its loop does not run."""
    outcomes = pool.run(f"{__name__}:one_sided", program=program, sized=sized, mode="correct")
    assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
    first, second = (outcome.value for outcome in outcomes)
    assert first == {"mrr": pytest.approx(reference(), abs=1e-6)}
    assert second in ({}, first)


@pytest.mark.timeout(60)
def test_strict_says_what_is_uneven(pool: Pool) -> None:
    outcomes = pool.run(f"{__name__}:one_sided", program="OneSidedObject", sized=True, mode="strict")
    for outcome in outcomes:
        assert outcome.status == "raised", str(outcome)
        assert "GuardError" in outcome.error_types
        assert "LRG205" in outcome.error
