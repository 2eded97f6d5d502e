"""A sample that the sampler repeated counts once in metrics that keep states; what a program sees in a step stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MaxMetric, MeanMetric, MeanSquaredError, Metric, MetricCollection
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision, BinaryF1Score

from .evaluate import Recorder, guards, make_trainer, recorded_warnings
from .harness import Outcome, Pool

pytestmark = pytest.mark.timeout(120)

COUNT = 11  # one sample is repeated on 2 ranks
DATA = [
    (score, label)
    for score, label in zip(
        torch.rand(COUNT, generator=torch.Generator().manual_seed(3)),
        torch.tensor([1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 1]),
        strict=True,
    )
]


class InPlace(Metric):
    """Writes to the tensor that it holds."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(2), dist_reduce_fx="sum")

    def update(self, scores: Tensor) -> None:
        self.total += torch.stack([scores.sum(), torch.tensor(float(len(scores)))])

    def compute(self) -> Tensor:
        return self.total[0] / self.total[1]


class Padded(LightningModule):
    """Metrics that are fed sample by sample, one that gets the mean of a batch, and one that sees it the other way."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.auroc, self.own, self.f1, self.mse = BinaryAUROC(), InPlace(), BinaryF1Score(), MeanSquaredError()
        self.group = MetricCollection([BinaryAUROC(), BinaryAveragePrecision(), BinaryF1Score()])
        self.mean, self.flipped, self.ignored, self.largest = MeanMetric(), MeanMetric(), MeanMetric(), MaxMetric()
        self.steps: list[float] = []
        self.held: list[float] = []

    def val_dataloader(self) -> Any:
        return DataLoader(DATA, batch_size=self.batch_size)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        scores, labels = batch
        self.auroc.update(scores, labels)
        self.own.update(scores)
        self.log_dict({"auroc": self.auroc, "own": self.own})
        value = self.f1(scores, labels)
        self.log("f1", value, on_step=False, on_epoch=True)
        self.mse.update(scores, labels)
        self.group.update(scores, labels)
        self.mean.update(scores.mean())
        self.flipped.update(scores.flip(0))
        self.ignored.update(scores)
        self.largest.update(scores)
        self.log_dict({"mean": self.mean, "flipped": self.flipped, "largest": self.largest})
        self.log("ignored", self.ignored)  # lrg: ignore[LRG403]
        self.steps += [float(value), float(self.own.total[0]), float(self.mse.compute())]

    def on_validation_epoch_end(self) -> None:
        self.held = [float(self.own.total[0]), float(self.f1.tp), sum(map(len, self.auroc.preds))]
        self.log_dict({"mse": self.mse.compute(), **{f"group{name}": v for name, v in self.group.compute().items()}})


def run(mode: str, batch_size: int) -> dict[str, Any]:
    """What this rank shows."""
    module = Padded(batch_size)
    guard = guards(mode, {})
    trainer = make_trainer(guard, Recorder())
    with recorded_warnings():
        trainer.validate(module, verbose=False)
    return {
        "values": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "seen": (module.steps, module.held),
        "padded": {one.key: one.corrected for each in guard for one in each.findings if one.code == "LRG403"},
        "advised": {
            one.key for each in guard for one in each.findings if one.code == "LRG403" and "mode='correct'" in one.fix
        },
    }


def values_of(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """What ranks that did not fail show."""
    assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
    return [outcome.value for outcome in outcomes]


# 6 samples a rank: the last batch is whole, is short, holds the repeated sample alone, and is the first one
@pytest.mark.parametrize("batch_size", [2, 4, 5, 6])
def test_repeated_samples_count_once(pools: Mapping[int, Pool], batch_size: int) -> None:
    # F1 of all samples, where the program logs the mean over batches
    [alone] = values_of(pools[1].run(f"{__name__}:run", mode="correct", batch_size=batch_size))
    plain = values_of(pools[2].run(f"{__name__}:run", mode="none", batch_size=batch_size))
    shown = values_of(pools[2].run(f"{__name__}:run", mode="correct", batch_size=batch_size))
    stays = {"mean", "flipped", "ignored"}
    for one, other in zip(plain, shown, strict=True):
        assert other["seen"] == one["seen"]
        for name, value in other["values"].items():
            assert value == pytest.approx((one if name in stays else alone)["values"][name], rel=1e-6), name
        assert one["values"]["auroc"] != other["values"]["auroc"]
        corrected = other["padded"]
        assert corrected == {name: name not in stays for name in other["values"] if name not in ("ignored", "largest")}
        assert not other["advised"]


def test_warnings_change_nothing(pools: Mapping[int, Pool]) -> None:
    plain = values_of(pools[2].run(f"{__name__}:run", mode="none", batch_size=4))
    shown = values_of(pools[2].run(f"{__name__}:run", mode="warn", batch_size=4))
    for one, other in zip(plain, shown, strict=True):
        assert (other["values"], other["seen"]) == (one["values"], one["seen"])
        assert set(other["padded"]) == set(one["values"]) - {"ignored", "largest"}
        assert not any(other["padded"].values())
        # the value of forward() stays with the step, and the mean of a batch has no part for the sample
        assert other["advised"] == set(one["values"]) - {"ignored", "largest", "f1", "mean"}
