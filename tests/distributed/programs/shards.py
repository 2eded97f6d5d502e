"""LRG203: a rank's own value is logged as the value of the epoch."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .base import ComputedAtEnd, Program, QueryProgram
from .data import Batch, losses, rows_of
from .grids import MEANS, every_name, grid_of


class Forward(QueryProgram):
    """The value of forward(), which never synchronises."""

    names = MEANS

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            self.log(name, metric(*rows_of(batch)), prog_bar=True)


class SyncOff(ComputedAtEnd):
    """compute() of metrics that were told not to synchronise."""

    metric_options: ClassVar[dict[str, Any]] = {"sync_on_compute": False}


class SyncOffEvery(SyncOff):
    """The same with every class, cut and aggregation."""

    names = every_name()
    count = 12


class FedAtEnd(QueryProgram):
    """Metrics made and fed in the hook from what the rank has kept."""

    def on_validation_epoch_start(self) -> None:
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.kept.append(rows_of(batch))

    def on_validation_epoch_end(self) -> None:
        for name, metric in grid_of(self.names, sync_on_compute=False).items():
            metric.update(*map(torch.cat, zip(*self.kept, strict=True)))
            self.log(name, metric.compute(), prog_bar=True)


class LossProgram(Program):
    """A plain value: the mean of the batch's losses."""

    count: ClassVar[int] = 42

    def dataset(self) -> Dataset[Any]:
        return losses(self.count)


class PlainTensor(LossProgram):
    """A loss without sync_dist."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean(), prog_bar=True)


class PlainNumber(LossProgram):
    """A Python number without sync_dist."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean().item(), prog_bar=True)


class PlainAtEnd(LossProgram):
    """A mean over the rank's own samples, logged at the end of the epoch."""

    def on_validation_epoch_start(self) -> None:
        self.kept: list[Tensor] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.kept.append(batch["loss"])

    def on_validation_epoch_end(self) -> None:
        self.log("loss", torch.cat(self.kept).mean(), prog_bar=True)
