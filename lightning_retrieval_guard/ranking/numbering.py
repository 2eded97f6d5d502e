"""Query ids as small consecutive numbers, and queries whose rows stand together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking.flags import flags

# Rows that are looked at together, so that what is made of them stays small.
CHUNK = 1 << 16

# Ids that are compared at once.
_COMPARED = 1 << 18

# The first rows tell whether a search for runs is worth while.
_PREFIX = 1 << 12

# How many times more ids than rows there may be between the smallest and the largest id for a table of them.
_SPREAD = 2


@dataclass(frozen=True)
class Runs:
    """Queries that each stand in one stretch of rows.

    Attributes:
        query: Ids, int64 of shape ``(runs,)``, each once.
        sizes: Numbers of rows, int64 of shape ``(runs,)``.
        begin: Where the first one begins.
        end: Where the last one ends.
        length: The number of rows that all of them have, or ``None`` where they differ.
    """

    query: Tensor
    sizes: Tensor
    begin: int
    end: int
    length: int | None

    def __len__(self) -> int:
        return self.query.numel()

    def blocks(self, rows: int) -> Iterator[Runs]:
        """Parts with about so many rows."""
        if self.end - self.begin <= rows:
            yield self
            return
        ends = self.sizes.cumsum(0)
        wanted = torch.arange(rows, self.end - self.begin + rows, rows, device=ends.device)
        cuts = sorted({0, len(self), *(torch.searchsorted(ends, wanted) + 1).clamp(max=len(self)).tolist()})
        row_cuts = [0, *ends[torch.tensor(cuts[1:], device=ends.device) - 1].tolist()]
        for number, (first, last) in enumerate(pairwise(cuts)):
            begin, end = self.begin + row_cuts[number], self.begin + row_cuts[number + 1]
            yield Runs(self.query[first:last], self.sizes[first:last], begin, end, self.length)

    def sums(self, values: Tensor) -> Tensor:
        """Sums over the rows of each run, float64 of shape ``(runs,)``, from one value a row."""
        if self.length is not None and not values.is_floating_point():
            return values.view(-1, self.length).sum(1).double()
        hits = values.nonzero().view(-1)
        ends = self.sizes.cumsum(0)
        run = torch.searchsorted(ends, hits, right=True)
        sums = torch.zeros(len(self), dtype=torch.float64, device=values.device)
        return sums.index_add_(0, run, values.index_select(0, hits).double())


def find_runs(query: Tensor) -> Runs | None:
    """The queries of rows that are grouped already, else ``None``.

    Args:
        query: Query ids, int64 or int32 of shape ``(rows,)``, at least one.
    """
    rows = query.numel()
    prefix = query[:_PREFIX]
    changes = int((prefix[1:] != prefix[:-1]).sum())
    if rows > _PREFIX and 2 * changes > _PREFIX:
        return None
    length = _length_of_runs(query)
    if length is not None:
        ids = query[::length].long().contiguous()
        runs = Runs(ids, torch.full_like(ids, length), 0, rows, length)
    else:
        starts = _starts_of_runs(query)
        ids, sizes = query.index_select(0, starts).long(), torch.diff(starts, append=starts.new_full((1,), rows))
        runs = Runs(ids, sizes, 0, rows, None)
    ascending = bool((ids[1:] > ids[:-1]).all())
    return runs if ascending or ids.unique().numel() == ids.numel() else None


def _length_of_runs(query: Tensor) -> int | None:
    """The length of the first run where the rows are runs of that length, which is quicker to see."""
    others = (query[:_PREFIX] != query[0]).nonzero()
    length = int(others[0]) if others.numel() else 0
    if not length or query.numel() % length:
        return None
    grid = query.view(-1, length)
    firsts = grid[:, 0].contiguous()
    if bool((firsts[1:] == firsts[:-1]).any()):
        return None
    for part in grid.split(max(1, _COMPARED // length)):
        if bool(flags(torch.ne, part, part[:, :1]).sum()):
            return None
    return length


def _starts_of_runs(query: Tensor) -> Tensor:
    starts = [torch.zeros(1, dtype=torch.int64, device=query.device)]
    for begin in range(0, query.numel() - 1, CHUNK):
        part = query[begin : begin + CHUNK + 1]
        starts.append((part[1:] != part[:-1]).nonzero().view(-1) + begin + 1)
    return torch.cat(starts)


def inverse(order: Tensor) -> Tensor:
    """The permutation that undoes ``order``, int64 of shape ``(items,)``."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))


class DenseIds:
    """Numbers from 0 in ascending order of id.

    Args:
        query: Query ids, int64 or int32 of shape ``(rows,)``.
        ids: The distinct ones in ascending order, int64 of shape ``(queries,)``.
        lowest: The smallest id.
        table: The number of each id from the smallest on; ``None`` where no id between is missing.
        numbers: The number of every row, where a table would be too large.
    """

    def __init__(
        self,
        query: Tensor,
        ids: Tensor,
        *,
        lowest: int = 0,
        table: Tensor | None = None,
        numbers: Tensor | None = None,
    ) -> None:
        self.ids = ids
        self._query = query
        self._lowest = lowest
        self._table = table
        self._numbers = numbers

    def __len__(self) -> int:
        return self.ids.numel()

    def between(self, begin: int, end: int) -> Tensor:
        """The numbers of a stretch of rows, int64."""
        return self._of((self._query if self._numbers is None else self._numbers)[begin:end])

    def at(self, place: Tensor) -> Tensor:
        """The numbers of rows at some places, int64 of the same shape."""
        return self._of((self._query if self._numbers is None else self._numbers).index_select(0, place))

    def counts(self, place: Tensor) -> Tensor:
        """How many rows at some places each query has, int64 of shape ``(queries,)``."""
        counts = torch.zeros(len(self), dtype=torch.int64, device=place.device)
        for part in place.split(CHUNK):
            counts.scatter_add_(0, self.at(part), torch.ones_like(part))
        return counts

    def _of(self, values: Tensor) -> Tensor:
        if self._numbers is not None:
            return values.long()
        offset = values.long() - self._lowest
        return offset if self._table is None else self._table.index_select(0, offset)


def number_queries(query: Tensor) -> DenseIds:
    """Number the distinct ids of rows.

    Args:
        query: Query ids, int64 or int32 of shape ``(rows,)``, at least one.
    """
    lowest, highest = (int(bound) for bound in query.aminmax())
    if highest - lowest >= _SPREAD * query.numel():
        return _number_far_apart(query)
    present = torch.zeros(highest - lowest + 1, dtype=torch.bool, device=query.device)
    for part in query.split(CHUNK):
        present[part.long() - lowest] = True
    ids = present.nonzero().view(-1) + lowest
    table = None if ids.numel() == present.numel() else present.cumsum(0) - 1
    return DenseIds(query, ids, lowest=lowest, table=table)


def _number_far_apart(query: Tensor) -> DenseIds:
    size = 16 * CHUNK
    ids = torch.cat([part.unique() for part in query.split(size)]).unique()
    # 2**31 queries have more rows than any memory
    numbers = torch.empty(query.numel(), dtype=torch.int32, device=query.device)
    for begin in range(0, query.numel(), size):
        own, of_row = query[begin : begin + size].unique(return_inverse=True)
        numbers[begin : begin + size] = torch.searchsorted(ids, own).index_select(0, of_row)
    return DenseIds(query, ids.long(), numbers=numbers)
