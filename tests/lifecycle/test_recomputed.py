"""What the guard computes for a finding changes nothing that the program logs later."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryF1Score

from lightning_retrieval_guard import RetrievalGuard
from tests.distributed.programs.data import Batch, rows_of

from .alone import alone
from .programs import Trainable, make_trainer

pytestmark = pytest.mark.timeout(60)


class Smoothed(MeanMetric):
    """Its ``compute()`` goes on with an average over the epochs."""

    average: Tensor | None = None

    def compute(self) -> Tensor:
        value = super().compute()
        self.average = value if self.average is None else 0.5 * self.average + 0.5 * value
        return self.average


class Running(Trainable, LightningModule):
    """LRG402: logs ``compute()`` of a growing metric in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = Smoothed()
        self.shown: list[float] = []

    def on_validation_epoch_start(self) -> None:
        self.metric.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(rows_of(batch)[0] + self.current_epoch)
        value = self.metric.compute()
        self.shown.append(float(value))
        self.log("smoothed", value)


def fit(*guard: Any) -> tuple[list[float], float]:
    module, trainer = Running(), make_trainer(*guard, max_epochs=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module)
    return module.shown, float(trainer.callback_metrics["smoothed"])


def test_compute_with_a_memory_goes_on_as_without_a_guard() -> None:
    warn, correct = RetrievalGuard(), RetrievalGuard("correct")
    plain = fit()
    assert fit(warn) == plain
    assert {finding.code for finding in warn.findings if finding.effect is not None} == {"LRG402"}
    assert fit(correct)[0] == plain[0]


class Averaged(Trainable, LightningModule):
    """LRG302: logs the mean of the F1 scores of batches, of a metric that nobody resets."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = BinaryF1Score()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores, target, _ = rows_of(batch)
        self.log("f1", self.metric(scores, target), batch_size=len(batch["query"]))


def test_what_a_run_before_has_fed_is_not_in_the_value_of_an_epoch() -> None:
    module, guard = Averaged(), RetrievalGuard("correct")
    alone(module, limit_val_batches=2)
    plain = alone(Averaged(), limit_val_batches=3)
    assert alone(module, guard, limit_val_batches=3).numbers == plain.numbers
    assert [(finding.code, finding.corrected, finding.effect) for finding in guard.findings] == [
        ("LRG302", False, None)
    ]
