"""Metrics that keep states and need no help: what a guard adds to a validation that feeds and logs them evenly."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import BinaryAUROC, BinaryF1Score, MulticlassAccuracy

from bench.collectives import Meter
from bench.declare import Bench, Line, Result, Scale, at_most
from bench.epochs import plain_dict, validate
from bench.ranks import ranks
from bench.turns import medians, ratio

WORLD_SIZE = 2
BATCH, CLASSES = 32, 5


class Classifier(LightningModule):
    """Logs a collection, a metric and a loss as the documentation of torchmetrics does."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.binary = MetricCollection([BinaryAUROC(thresholds=50), BinaryF1Score()])
        self.accuracy, self.mean = MulticlassAccuracy(CLASSES), MeanMetric()

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(cast(Any, torch.arange(self.steps * BATCH * WORLD_SIZE)), batch_size=BATCH)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        scores = (batch * 0.618).frac()
        self.binary.update(scores, batch % 2)
        self.accuracy.update(batch % CLASSES, batch % (CLASSES - 1))
        self.mean.update(scores)
        self.log_dict(self.binary)
        self.log("accuracy", self.accuracy)
        self.log("mean", self.mean)
        self.log("loss", scores.mean(), sync_dist=True)


def evaluate(steps: int, mode: str) -> dict[str, Any]:
    """What a rank does."""
    return plain_dict(validate(Classifier(steps), Meter(), mode))


def run(scale: Scale) -> Result:
    steps = scale.pick(200, 20)
    whole: dict[str, list[float]] = {"plain": [], "warn": [], "correct": []}
    end: dict[str, list[float]] = {mode: [] for mode in whole}
    with ranks(WORLD_SIZE) as call:
        for mode in whole:
            call(evaluate, steps=2, mode=mode)
        for _ in range(scale.pick(11, 1)):
            for mode, taken in whole.items():
                epochs = call(evaluate, steps=steps, mode=mode)
                taken.append(max(epoch["seconds"] for epoch in epochs))
                end[mode].append(max(epoch["end_seconds"] for epoch in epochs))
    figures = {
        "warn": ratio(whole["warn"], whole["plain"]),
        "correct": ratio(whole["correct"], whole["plain"]),
        "warn-end": ratio(end["warn"], end["plain"]),
        "correct-end": ratio(end["correct"], end["plain"]),
    }
    return Result(figures, {"seconds": medians(whole), "end seconds": medians(end), "steps": steps})


LINES = {
    "warn": Line("metrics that keep states, W=2: whole epoch, warn / plain", at_most(1.05)),
    "correct": Line("metrics that keep states, W=2: whole epoch, correct / plain", at_most(1.05)),
    "warn-end": Line("metrics that keep states, W=2: end of the epoch, warn / plain"),
    "correct-end": Line("metrics that keep states, W=2: end of the epoch, correct / plain"),
}
BENCH = Bench("states", LINES, run)
