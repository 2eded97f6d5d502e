"""Rows in order of arrival, and blocks of whole queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

# Rows of a block, where they stand query by query: it nearly stays in the cache.
_BLOCK = 1 << 20

# The first rows show whether to look for rows that stand query by query.
_HEAD = 1 << 12

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
        numbers: Which of the queries each row belongs to, int64 of shape ``(rows,)``; ``None`` for one ``length``.
        preds: Scores, float32 or float64 of shape ``(rows,)``.
        target: Relevance of shape ``(rows,)``, bool where every relevance is 0 or 1.
        target_dtype: The dtype in which a metric's code gets relevance.
        longest: The most rows of any query, of this block or another.
        length: The number of rows of every query where that is one number and rows stand query by query, else ``None``.
    """

    query: Tensor
    sizes: Tensor
    numbers: Tensor | None
    preds: Tensor
    target: Tensor
    target_dtype: torch.dtype
    longest: int
    length: int | None = None

    def __len__(self) -> int:
        return self.query.numel()

    @property
    def is_binary(self) -> bool:
        """Whether every relevance is 0 or 1."""
        return self.target.dtype == torch.bool

    @cached_property
    def number(self) -> Tensor:
        """Which of the queries each row belongs to, int64 of shape ``(rows,)``."""
        if self.numbers is not None:
            return self.numbers
        return torch.arange(len(self), device=self.sizes.device).repeat_interleave(self.sizes)

    def number_at(self, rows: Tensor) -> Tensor:
        """The queries of the rows at some positions, int64 of the shape of ``rows``."""
        if self.length is not None:
            return torch.div(rows, self.length, rounding_mode="floor")
        return self.number.index_select(0, rows)

    @cached_property
    def relevance(self) -> Tensor:
        """The sum of the relevance of each query, float64 of shape ``(queries,)``."""
        if not self.is_binary:
            return self.sums(self.number, self.target.double())
        if self.length is not None:
            return self.target.view(-1, self.length).sum(1).double()
        return self.number_at(self.target.nonzero().view(-1)).bincount(minlength=len(self)).double()

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
        return Block(self.query[queries], self.sizes[queries], number, preds, target, self.target_dtype, self.longest)


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
    preds, target = rows.preds.detach(), rows.target.detach()
    preds = preds if preds.dtype in (torch.float32, torch.float64) else preds.float()
    dtype = target.dtype if target.is_floating_point() else torch.int64
    rows = Rows(rows.query.detach(), preds, target.bool() if is_binary(target) else target.to(dtype))
    if len(rows) < _STABLE_FROM:
        # of int64, as torchmetrics sorts: the order of equal ids depends on the dtype
        rows = rows.at(rows.query.long().sort().indices)
    runs = runs_of(rows.query)
    if runs is None:
        low, high = (int(bound) for bound in rows.query.aminmax())
        if high - low < _SPREAD * len(rows):
            yield _scattered(rows, low, high, dtype)
            return
        rows = rows.at(rows.query.sort(stable=True).indices)
        runs = rows.query.unique_consecutive(return_counts=True)
    yield from _grouped(rows, runs, dtype)


def runs_of(query: Tensor) -> tuple[Tensor, Tensor] | None:
    """The queries of rows that stand query by query.

    Args:
        query: Query ids, int64 or int32 of shape ``(rows,)``, at least one.

    Returns:
        Ids and numbers of rows, both of shape ``(queries,)``, in the order of the rows; ``None`` where the rows of a
        query do not stand together, and where there are so few of each that it does not matter.
    """
    head = query[:_HEAD]
    # mostly changes from row to row: grouping in place would gain nothing
    if query.numel() > _HEAD and 2 * int((head[1:] != head[:-1]).sum()) > _HEAD:
        return None
    ids, sizes = query.unique_consecutive(return_counts=True)
    ascending = bool((ids[1:] > ids[:-1]).all())
    return (ids, sizes) if ascending or ids.unique().numel() == ids.numel() else None


def _grouped(rows: Rows, runs: tuple[Tensor, Tensor], dtype: torch.dtype) -> Iterator[Block]:
    """Blocks of rows that stand query by query."""
    query, sizes = runs[0].long(), runs[1]
    shortest, longest = (int(bound) for bound in sizes.aminmax())
    length = longest if shortest == longest else None
    for queries, area in _cut(sizes, _BLOCK):
        counts = sizes[queries]
        # in rows of one length the position tells the query
        number = None if length else torch.arange(counts.numel(), device=counts.device).repeat_interleave(counts)
        yield Block(query[queries], counts, number, rows.preds[area], rows.target[area], dtype, longest, length)


def _scattered(rows: Rows, low: int, high: int, dtype: torch.dtype) -> Block:
    """One block of rows in any order, with ids from ``low`` to ``high``, of which some may be missing."""
    number = rows.query.long() - low
    sizes = number.bincount(minlength=high - low + 1)
    query = sizes.nonzero().view(-1)
    if query.numel() < sizes.numel():
        number = ((sizes > 0).cumsum(0) - 1).index_select(0, number)
        sizes = sizes.index_select(0, query)
    return Block(query + low, sizes, number, rows.preds, rows.target, dtype, int(sizes.max()))


def _cut(sizes: Tensor, rows: int) -> Iterator[tuple[slice, slice]]:
    """Cut queries into parts of about so many rows: their positions, and those of their rows."""
    ends = sizes.cumsum(0)
    wanted = torch.arange(rows, int(ends[-1]) + rows, rows, device=ends.device)
    cuts = sorted({0, *(torch.searchsorted(ends, wanted) + 1).clamp(max=sizes.numel()).tolist()})
    bounds = [0, *ends[torch.tensor(cuts[1:], device=ends.device) - 1].tolist()]
    for queries, area in zip(pairwise(cuts), pairwise(bounds), strict=True):
        yield slice(*queries), slice(*area)
