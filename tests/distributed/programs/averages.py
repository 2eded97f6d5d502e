"""LRG302 and LRG402: values of batches, or of a growing metric, averaged where that is no value of the whole."""

from __future__ import annotations

from torch.nn import ModuleDict
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC, BinaryF1Score, MulticlassAccuracy

from .base import ObjectLogged, QueryProgram
from .data import Batch, rows_of
from .padded import RowProgram
from .shards import LossProgram

ROW_NAMES = "recall_1 mrr ndcg_5 map_5_skip mrr_5_median"
OTHER_NAMES = "mrr_5_median precision_max map_5_skip"


class SpanningForward(RowProgram):
    """Values of batches, though every query has rows in several of them."""

    names = ROW_NAMES
    global_batch = 24

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            value = metric(batch["score"], batch["target"], batch["query"])
            self.log(name, value, prog_bar=True, batch_size=len(batch["query"]), sync_dist=True)


class SpanningObject(RowProgram, ObjectLogged):
    """The right form."""

    names = ROW_NAMES
    global_batch = 24


class NoMeanForward(QueryProgram):
    """Values of batches of whole queries, of metrics that are no mean, or no mean over all queries."""

    names = OTHER_NAMES

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            value = metric(*rows_of(batch))
            self.log(name, value, prog_bar=True, batch_size=len(batch["query"]), sync_dist=True)


class NoMeanObject(ObjectLogged):
    """The right form."""

    names = OTHER_NAMES


class ClassForward(LossProgram):
    """Values of batches of classification metrics that are no mean over samples."""

    def __init__(self, devices: int) -> None:
        super().__init__(devices)
        self.metrics = ModuleDict(
            {"f1": BinaryF1Score(), "auroc": BinaryAUROC(), "macro": MulticlassAccuracy(2, average="macro")}
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        score, target = batch["loss"] / 10, (batch["loss"].frac() > 0.5).long()
        for name, metric in self.metrics.items():
            value = metric((score > 0.4).long() if name == "macro" else score, target)
            self.log(name, value, prog_bar=True, batch_size=len(score), sync_dist=True)


class ClassObject(ClassForward):
    """The right form."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        score, target = batch["loss"] / 10, (batch["loss"].frac() > 0.5).long()
        for name, metric in self.metrics.items():
            metric.update((score > 0.4).long() if name == "macro" else score, target)
            self.log(name, metric, prog_bar=True)


class ClassRunning(ClassObject):
    """compute() of the same metrics, and of a mean, in every step."""

    def __init__(self, devices: int) -> None:
        super().__init__(devices)
        self.mean = MeanMetric()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        score, target = batch["loss"] / 10, (batch["loss"].frac() > 0.5).long()
        self.mean.update(score)
        self.log("mean", self.mean.compute(), prog_bar=True, batch_size=len(score))
        for name, metric in self.metrics.items():
            metric.update((score > 0.4).long() if name == "macro" else score, target)
            self.log(name, metric.compute(), prog_bar=True, batch_size=len(score))

    def on_validation_epoch_end(self) -> None:
        for metric in (self.mean, *self.metrics.values()):
            metric.reset()


class ClassRunningObject(ClassRunning):
    """The right form."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.mean.update(batch["loss"] / 10)
        self.log("mean", self.mean, prog_bar=True)
        ClassObject.validation_step(self, batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        pass
