"""Programs with a grid of metrics, or with a value that no program of the corpus in `tests/programs` logs."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryF1Score, MulticlassAccuracy

from .base import ComputedAtEnd, ObjectLogged, Program, QueryProgram
from .data import Batch, Columns, losses, queries, rows, rows_of, rows_to_ignore
from .grids import ERROR_GRID, ERRORS, FEW, MEANS, every_name

# --- metrics ----------------------------------------------------------------------------------------------------


class GatheredObject(ObjectLogged):
    """LRG201: gathers the batch before it is given to the metrics."""

    def update(self, batch: Batch) -> None:
        super().update({name: column.flatten(0, 1) for name, column in self.all_gather(batch).items()})


class SyncOff(ComputedAtEnd):
    """LRG203: compute() of metrics that were told not to synchronise."""

    metric_options: ClassVar[dict[str, Any]] = {"sync_on_compute": False}


class SyncOffEvery(SyncOff):
    """The same with every class, cut and aggregation."""

    names = every_name()
    count = 12


class EveryObject(ObjectLogged):
    """Right: the metrics of the same grid, as objects."""

    names = every_name()
    count = 12


class SyncOffAveraged(SyncOff):
    """Right: means over whole queries, of which every rank has as many: their average is the mean."""

    names = MEANS

    def on_validation_epoch_end(self) -> None:
        for name, metric in self.metrics.items():
            self.log(name, metric.compute(), prog_bar=True, sync_dist=True)
            metric.reset()


class DatasetIds(ObjectLogged):
    """Right: also metrics that raise on empty queries, where there is none."""

    names = ERROR_GRID
    empty = False


class ArangeObject(DatasetIds):
    """LRG301: ids 0, 1, 2, ... in every batch, the metric logged as an object."""

    def update(self, batch: Batch) -> None:
        super().update({**batch, "query": torch.arange(len(batch["query"]))})


class ArangeIgnored(ArangeObject):
    """The same, with rows that the metric ignores."""

    names = f"{FEW} {ERRORS}"
    metric_options: ClassVar[dict[str, Any]] = {"ignore_index": -1}

    def rows(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        return rows_to_ignore(batch)


class NoMeanObject(ObjectLogged):
    """Right: metrics that are no mean over all queries."""

    names = "mrr_5_median precision_max map_5_skip"


class NoMeanForward(NoMeanObject):
    """LRG302: values of batches of whole queries, averaged."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            value = metric(*rows_of(batch))
            self.log(name, value, prog_bar=True, batch_size=len(batch["query"]), sync_dist=True)


class EmptyQueries(ObjectLogged):
    """The metric raises on queries without relevant rows, and there are some."""

    names = "recall_1_error mrr_error"


class SplitRows(ObjectLogged):
    """Right: one row a sample; a rank may hold none of a query's relevant rows."""

    names = ERROR_GRID
    global_batch = 72
    count = 216

    def dataset(self) -> Dataset[Any]:
        return rows(self.count)

    def rows(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        return batch["score"], batch["target"], batch["query"]


class RepeatedQueries(ObjectLogged):
    """Right: the data itself holds queries twice, and one process counts them twice."""

    def dataset(self) -> Dataset[Any]:
        columns = queries(12, empty=True).columns
        return Columns(**{name: torch.cat([column, column[:6]]) for name, column in columns.items()})


class OnStep(QueryProgram):
    """Right: forward(), then the object, for the step and for the epoch."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            metric(*rows_of(batch))
            self.log(name, metric, prog_bar=True, on_step=True, on_epoch=True)


class SyncOnStep(QueryProgram):
    """LRG207, a note: forward() synchronises in every step."""

    names = MEANS
    metric_options: ClassVar[dict[str, Any]] = {"dist_sync_on_step": True}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            metric(*rows_of(batch))
            self.log(name, metric, prog_bar=True)


# --- plain values and metrics of other kinds --------------------------------------------------------------------


class LossProgram(Program):
    """A plain value: the mean of the batch's losses."""

    count: ClassVar[int] = 42

    def dataset(self) -> Dataset[Any]:
        return losses(self.count)


class TrueSize(LossProgram):
    """Right: the samples in this rank's batch."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean(), prog_bar=True, batch_size=len(batch["loss"]), sync_dist=True)


class Nominal(LossProgram):
    """LRG102: the loader's batch size."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean(), prog_bar=True, batch_size=self.nominal, sync_dist=True)


class TrueTimesWorldSize(LossProgram):
    """LRG101, harmless: the factor is the same in every batch, and cancels."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        size = len(batch["loss"]) * self.trainer.world_size
        self.log("loss", batch["loss"].mean(), prog_bar=True, batch_size=size, sync_dist=True)


class Gathered(LossProgram):
    """Right: a constant, and means that the program has gathered itself, in the step and at the end."""

    def on_validation_epoch_start(self) -> None:
        self.kept: list[Tensor] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.kept.append(batch["loss"])
        self.log("temperature", 0.07, prog_bar=True)
        self.log("in_step", self.all_gather(batch["loss"]).mean(), prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        self.log("loss", self.all_gather(torch.cat(self.kept)).mean(), prog_bar=True)


class UnequalTotals(LossProgram):
    """An own split without repeated samples, in which ranks have unequally many."""

    trainer_options: ClassVar[dict[str, Any]] = {"use_distributed_sampler": False}
    count = 11

    def val_dataloader(self) -> DataLoader[Any]:
        indexes = range(self.global_rank, self.count, self.trainer.world_size)
        return DataLoader(Subset(self.dataset(), indexes), batch_size=2)


class SumStates(LossProgram):
    """Right: metrics whose states are sums, as objects."""

    def __init__(self, devices: int) -> None:
        super().__init__(devices)
        self.mean, self.accuracy = MeanMetric(), BinaryAccuracy()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.mean.update(batch["loss"])
        self.accuracy.update(batch["loss"] / 10, batch["loss"].frac() > 0.5)
        self.log("mean", self.mean, prog_bar=True)
        self.log("accuracy", self.accuracy, prog_bar=True)


class SumStatesForward(SumStates):
    """Right: the same through forward() and Lightning's mean."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("mean", self.mean(batch["loss"]), prog_bar=True, sync_dist=True)
        accuracy = self.accuracy(batch["loss"] / 10, batch["loss"].frac() > 0.5)
        self.log("accuracy", accuracy, prog_bar=True, sync_dist=True)


class UnevenSumStates(UnequalTotals, SumStates):
    """Right: unequally many updates of metrics whose states are sums."""


class ClassObject(LossProgram):
    """Right: classification metrics that are no mean over samples, and one that is, as objects."""

    def __init__(self, devices: int) -> None:
        super().__init__(devices)
        self.f1, self.auroc, self.mean = BinaryF1Score(), BinaryAUROC(), MeanMetric()
        self.macro = MulticlassAccuracy(2, average="macro")

    def update(self, batch: Batch) -> None:
        score, target = batch["loss"] / 10, (batch["loss"].frac() > 0.5).long()
        self.f1.update(score, target)
        self.auroc.update(score, target)
        self.macro.update((score > 0.4).long(), target)
        self.mean.update(score)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update(batch)
        for name, metric in self.named_children():
            self.log(name, metric, prog_bar=True)


class ClassRunning(ClassObject):
    """LRG402: compute() of the same metrics in every step."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update(batch)
        for name, metric in self.named_children():
            self.log(name, metric.compute(), prog_bar=True, batch_size=len(batch["loss"]))

    def on_validation_epoch_end(self) -> None:
        for metric in self.children():
            metric.reset()
