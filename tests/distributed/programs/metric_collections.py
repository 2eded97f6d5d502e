"""MetricCollection: its members share their state inside a compute group."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torchmetrics import MetricCollection

from .base import QueryProgram
from .data import Batch, rows_of
from .gathered import GatheredInput
from .grids import grid_of


class Collection(QueryProgram):
    """A MetricCollection, logged as an object through log_dict."""

    names = "mrr mrr_1 recall_1 precision_5 ndcg_median"
    empty = False

    def __init__(self, devices: int) -> None:
        super().__init__(devices)
        members = dict(grid_of(self.names, **self.metric_options))
        self.metrics = MetricCollection(members)

    def update(self, batch: Batch) -> None:
        self.metrics.update(*rows_of(batch))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update(batch)
        self.log_dict(self.metrics, prog_bar=True)


class CollectionCompute(Collection):
    """A MetricCollection, computed at the end of the epoch."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update(batch)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metrics.compute(), prog_bar=True)
        self.metrics.reset()


class SyncOffCollection(CollectionCompute):
    """LRG203: members that were told not to synchronise."""

    metric_options: ClassVar[dict[str, Any]] = {"sync_on_compute": False}


class GatheredCollection(GatheredInput, Collection):
    """LRG201: gathered rows."""


class ArangeCollection(Collection):
    """LRG301: ids 0, 1, 2, ... in every batch."""

    def update(self, batch: Batch) -> None:
        self.metrics.update(*rows_of(batch, torch.arange(len(batch["query"]))))
