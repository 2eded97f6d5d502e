"""Random rows of queries, made from a fixed seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LENGTH = 100
"""Rows of a query, or their mean."""
RELEVANT = 0.05


@dataclass(frozen=True)
class Rows:
    """Rows of queries, all of shape (rows,).

    Attributes:
        query: int64; ids count from zero.
        preds: float32 in (0, 1].
        target: int64; one row in twenty is relevant.
        length: Rows of every query where they are equal and stand one after the other, else None.
    """

    query: Tensor
    preds: Tensor
    target: Tensor
    length: int | None

    def __len__(self) -> int:
        return self.query.numel()

    @property
    def queries(self) -> int:
        return int(self.query.max()) + 1

    def first(self, queries: int) -> Rows:
        """The rows of the first queries."""
        chosen = self.query < queries
        return Rows(self.query[chosen], self.preds[chosen], self.target[chosen], self.length)


def unequal(rows: int) -> Rows:
    """Queries of 50 to 150 rows, shuffled."""
    random = torch.Generator().manual_seed(7)
    lengths = torch.randint(LENGTH // 2, LENGTH * 3 // 2 + 1, (rows // LENGTH,), generator=random)
    query = torch.repeat_interleave(lengths)
    query = query[torch.randperm(query.numel(), generator=random)]
    return _scored(query, None, random)


def equal(rows: int) -> Rows:
    """Queries of 100 rows, one after the other."""
    query = torch.arange(rows // LENGTH).repeat_interleave(LENGTH)
    return _scored(query, LENGTH, torch.Generator().manual_seed(7))


def _scored(query: Tensor, length: int | None, random: torch.Generator) -> Rows:
    preds = 1.0 - torch.rand(query.numel(), generator=random)
    target = (torch.rand(query.numel(), generator=random) < RELEVANT).long()
    return Rows(query, preds, target, length)


def keys(rows: Rows) -> Tensor:
    """One int64 a row, (rows,): in their order, queries come one after the other, each with its best row first."""
    bits = rows.preds.view(torch.int32).long()  # positive floats have the order of their bits
    return (rows.query << 32) | (0x7FFFFFFF - bits)
