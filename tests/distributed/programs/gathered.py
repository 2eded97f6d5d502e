"""LRG201: every rank holds the same rows, and torchmetrics combines them again."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .base import ComputedAtEnd, ObjectLogged, Program
from .data import Batch, pairs
from .grids import MEANS, grid_of


class GatheredPairs(Program):
    """The program of torchmetrics issue 2852: one pool of all ranks' pairs, one new metric a step."""

    def dataset(self) -> Dataset[Any]:
        return pairs(18)

    def scored(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, targets and ids of the whole matrix of similarities."""
        anchor, document, label = (self.all_gather(column).flatten(0, 1) for column in batch.values())
        scores = anchor @ document.T
        ids = torch.arange(len(scores))[:, None].expand_as(scores)
        return scores, (label[:, None] == label).long(), ids

    def computed(self, batch: Batch) -> dict[str, Tensor]:
        rows = self.scored(batch)
        metrics = grid_of(MEANS)
        for metric in metrics.values():
            metric.update(*rows)
        return {name: metric.compute() for name, metric in metrics.items()}


class TimesWorldSize(GatheredPairs):
    """With the batch size that is commonly blamed."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        size = len(batch["anchor"]) * self.trainer.world_size
        for name, value in self.computed(batch).items():
            self.log(name, value, prog_bar=True, batch_size=size, sync_dist=True)


class PerDevice(GatheredPairs):
    """With the batch size that is commonly recommended."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, value in self.computed(batch).items():
            self.log(name, value, prog_bar=True, batch_size=len(batch["anchor"]), sync_dist=True)


class NoBatchSize(GatheredPairs):
    """With the batch size that Lightning infers."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, value in self.computed(batch).items():
            self.log(name, value, prog_bar=True, sync_dist=True)


class GatheredInput(Program):
    """Gathers the batch before it is given to the metrics."""

    def update(self, batch: Batch) -> None:
        gathered = {name: column.flatten(0, 1) for name, column in self.all_gather(batch).items()}
        super().update(gathered)  # type: ignore[misc]


class GatheredObject(GatheredInput, ObjectLogged):
    """Gathered rows, the metric logged as an object."""


class GatheredCompute(GatheredInput, ComputedAtEnd):
    """Gathered rows, compute() logged at the end of the epoch."""


class SamplerOff(ObjectLogged):
    """Without the distributed sampler every rank sees all the data."""

    trainer_options: ClassVar[dict[str, Any]] = {"use_distributed_sampler": False}
