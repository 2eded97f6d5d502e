"""What the guard computes for a finding changes nothing that the program logs later."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import MeanMetric

from lightning_retrieval_guard import RetrievalGuard
from tests.distributed.programs.data import Batch, rows_of

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
