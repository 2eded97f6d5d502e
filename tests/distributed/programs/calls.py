"""LRG202, 204, 206 and 207: right values, handed over in a way that spoils or slows them."""

from __future__ import annotations

from typing import Any, ClassVar

from .base import ComputedAtEnd, ObjectLogged, QueryProgram
from .data import Batch, rows_of
from .grids import MEANS
from .shards import LossProgram


class SyncedTwice(ComputedAtEnd):
    """LRG202: the value over all ranks is summed over the ranks."""

    def on_validation_epoch_end(self) -> None:
        for name, metric in self.metrics.items():
            self.log(name, metric.compute(), prog_bar=True, sync_dist=True, reduce_fx="sum")
            metric.reset()


class RankZeroSync(LossProgram):
    """LRG204: rank_zero_only switches sync_dist off."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean(), prog_bar=True, sync_dist=True, rank_zero_only=True)


class OppositeOrder(LossProgram):
    """LRG206: Lightning reduces one key into the other."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss = batch["loss"].mean()
        values = {"loss": loss, "double": 2 * loss}
        for name in sorted(values, reverse=self.global_rank % 2 == 1):
            self.log(name, values[name], prog_bar=True, sync_dist=True)


class MissingKey(LossProgram):
    """LRG206: a rank does not log a key that the others reduce."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean(), prog_bar=True, sync_dist=True)
        if self.global_rank == 0:
            self.log("extra", batch["loss"].max(), prog_bar=True, sync_dist=True)


class RunningValue(QueryProgram):
    """compute() of an accumulating metric in every step: a mean of running values, on one rank as well."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update(batch)
        for name, metric in self.metrics.items():
            self.log(name, metric.compute(), prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        for metric in self.metrics.values():
            metric.reset()


class EmptyQueries(ObjectLogged):
    """The metric raises on queries without relevant rows, and there are some."""

    names = "recall_1_error mrr_error"


class ComputedInStep(QueryProgram):
    """LRG207, a note: the metric is logged as an object, and synchronised in every step besides."""

    names = MEANS

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update(batch)
        for name, metric in self.metrics.items():
            metric.compute()
            self.log(name, metric, prog_bar=True)


class SyncOnStep(QueryProgram):
    """LRG207, a note: forward() synchronises in every step."""

    names = MEANS
    metric_options: ClassVar[dict[str, Any]] = {"dist_sync_on_step": True}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            metric(*rows_of(batch))
            self.log(name, metric, prog_bar=True)
