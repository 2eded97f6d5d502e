"""Rows in order of arrival, and blocks of whole queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

# Rows of a block: its sort stays in the cache.
_BLOCK = 1 << 18

# Up to this number one sort of all rows is as quick as cutting rows in any order into blocks.
_UNCUT = 1 << 20

# Below this number of rows torch.sort() of ids on a CPU is not stable, and torchmetrics meets the rows of a query in
# the order that it leaves.
_STABLE_FROM = 1 << 15

# How many times more ids than rows there may be between the smallest and the largest id to count them by id.
_SPREAD = 2


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows in order of arrival.

    Attributes:
        query: Query ids, int64 or int32 of shape ``(rows,)``; any values in any order.
        preds: Scores, floating point of the same shape.
        target: Relevance, integer, bool or floating point of the same shape.

    Raises:
        ValueError: The shapes differ.
    """

    query: Tensor
    preds: Tensor
    target: Tensor

    def __post_init__(self) -> None:
        shapes = [tuple(column.shape) for column in (self.query, self.preds, self.target)]
        if self.query.ndim != 1 or len(set(shapes)) > 1:
            raise ValueError(f"Rows of one shape (rows,) are needed, not {shapes[0]}, {shapes[1]}, {shapes[2]}.")

    def __len__(self) -> int:
        return self.query.numel()

    def at(self, index: Tensor) -> Rows:
        """The rows at some positions, int64 of shape ``(chosen,)``."""
        return Rows(*(column.index_select(0, index) for column in (self.query, self.preds, self.target)))


@dataclass(frozen=True, eq=False)
class Block:
    """Some whole queries with all their rows, those of a query in order of arrival.

    Attributes:
        query: Their ids, int64 of shape ``(queries,)``, each once.
        sizes: Their numbers of rows, int64 of the same shape, none zero.
        number: Which of the queries each row belongs to, int64 of shape ``(rows,)``.
        preds: Scores, float32 or float64 of shape ``(rows,)``.
        target: Relevance as it came, of shape ``(rows,)``.
        longest: The most rows of any query, of this block or another.
        length: The number of rows of every query where that is one number and rows stand query by query, else ``None``.
    """

    query: Tensor
    sizes: Tensor
    number: Tensor
    preds: Tensor
    target: Tensor
    longest: int
    length: int | None = None

    def __len__(self) -> int:
        return self.query.numel()

    @cached_property
    def is_binary(self) -> bool:
        """Whether every relevance is 0 or 1."""
        return is_binary(self.target)

    @cached_property
    def gains(self) -> Tensor:
        """Relevance of shape ``(rows,)``, bool where it is binary."""
        return self.target.bool() if self.is_binary else self.target

    @cached_property
    def relevance(self) -> Tensor:
        """The sum of the relevance of each query, float64 of shape ``(queries,)``."""
        if not self.is_binary:
            return self.sums(self.number, self.target.double())
        if self.length is not None:
            return self.gains.view(-1, self.length).sum(1).double()
        relevant = self.number.index_select(0, self.gains.nonzero().view(-1))
        return relevant.bincount(minlength=len(self)).double()

    def sums(self, number: Tensor, values: Tensor) -> Tensor:
        """Sums of float64 values over the queries that they belong to, float64 of shape ``(queries,)``."""
        return values.new_zeros(len(self)).index_add_(0, number, values)

    def select(self, queries: Tensor) -> Block:
        """Some of the queries, with rows that stand query by query.

        Args:
            queries: Which ones, bool of shape ``(queries,)``.
        """
        rows = queries.index_select(0, self.number).nonzero().view(-1)
        number, by_query = (queries.cumsum(0) - 1)[self.number[rows]].sort(stable=True)
        rows = rows[by_query]
        preds, target = self.preds.index_select(0, rows), self.target.index_select(0, rows)
        return Block(self.query[queries], self.sizes[queries], number, preds, target, self.longest)


def is_binary(target: Tensor) -> bool:
    """Whether every relevance is 0 or 1.

    Args:
        target: Integer, bool or floating point of shape ``(rows,)``.
    """
    if target.dtype == torch.bool or not target.numel():
        return True
    if target.is_floating_point():
        return bool(((target == 0) | (target == 1)).all())
    low, high = target.aminmax()
    return bool((low >= 0) & (high <= 1))


def blocks_of(rows: Rows) -> Iterator[Block]:
    """Group rows into queries, in the order in which torchmetrics meets the rows of a query.

    Args:
        rows: The rows.

    Yields:
        Blocks that share no query.
    """
    if not len(rows):
        return
    scores = rows.preds.detach()
    scores = scores if scores.dtype in (torch.float32, torch.float64) else scores.float()
    rows = Rows(rows.query.detach(), scores, rows.target.detach())
    if len(rows) < _STABLE_FROM:
        # of int64, as torchmetrics sorts: the order of equal ids depends on the dtype
        rows = rows.at(rows.query.long().sort().indices)
    starts = starts_of_runs(rows.query)
    if starts is not None:
        yield from _grouped(rows, starts)
        return
    low, high = (int(bound) for bound in rows.query.aminmax())
    if high - low < _SPREAD * len(rows):
        yield from _scattered(rows, low, high)
        return
    rows = rows.at(rows.query.sort(stable=True).indices)
    yield from _grouped(rows, _changes(rows.query))


def starts_of_runs(query: Tensor) -> Tensor | None:
    """Where each query begins, for rows that stand query by query.

    Args:
        query: Query ids, int64 or int32 of shape ``(rows,)``, at least one.

    Returns:
        Int64 of shape ``(queries,)``; ``None`` where the rows of a query do not stand together, and where there are
        so few of each that it does not matter.
    """
    rows = query.numel()
    if rows > 1 and 2 * int((query[1:] != query[:-1]).sum()) > rows:
        return None
    starts = _changes(query)
    ids = query.index_select(0, starts)
    ascending = bool((ids[1:] > ids[:-1]).all())
    return starts if ascending or ids.unique().numel() == ids.numel() else None


def _changes(query: Tensor) -> Tensor:
    changes = (query[1:] != query[:-1]).nonzero().view(-1)
    return torch.cat([changes.new_zeros(1), changes + 1])


def _grouped(rows: Rows, starts: Tensor) -> Iterator[Block]:
    query = rows.query.index_select(0, starts).long()
    sizes = starts.diff(append=starts.new_full((1,), len(rows)))
    shortest, longest = (int(bound) for bound in sizes.aminmax())
    length = longest if shortest == longest else None
    for queries, area in _cut(sizes, _BLOCK):
        own = sizes[queries]
        number = torch.arange(own.numel(), device=own.device)
        number = number.repeat_interleave(own, output_size=area.stop - area.start)
        yield Block(query[queries], own, number, rows.preds[area], rows.target[area], longest, length)


def _scattered(rows: Rows, low: int, high: int) -> Iterator[Block]:
    """Blocks of rows in any order, with ids from ``low`` to ``high``, of which some may be missing."""
    number = rows.query.long() - low
    sizes = number.bincount(minlength=high - low + 1)
    longest = int(sizes.max())
    if len(rows) <= _UNCUT:
        yield _without_gaps(low, sizes, number, rows.preds, rows.target, longest)
        return
    cuts = list(_cut(sizes, _BLOCK))
    block_of_id = torch.empty(sizes.numel(), dtype=torch.int16, device=sizes.device)
    for index, (ids, _) in enumerate(cuts):
        block_of_id[ids] = index
    order = block_of_id.index_select(0, number).sort(stable=True).indices
    for ids, area in cuts:
        place = order[area]
        columns = (column.index_select(0, place) for column in (number, rows.preds, rows.target))
        own, preds, target = columns
        yield _without_gaps(low + ids.start, sizes[ids], own - ids.start, preds, target, longest)


def _without_gaps(low: int, sizes: Tensor, number: Tensor, preds: Tensor, target: Tensor, longest: int) -> Block:
    present = sizes > 0
    query = present.nonzero().view(-1)
    if query.numel() < sizes.numel():
        number = (present.cumsum(0) - 1).index_select(0, number)
    return Block(query + low, sizes.index_select(0, query), number, preds, target, longest)


def _cut(sizes: Tensor, rows: int) -> Iterator[tuple[slice, slice]]:
    """Cut queries into parts of about so many rows: their positions, and those of their rows."""
    ends = sizes.cumsum(0)
    wanted = torch.arange(rows, int(ends[-1]) + rows, rows, device=ends.device)
    cuts = sorted({0, *(torch.searchsorted(ends, wanted) + 1).clamp(max=sizes.numel()).tolist()})
    bounds = [0, *ends[torch.tensor(cuts[1:], device=ends.device) - 1].tolist()]
    for queries, area in zip(pairwise(cuts), pairwise(bounds), strict=True):
        yield slice(*queries), slice(*area)
