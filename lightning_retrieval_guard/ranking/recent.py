"""The ranking of the rows that were scored last, for the metrics that saw the same rows."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking.ranked import Ranked
from lightning_retrieval_guard.ranking.ranking import rank_rows

# Rows that are compared and ranked to the end in a fraction of what it takes to rank them again.
_MOST = 1 << 15

Columns = tuple[Tensor, Tensor, Tensor]


class RecentRanking:
    """Remembers one ranking, of rows that are few and on the CPU.

    What was ranked is a copy of the rows, with which the next rows are compared, so that it does not matter who writes
    to them meanwhile.
    """

    def __init__(self) -> None:
        self._columns: Columns | None = None
        self._ranked: dict[bool, list[Ranked]] = {}

    def forget(self) -> None:
        """Let the rows go."""
        self._columns, self._ranked = None, {}

    def rank(
        self, query: Tensor, preds: Tensor, target: Tensor, *, top_k: int | None, only_relevant: bool
    ) -> Iterable[Ranked]:
        """Blocks of whole queries, ranked at least as deep as asked; arguments as for ``rank_rows``."""
        columns = (query, preds, target)
        if query.numel() > _MOST or any(column.device.type != "cpu" for column in columns):
            return rank_rows(*columns, top_k=top_k, only_relevant=only_relevant)
        if self._columns is None or not all(map(_is_same, columns, self._columns)):
            self.forget()
            self._columns = (query.clone(), preds.clone(), target.clone())
        if only_relevant not in self._ranked:
            self._ranked[only_relevant] = list(rank_rows(*self._columns, only_relevant=only_relevant))
        return self._ranked[only_relevant]


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
