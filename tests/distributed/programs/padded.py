"""LRG403: the distributed sampler repeats samples where the ranks cannot share them evenly."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from .base import ComputedAtEnd, ObjectLogged, QueryProgram
from .data import Batch, rows
from .grids import GRID


class PaddedObject(ObjectLogged):
    """19 queries; the repeated ones come twice with the same rows."""

    count = 19


class PaddedCompute(ComputedAtEnd):
    """19 queries, compute() at the end of the epoch."""

    count = 19


class RowProgram(QueryProgram):
    """One row a sample."""

    global_batch = 72
    count = 216

    def dataset(self) -> Dataset[Any]:
        return rows(self.count)

    def update(self, batch: Batch) -> None:
        for metric in self.metrics.values():
            metric.update(batch["score"], batch["target"], batch["query"])


class PaddedRows(RowProgram, ObjectLogged):
    """217 rows; the first rows come twice."""

    count = 217


class PaddedRowsCompute(RowProgram, ComputedAtEnd):
    """217 rows, compute() at the end of the epoch."""

    names = GRID
    count = 217
