"""LRG204: a metric that combines ranks, computed on rank zero alone."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from lightning.pytorch import LightningModule
from torch.distributed import new_group
from torchmetrics import MeanMetric
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.settings import TIMEOUT_VARIABLE
from tests.distributed.evaluate import guards, make_trainer, recorded_warnings
from tests.distributed.harness import CaseTimeout, Pool
from tests.distributed.programs.data import Batch, rows_of

from .programs import Trainable

TIMEOUT = 8
AHEAD = 3.0  # seconds that rank zero is ahead of the others


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
    def on_validation_epoch_end(self) -> None:
        if self.trainer.is_global_zero:
            metric = RetrievalMRR()
            metric.update(*rows_of(next(iter(self.val_dataloader()))))
            self.log("mrr", metric.compute(), rank_zero_only=True)


class NoRows(UpdatedInSteps):
    """Rank zero alone computes a metric that keeps no rows."""

    def __init__(self) -> None:
        super().__init__()
        self.share = MeanMetric()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.share.update(0.25 + 0.5 * self.global_rank)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.is_global_zero:
            self.log("share", self.share.compute(), rank_zero_only=True)


class ReachedError(RuntimeError):
    """The first collective of ``compute()``."""


class BeforeTheOthers(NoRows):
    """Rank zero alone computes it, long before the others come anywhere; the time until that waits for them."""

    def on_validation_epoch_end(self) -> None:
        if self.trainer.is_global_zero:
            start = time.monotonic()
            with mock.patch("torch.distributed.barrier", side_effect=ReachedError), contextlib.suppress(ReachedError):
                self.share.compute()
            self.log("waited", time.monotonic() - start, rank_zero_only=True)
        else:
            time.sleep(AHEAD)


class AgainOnRankZero(NoRows):
    """All ranks compute it, and rank zero once more, to print it: the value is known."""

    def on_validation_epoch_end(self) -> None:
        self.log("share", self.share.compute(), sync_dist=True)
        if self.trainer.is_global_zero:
            self.share.compute()


class OnRanksOfAGroup(NoRows):
    """Rank zero computes one that combines rank zero alone, and one that combines nothing."""

    def on_validation_epoch_end(self) -> None:
        groups = [new_group([rank]) for rank in range(self.trainer.world_size)]
        if self.trainer.is_global_zero:
            for metric in (MeanMetric(process_group=groups[0]), MeanMetric(sync_on_compute=False)):
                metric.update(1.0)
                metric.compute()
        self.log("share", self.share.compute(), sync_dist=True)


def run(program: str, mode: str) -> dict[str, Any]:
    """Validate on this rank with a short time-out of the guard."""
    os.environ[TIMEOUT_VARIABLE] = str(TIMEOUT)
    trainer = make_trainer(guards(mode, {}), False)
    try:
        with recorded_warnings() as caught:
            [returned] = trainer.validate(globals()[program](), verbose=False)
    finally:
        del os.environ[TIMEOUT_VARIABLE]
    texts = [warned["text"] for warned in caught if "GuardWarning" in warned["categories"]]
    return {**returned, "warnings": texts}


def outcomes(pool: Pool, program: str, mode: str) -> list[Any]:
    return pool.run(f"{__name__}:run", program=program, mode=mode, grace=1.0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["correct", "strict"])
@pytest.mark.parametrize("program", ["MadeOnRankZero", "NoRows"])
def test_metric_line_and_rank_are_named_at_once_instead_of_a_hang(pool: Pool, program: str, mode: str) -> None:
    reported = outcomes(pool, program, mode)
    assert [outcome.status for outcome in reported] == ["raised", "raised"], "\n".join(map(str, reported))
    assert reported[0].error == reported[1].error
    for outcome in reported:
        assert "GuardError" in outcome.error_types
        assert "LRG204 rank-zero-sync: compute() of " in outcome.error
        assert f"{Path(__file__).name}:" in outcome.error
        assert "only rank(s) 0 called it; the others never arrive" in outcome.error


@pytest.mark.timeout(60)
@pytest.mark.parametrize("program", ["UpdatedInSteps", "MadeOnRankZero", "NoRows"])
def test_warn_lets_the_others_go_on_at_once(pool: Pool, program: str) -> None:
    """Rank zero waits, as it does without a guard; the others are done long before their time-out."""
    outcomes(pool, "AgainOnRankZero", "warn")  # so that starting does not count
    with pytest.raises(CaseTimeout) as waits:
        pool.run(f"{__name__}:run", program=program, mode="warn", timeout=TIMEOUT / 2)
    first, second = waits.value.outcomes
    assert first.status == "killed", str(first)
    assert second.ok, str(second)
    [reported] = second.value["warnings"]
    assert reported.startswith("LRG901 guard-disabled: the guard stepped aside (LRG204 rank-zero-sync: compute() of ")
    assert reported.endswith("Fix: Have all ranks do the same. lightning-retrieval-guard explain LRG901")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["none", "warn"])
def test_warn_adds_no_wait_of_its_own(pool: Pool, mode: str) -> None:
    first = outcomes(pool, "BeforeTheOthers", mode)[0]
    assert first.ok, str(first)
    assert first.value["waited"] < AHEAD / 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
@pytest.mark.parametrize("program", ["AgainOnRankZero", "OnRanksOfAGroup"])
def test_what_needs_no_other_rank_waits_for_none(pool: Pool, program: str, mode: str) -> None:
    for outcome in outcomes(pool, program, mode):
        assert outcome.ok, str(outcome)
        assert outcome.value["share"] == pytest.approx(0.5)
