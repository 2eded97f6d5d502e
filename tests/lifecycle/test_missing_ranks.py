"""Ranks that come late, not at all, or have nothing to evaluate; more of them in tests/faults."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset, Subset

from lightning_retrieval_guard.callback import TIMEOUT_VARIABLE
from tests.distributed.evaluate import guards, make_trainer, recorded_warnings
from tests.distributed.harness import Pool
from tests.distributed.programs.data import Batch, queries, rows_of
from tests.distributed.ranks import on_ranks

from .programs import Right, Sharded, reference

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

    def __init__(self, sized: bool) -> None:
        super().__init__()
        self.sized = sized
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def val_dataloader(self) -> Any:
        data = queries(30, empty=False)
        if not self.sized:
            return DataLoader(OnRankZero(self.global_rank), batch_size=6)
        return DataLoader(data if self.global_rank == 0 else Subset(data, []), batch_size=6)


class OneSidedAtEnd(OneSided, Right):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch))

    def on_validation_epoch_end(self) -> None:
        self.log("mrr", self.metric.compute())
        self.metric.reset()


class OneSidedForward(OneSided, Sharded):
    """The value of forward() is logged."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("sized", [True, False], ids=["sized", "iterable"])
@pytest.mark.parametrize("program", [OneSidedAtEnd, OneSidedForward])
def test_a_rank_without_a_batch(pool: Pool, program: type[OneSided], sized: bool) -> None:
    """The number is that of the rank that has all; the other one logs no key, where its loop does not run."""
    first, second = on_ranks(pool, partial(program, sized), "correct", use_distributed_sampler=False)
    assert first.numbers == {"mrr": pytest.approx(reference(), abs=1e-6)}
    assert second.numbers in ({}, first.numbers)
