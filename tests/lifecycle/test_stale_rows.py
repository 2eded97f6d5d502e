"""Rows of an earlier epoch: ids that come again in the next epoch do not restart."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from distributed.programs.data import Batch, rows_of
from lightning.pytorch import LightningModule, Trainer
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import RetrievalGuard

from .programs import Trainable


class NeverReset(Trainable, LightningModule):
    """Scores change from epoch to epoch, and nobody resets the metric."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = RetrievalMRR()
        self.shown: list[float] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores, target, ids = rows_of(batch)
        shift = torch.arange(len(scores)) * 0.37 * len(self.shown) % 1
        self.metric.update((scores + shift) % 1 + 0.01, target, ids)

    def on_validation_epoch_end(self) -> None:
        self.log("mrr", self.metric.compute())

    def on_validation_end(self) -> None:
        self.shown.append(float(self.trainer.callback_metrics["mrr"]))


def numbers(mode: str | None) -> tuple[list[float], list[str]]:
    """The number of each of two epochs, and the codes of the findings above note."""
    guard = [RetrievalGuard(mode=mode)] if mode else []  # type: ignore[arg-type]
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    length: dict[str, Any] = {"max_epochs": 2, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", devices=1, callbacks=list(guard), **options, **length)
    module = NeverReset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module)
    return module.shown, [found.code for own in guard for found in own.findings if found.severity != "note"]


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
def test_ids_that_come_again_in_the_next_epoch_do_not_restart(mode: str) -> None:
    plain, _ = numbers(None)
    assert plain[0] != pytest.approx(plain[1])
    assert numbers(mode) == (plain, [])
