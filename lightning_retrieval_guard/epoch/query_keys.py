"""One number for each query: what tells the queries of metric lives, or of updates, apart."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.row_table import RowTable

_LIMIT = 2**62


class QueryKeys:
    """Numbers of queries, ascending by metric life, or by update where ids restart, and then by id.

    Args:
        table: The rows.
        restarting: Whether ids restart, so that each update has queries of its own.
    """

    def __init__(self, table: RowTable, restarting: bool) -> None:
        self._table = table
        # the group of every update
        self._groups = torch.arange(table.updates) if restarting else table.lives
        self._lives = table.lives if restarting else torch.arange(table.life_count)
        self._are_ids = len(self._lives) == 1
        self._ids: Tensor | None = None
        if not self._are_ids:
            self._span_ids()

    def _span_ids(self) -> None:
        table = self._table
        scored = [update.queries[0].to(table.query.device) for update in table.scored.values()]
        held = [part for part in (table.query, *scored) if part.numel()]
        if not held:
            self._low, self._span = 0, 1
            return
        self._low = min(int(part.min()) for part in held)
        self._span = max(int(part.max()) for part in held) - self._low + 1
        if self._span * len(self._lives) >= _LIMIT:  # dense numbers in the place of ids that lie far apart
            self._ids = torch.cat(held).unique()
            self._span = self._ids.numel()

    def of_rows(self) -> Tensor:
        """For every row, int64 or int32 of shape ``(rows,)``."""
        table = self._table
        if self._are_ids:
            return table.query
        sizes = table.ends.diff(prepend=table.ends.new_zeros(1))
        groups = self._groups.to(sizes.device)
        return self._number(table.query, torch.repeat_interleave(groups, sizes, output_size=len(table)))

    def of(self, query: Tensor, update: int) -> Tensor:
        """For queries of one update, int64 of shape ``(queries,)``."""
        return query if self._are_ids else self._number(query, self._groups[update].to(query.device))

    def of_lives(self, query: Tensor, life: Tensor) -> Tensor:
        """For queries of some lives, int64 of the shape of ``query``; ids must not restart."""
        return self._number(query, life)

    def _number(self, query: Tensor, group: Tensor) -> Tensor:
        query = query.long()
        ids = query - self._low if self._ids is None else torch.searchsorted(self._ids.to(query.device), query)
        return group * self._span + ids

    def lives(self, numbers: Tensor) -> Tensor:
        """The metric lives of the queries with these numbers, int64 of the same shape."""
        return torch.zeros_like(numbers) if self._are_ids else self._lives[numbers // self._span]
