"""A sample that the sampler repeated counts once in metrics that keep states; what a program sees in a step stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from torchmetrics import MaxMetric, MeanMetric, MeanSquaredError, Metric, MetricCollection
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision, BinaryF1Score
from torchmetrics.wrappers import BootStrapper, MinMaxMetric

from .harness import Pool
from .ranks import Shown, on_ranks

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


class Share(Metric):
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(2), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        return self.total[0] / self.total[1]


class InPlace(Share):
    """Writes to the tensor that it holds."""

    def update(self, scores: Tensor) -> None:
        self.total += torch.stack([scores.sum(), torch.tensor(float(len(scores)))])


class Smoothed(InPlace):
    """Its ``compute()`` goes on with an average and notes what it has shown, so that it matters how often it runs."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[float] = []
        self.register_buffer("average", torch.zeros(()))

    def compute(self) -> Tensor:
        value = super().compute()
        self.average.mul_(0.5).add_(0.5 * value)
        self.shown.append(float(value))
        return self.average / (1 - 0.5 ** len(self.shown))


class ByLabels(Share):
    """The mean loss of a batch, weighted by the number of its labels."""

    def update(self, loss: Tensor, labels: Tensor) -> None:
        self.total = self.total + torch.stack([loss * len(labels), torch.tensor(float(len(labels)))])


class MeanOfRanks(InPlace):
    """Has torchmetrics take the mean of the means of all ranks."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("mean", torch.zeros(()), dist_reduce_fx="mean")

    def update(self, scores: Tensor) -> None:
        super().update(scores)
        self.mean = self.total[0] / self.total[1]

    def compute(self) -> Tensor:
        return self.mean


class Padded(LightningModule):
    """Metrics that are fed sample by sample, one that gets the mean of a batch, and one that sees it the other way."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.batch_size = batch_size
        self.auroc, self.own, self.f1, self.mse = BinaryAUROC(), InPlace(), BinaryF1Score(), MeanSquaredError()
        self.group = MetricCollection([BinaryAUROC(), BinaryAveragePrecision(), BinaryF1Score()])
        self.mean, self.flipped, self.ignored, self.largest = MeanMetric(), MeanMetric(), MeanMetric(), MaxMetric()
        self.by_labels, self.of_ranks = ByLabels(), MeanOfRanks()
        self.drawn = BootStrapper(MeanMetric(), num_bootstraps=3)
        self.range, self.smoothed = MinMaxMetric(BinaryAUROC()), Smoothed()
        self.of_smoothed = 0.5 * self.smoothed
        self.steps: list[float] = []
        self.held: list[float] = []

    def val_dataloader(self) -> Any:
        return DataLoader(DATA, batch_size=self.batch_size)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        scores, labels = batch
        self.auroc.update(scores, labels)
        self.own.update(scores)
        self.log_dict({"auroc": self.auroc, "own": self.own})
        self.range.update(scores, labels)
        self.drawn.update(scores)
        self.of_ranks.update(scores)
        self.smoothed.update(scores)
        value = self.f1(scores, labels)
        self.log("f1", value, on_step=False, on_epoch=True)
        self.mse.update(scores, labels)
        self.group.update(scores, labels)
        self.mean.update(scores.mean())
        self.flipped.update(scores.flip(0))
        self.ignored.update(scores)
        self.largest.update(scores)
        self.by_labels.update(scores.mean(), labels)
        self.log_dict({"mean": self.mean, "flipped": self.flipped, "by_labels": self.by_labels})
        self.log_dict({"of_ranks": self.of_ranks, "largest": self.largest})
        self.log("ignored", self.ignored)  # lrg: ignore[LRG403]
        self.steps += [float(value), float(self.own.total[0]), float(self.mse.compute())]

    def on_validation_epoch_end(self) -> None:
        self.held = [float(self.own.total[0]), float(self.f1.tp), sum(map(len, self.auroc.preds))]
        self.log_dict({f"range_{name}": value for name, value in self.range.compute().items()})
        self.log("drawn", self.drawn.compute()["mean"])
        self.log("of_smoothed", self.of_smoothed.compute())
        self.log_dict({"smoothed": self.smoothed.compute(), "again": self.smoothed.compute()})
        self.held.append(len(self.smoothed.shown))
        self.log_dict({"mse": self.mse.compute(), **{f"group{name}": v for name, v in self.group.compute().items()}})


def padded(pool: Pool, mode: str, batch_size: int) -> list[Shown]:
    return on_ranks(pool, partial(Padded, batch_size), mode, keeps=["steps", "held"])


def is_corrected(shown: Shown) -> dict[str, bool]:
    """The keys at which repeated samples were found, and whether they count once."""
    return {one.key: one.corrected for one in shown.findings if one.code == "LRG403"}


def advised(shown: Shown) -> set[str]:
    """The keys for which correct mode is advised."""
    return {one.key for one in shown.findings if one.code == "LRG403" and "mode='correct'" in one.fix}


# 6 samples a rank: the last batch is whole, is short, holds the repeated sample alone, and is the first one
@pytest.mark.parametrize("batch_size", [2, 4, 5, 6])
def test_repeated_samples_count_once(pools: Mapping[int, Pool], batch_size: int) -> None:
    # F1 of all samples, where the program logs the mean over batches
    [alone] = padded(pools[1], "correct", batch_size)
    # in a batch of one sample, the mean loss is that of the repeated one
    stays = {"mean", "flipped", "ignored", "drawn", "of_ranks"} | ({"by_labels"} if batch_size != 5 else set())
    for one, other in zip(*(padded(pools[2], mode, batch_size) for mode in ("none", "correct")), strict=True):
        assert other.kept == one.kept
        for name, value in other.numbers.items():
            assert value == pytest.approx((one if name in stays else alone).numbers[name], rel=1e-6), name
        assert one.numbers["auroc"] != other.numbers["auroc"]
        found = {name: name not in stays for name in other.numbers if name not in ("ignored", "largest")}
        assert is_corrected(other) == found
        assert not advised(other)


def test_warnings_change_nothing(pools: Mapping[int, Pool]) -> None:
    for one, other in zip(*(padded(pools[2], mode, 4) for mode in ("none", "warn")), strict=True):
        assert (other.numbers, other.kept) == (one.numbers, one.kept)
        found = set(one.numbers) - {"ignored", "largest"}
        assert is_corrected(other) == dict.fromkeys(found, False)
        # the value of forward() stays with the step, and some are known not to come apart
        assert advised(other) == found - {"f1", "mean", "by_labels", "drawn", "of_ranks"}


class Reversed(BatchSampler):
    """Gives each batch the other way round, and may leave out samples at the end."""

    leaves_out = 0

    def __iter__(self) -> Iterator[list[int]]:
        batches = [batch[::-1] for batch in super().__iter__()]
        return iter(batches[: len(batches) - self.leaves_out])


class LeavesOut(Reversed):
    leaves_out = 1


class InOwnBatches(LightningModule):
    sampler = Reversed

    def __init__(self) -> None:
        super().__init__()
        self.auroc = BinaryAUROC()

    def val_dataloader(self) -> Any:
        return DataLoader(DATA, batch_sampler=self.sampler(SequentialSampler(DATA), 4, False))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.auroc.update(*batch)
        self.log("auroc", self.auroc)
        self.log("mean", batch[0].mean(), sync_dist=True)


class LeftOut(InOwnBatches):
    sampler = LeavesOut


@pytest.mark.parametrize(("program", "found"), [(InOwnBatches, {"auroc": False, "mean": False}), (LeftOut, {})])
def test_a_batch_sampler_of_the_programs_own_hides_which_sample_is_repeated(
    pools: Mapping[int, Pool], program: type[LightningModule], found: dict[str, bool]
) -> None:
    for one, other in zip(*(on_ranks(pools[2], program, mode) for mode in ("none", "correct")), strict=True):
        assert other.numbers == pytest.approx(one.numbers, rel=1e-6)
        assert is_corrected(other) == found
