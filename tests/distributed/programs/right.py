"""Right programs: nothing is to be said about them, and nothing is to be changed."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy
from torchmetrics.functional.retrieval import retrieval_recall

from .base import ComputedAtEnd, ObjectLogged, Program, QueryProgram
from .data import Batch, Columns, corpus, losses, queries, rows_of, rows_to_ignore
from .grids import ERROR_GRID, MEANS, every_name, grid_of
from .padded import RowProgram
from .shards import LossProgram
from .weights import UnequalTotals


class EveryObject(ObjectLogged):
    """Every class, cut and aggregation."""

    names = every_name()
    count = 12


class ErrorObject(ObjectLogged):
    """Also metrics that raise on empty queries, where there is none."""

    names = ERROR_GRID
    empty = False


class SplitRows(RowProgram, ObjectLogged):
    """Queries spread over batches and ranks; a rank may hold none of a query's relevant rows."""

    names = ERROR_GRID


class SplitRowsCompute(RowProgram, ComputedAtEnd):
    """The same with compute() at the end of the epoch."""


class Corpus(QueryProgram):
    """A corpus over batches and ranks: every batch holds every query, so that all ids come again."""

    documents: ClassVar[int] = 18
    count = 5

    def dataset(self) -> Dataset[Any]:
        return corpus(self.documents, self.count)

    def update(self, batch: Batch) -> None:
        ids = torch.arange(self.count).expand_as(batch["score"])
        for metric in self.metrics.values():
            metric.update(batch["score"], batch["target"], ids)


class CorpusObject(Corpus, ObjectLogged):
    """The metric logged as an object."""


class CorpusCompute(Corpus, ComputedAtEnd):
    """compute() at the end of the epoch."""


class SquareCorpus(Corpus, ObjectLogged):
    """As many queries as documents in a batch."""

    documents = 18
    count = 6

    def __init__(self, devices: int) -> None:
        super().__init__(devices)
        self.nominal = self.count


class TwoViews(Program):
    """Two views of a sample: twice as many losses as samples, in two tensors."""

    def dataset(self) -> Dataset[Any]:
        first, second = losses(42).columns["loss"], losses(42).columns["loss"].flip(0)
        return Columns(first=first, second=second)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        views = torch.cat([batch["first"], batch["second"]])
        self.log("loss", views.mean(), prog_bar=True, batch_size=len(views), sync_dist=True)


class StackedViews(Program):
    """Two views of a sample in one tensor of shape (batch, 2)."""

    def dataset(self) -> Dataset[Any]:
        return Columns(views=losses(84).columns["loss"].reshape(42, 2))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        views = batch["views"].flatten()
        self.log("loss", views.mean(), prog_bar=True, batch_size=len(views), sync_dist=True)


class SyncedCompute(ComputedAtEnd):
    """LRG202, a note: compute() with a needless sync_dist."""

    def on_validation_epoch_end(self) -> None:
        for name, metric in self.metrics.items():
            self.log(name, metric.compute(), prog_bar=True, sync_dist=True)
            metric.reset()


class GatheredAtEnd(QueryProgram):
    """One gather at the end of the epoch, and metrics that do not synchronise."""

    def on_validation_epoch_start(self) -> None:
        self.kept: list[Batch] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.kept.append(batch)

    def on_validation_epoch_end(self) -> None:
        rows = {name: torch.cat([batch[name] for batch in self.kept]) for name in self.kept[0]}
        whole = {name: column.flatten(0, 1) for name, column in self.all_gather(rows).items()}
        for name, metric in grid_of(self.names, sync_on_compute=False).items():
            metric.update(*rows_of(whole))
            self.log(name, metric.compute(), prog_bar=True)


class ResetAtStart(QueryProgram):
    """The reset stands in the start hook."""

    def on_validation_epoch_start(self) -> None:
        for metric in self.metrics.values():
            metric.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update(batch)

    def on_validation_epoch_end(self) -> None:
        for name, metric in self.metrics.items():
            self.log(name, metric.compute(), prog_bar=True)


class OnStep(QueryProgram):
    """forward(), then the object, for the step and for the epoch."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            metric(*rows_of(batch))
            self.log(name, metric, prog_bar=True, on_step=True, on_epoch=True)


class ForwardSynced(QueryProgram):
    """Values of whole queries, averaged over batches and ranks by their number."""

    names = MEANS

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            value = metric(*rows_of(batch))
            self.log(name, value, prog_bar=True, batch_size=len(batch["query"]), sync_dist=True)


class MadeInStep(QueryProgram):
    """A new metric a step over whole queries, averaged by their number."""

    names = MEANS

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in grid_of(self.names, sync_on_compute=False).items():
            metric.update(*rows_of(batch))
            self.log(name, metric.compute(), prog_bar=True, sync_dist=True)


class MadeInStepSynced(QueryProgram):
    """A new metric a step with ids of the data set; it synchronises (a note), which is slow but right."""

    names = MEANS

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in grid_of(self.names).items():
            metric.update(*rows_of(batch))
            self.log(name, metric.compute(), prog_bar=True, sync_dist=True)


class SyncOffAveraged(ComputedAtEnd):
    """Means over whole queries, of which every rank has as many: their average is the mean."""

    names = MEANS
    metric_options: ClassVar[dict[str, Any]] = {"sync_on_compute": False}

    def on_validation_epoch_end(self) -> None:
        for name, metric in self.metrics.items():
            self.log(name, metric.compute(), prog_bar=True, sync_dist=True)
            metric.reset()


class Functional(Program):
    """A function of torchmetrics for each query, and the mean of its values."""

    def dataset(self) -> Dataset[Any]:
        return ObjectLogged(1).dataset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        lists = zip(batch["score"], batch["target"], strict=True)
        values = torch.stack([retrieval_recall(score, target, top_k=1) for score, target in lists])
        self.log("recall_1", values.mean(), prog_bar=True, sync_dist=True)


class RepeatedQueries(ObjectLogged):
    """The data itself holds queries twice, and one process counts them twice."""

    def dataset(self) -> Dataset[Any]:
        columns = queries(12, empty=True).columns
        return Columns(**{name: torch.cat([column, column[:6]]) for name, column in columns.items()})


class Ignored(ObjectLogged):
    """Lists filled up with rows that the metric ignores."""

    metric_options: ClassVar[dict[str, Any]] = {"ignore_index": -1}

    def update(self, batch: Batch) -> None:
        for metric in self.metrics.values():
            metric.update(*rows_to_ignore(batch))


class Graded(ObjectLogged):
    """Relevance in grades from 0 to 3, which nDCG alone takes."""

    names = "ndcg ndcg_5 ndcg_1_median ndcg_skip_min"

    def update(self, batch: Batch) -> None:
        score, target, query = rows_of(batch)
        for metric in self.metrics.values():
            metric.update(score, target * (query % 3 + 1), query)


class SumStates(LossProgram):
    """Metrics of torchmetrics whose states are sums, as objects."""

    def __init__(self, devices: int) -> None:
        super().__init__(devices)
        self.mean, self.accuracy = MeanMetric(), BinaryAccuracy()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.mean.update(batch["loss"])
        self.accuracy.update(batch["loss"] / 10, batch["loss"].frac() > 0.5)
        self.log("mean", self.mean, prog_bar=True)
        self.log("accuracy", self.accuracy, prog_bar=True)


class SumStatesCompute(SumStates):
    """The same, computed at the end of the epoch."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.mean.update(batch["loss"])
        self.accuracy.update(batch["loss"] / 10, batch["loss"].frac() > 0.5)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({"mean": self.mean.compute(), "accuracy": self.accuracy.compute()}, prog_bar=True)
        self.mean.reset()
        self.accuracy.reset()


class SumStatesForward(SumStates):
    """The same through forward() and Lightning's mean."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("mean", self.mean(batch["loss"]), prog_bar=True, sync_dist=True)
        accuracy = self.accuracy(batch["loss"] / 10, batch["loss"].frac() > 0.5)
        self.log("accuracy", accuracy, prog_bar=True, sync_dist=True)


class SyncedLoss(LossProgram):
    """A loss with sync_dist."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean(), prog_bar=True, sync_dist=True)


class SameOnEveryRank(LossProgram):
    """Values that need no sync_dist: a constant, and one that the program has gathered itself."""

    def on_validation_epoch_start(self) -> None:
        self.kept: list[Tensor] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.kept.append(batch["loss"])
        self.log("temperature", 0.07, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        self.log("loss", self.all_gather(torch.cat(self.kept)).mean(), prog_bar=True)


class GatheredInStep(LossProgram):
    """The mean over all ranks, gathered in the step."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", self.all_gather(batch["loss"]).mean(), prog_bar=True)


class Reductions(LossProgram):
    """Largest, smallest and sum, over batches and ranks."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss = batch["loss"]
        self.log("largest", loss.max(), prog_bar=True, reduce_fx="max", sync_dist=True)
        self.log("smallest", loss.min(), prog_bar=True, reduce_fx="min", sync_dist=True)
        self.log("samples", float(len(loss)), prog_bar=True, reduce_fx="sum", sync_dist=True)


class FloatWeights(UnequalTotals):
    """Unequal totals, as floats: Lightning does not round their mean."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss = batch["loss"]
        self.log("loss", loss.mean(), prog_bar=True, batch_size=float(len(loss)), sync_dist=True)


class UnevenSumStates(UnequalTotals, SumStates):
    """Unequally many updates of metrics whose states are sums."""
