"""LRG301: query ids restart in each batch or on each rank, so that different queries merge."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import ComputedAtEnd, ObjectLogged, QueryProgram
from .data import Batch, rows_of, rows_to_ignore
from .grids import ERROR_GRID, ERRORS, FEW, MEANS, grid_of


class OwnIds(QueryProgram):
    """Numbers the queries itself instead of taking their ids from the data."""

    names = ERROR_GRID
    empty = False

    def ids(self, batch: Batch) -> Tensor:
        return torch.arange(len(batch["query"]))

    def update(self, batch: Batch) -> None:
        ids = self.ids(batch)
        for metric in self.metrics.values():
            metric.update(*rows_of(batch, ids))


class ArangeObject(OwnIds, ObjectLogged):
    """Ids 0, 1, 2, ... in every batch, the metric logged as an object."""


class ArangeIgnored(ArangeObject):
    """Ids 0, 1, 2, ... in every batch, and rows that the metric ignores."""

    names = f"{FEW} {ERRORS}"
    metric_options: ClassVar[dict[str, Any]] = {"ignore_index": -1}

    def update(self, batch: Batch) -> None:
        for metric in self.metrics.values():
            metric.update(*rows_to_ignore({**batch, "query": self.ids(batch)}))


class ArangeCompute(OwnIds, ComputedAtEnd):
    """Ids 0, 1, 2, ... in every batch, compute() at the end of the epoch."""

    names = f"{FEW} {ERRORS}"


class CountedOnRank(OwnIds, ObjectLogged):
    """Ids that count the rank's own queries."""

    def on_validation_epoch_start(self) -> None:
        self.seen = 0

    def ids(self, batch: Batch) -> Tensor:
        start, self.seen = self.seen, self.seen + len(batch["query"])
        return torch.arange(start, self.seen)


class ArangeInStep(QueryProgram):
    """A new metric a step over own queries: its compute() merges them with those of other ranks."""

    names = MEANS
    empty = False

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        ids = torch.arange(len(batch["query"]))
        for name, metric in grid_of(self.names).items():
            metric.update(*rows_of(batch, ids))
            self.log(name, metric.compute(), prog_bar=True, sync_dist=True)


class DatasetIdsObject(ObjectLogged):
    """The right form: ids from the data."""

    names = ERROR_GRID
    empty = False


class DatasetIdsMeans(ObjectLogged):
    """The right form of the metrics that are made in the step."""

    names = MEANS
    empty = False
