"""LRG204: a metric that combines ranks, computed on rank zero alone."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from distributed.evaluate import guards, make_trainer, recorded_warnings
from distributed.harness import Pool
from distributed.programs.data import Batch, rows_of
from lightning.pytorch import LightningModule
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.callback import TIMEOUT_VARIABLE

from .programs import Trainable, reference

TIMEOUT = 3


class UpdatedInSteps(Trainable, LightningModule):
    """Every rank updates the metric; rank zero alone computes it."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch))

    def on_validation_epoch_end(self) -> None:
        if self.trainer.is_global_zero:
            self.log("mrr", self.metric.compute(), rank_zero_only=True)
        self.metric.reset()


class MadeOnRankZero(UpdatedInSteps):
    """Rank zero alone makes, feeds and computes it."""

    def on_validation_epoch_end(self) -> None:
        if self.trainer.is_global_zero:
            metric = RetrievalMRR()
            metric.update(*rows_of(next(iter(self.val_dataloader()))))
            self.log("mrr", metric.compute(), rank_zero_only=True)


def run(program: str, mode: str) -> dict[str, float]:
    """Validate on this rank with a short time-out of the guard."""
    os.environ[TIMEOUT_VARIABLE] = str(TIMEOUT)
    trainer = make_trainer(guards(mode, {}), False)
    try:
        with recorded_warnings():
            [returned] = trainer.validate(globals()[program](), verbose=False)
    finally:
        del os.environ[TIMEOUT_VARIABLE]
    return returned


def outcomes(pool: Pool, program: str, mode: str) -> list[Any]:
    return pool.run(f"{__name__}:run", program=program, mode=mode, grace=1.0)


@pytest.mark.timeout(60)
def test_correct_needs_no_other_rank_for_rows_that_it_has_heard_of(pool: Pool) -> None:
    first, second = outcomes(pool, "UpdatedInSteps", "correct")
    assert first.ok, str(first)
    assert first.value["mrr"] == pytest.approx(reference(), abs=1e-6)
    assert second.ok
    assert second.value == {}


@pytest.mark.timeout(60)
def test_correct_says_so_at_once_for_rows_that_only_rank_zero_has(pool: Pool) -> None:
    start = time.monotonic()
    for outcome in outcomes(pool, "MadeOnRankZero", "correct"):
        assert outcome.status == "raised", str(outcome)
        assert "LRG204 rank-zero-sync: compute() of RetrievalMRR@test_rank_zero.py" in outcome.error
        assert "only rank(s) 0 called it" in outcome.error
    assert time.monotonic() - start < TIMEOUT


@pytest.mark.timeout(60)
@pytest.mark.parametrize("program", ["UpdatedInSteps", "MadeOnRankZero"])
def test_strict_names_metric_line_and_rank_instead_of_a_hang(pool: Pool, program: str) -> None:
    _, second = outcomes(pool, program, "strict")
    assert second.status == "raised", str(second)
    assert "GuardError" in second.error_types
    assert "LRG204 rank-zero-sync: compute() of " in second.error
    assert f"{__file__}:" in second.error
    assert "only rank(s) 0 called it; the others never arrive" in second.error
