"""Rows that may be among the top k of their query, found without sorting."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking.flags import flags, places

# Lists shorter than this many times the slots are ranked as they are.
_WORTH = 3

# Queries whose maxima are sorted at once, so that they stay in the cache.
_QUERIES = 1 << 13

# Rows that are folded at once, for the same reason.
_FOLDED = 1 << 19


def slots(top_k: int) -> int:
    """How many maxima to keep of each query: a power of two with room for ``top_k``."""
    return 1 << (3 * top_k // 2).bit_length() if top_k > 1 else 1


def pays(rows: int, queries: int, top_k: int) -> bool:
    """Whether a selection leaves out enough rows to be worth its passes."""
    return rows >= _WORTH * slots(top_k) * queries


class Maxima:
    """The greatest scores of disjoint parts of each query.

    The ``top_k``-th greatest of them is a bound: at least ``top_k`` rows of the query score as much, so a row that
    scores less is not among the top k, and one that ties with the ``top_k``-th row is never left out.

    Args:
        queries: The number of queries.
        top_k: The cut-off.
        like: Says dtype and device of the scores.
    """

    def __init__(self, queries: int, top_k: int, like: Tensor) -> None:
        self._slots = slots(top_k)
        self._top_k = top_k
        self._greatest = like.new_full((queries * self._slots,), -torch.inf)
        self._bound: Tensor | None = None

    def add(self, number: Tensor, preds: Tensor, begin: int) -> None:
        """Take in rows.

        Args:
            number: Numbers of their queries, int64 of shape ``(rows,)``.
            preds: Scores of the same shape.
            begin: How many rows came before.
        """
        place = torch.arange(begin, begin + number.numel(), device=number.device).bitwise_and_(self._slots - 1)
        place.add_(number, alpha=self._slots)
        self._greatest.scatter_reduce_(0, place, preds, "amax")
        self._bound = None

    def select(self, number: Tensor, preds: Tensor) -> Tensor:
        """Positions of the rows that may be in the top k, int64; arguments as for ``add``."""
        if self._bound is None:
            self._bound = _bound(self._greatest.view(-1, self._slots), self._top_k)
        return _not_below(preds, self._bound.index_select(0, number))


def select_in_grid(preds: Tensor, top_k: int) -> Tensor:
    """Positions of rows that may be in the top k of queries of one length.

    Args:
        preds: Scores of shape ``(queries, rows)``.
        top_k: The cut-off; a row has at least as many scores as there are slots.

    Returns:
        Positions in the flattened scores, int64 of shape ``(kept,)``, ascending.
    """
    return _not_below(preds, bound_of_grid(preds, top_k)[:, None])


def bound_of_grid(preds: Tensor, top_k: int) -> Tensor:
    """A score that at least ``top_k`` rows of each query reach, of shape ``(queries,)``; arguments as above."""
    wide, parts = slots(top_k), preds.split(max(1, _FOLDED // preds.shape[1]))
    return torch.cat([_bound(_fold(part, wide), top_k) for part in parts])


def _fold(preds: Tensor, wide: int) -> Tensor:
    """The greatest scores of disjoint parts of each query, of shape ``(queries, wide)``."""
    rest = []
    while preds.shape[1] >= 2 * wide:
        half = preds.shape[1] // (2 * wide) * wide
        rest.append(preds[:, 2 * half :])
        preds = torch.maximum(preds[:, :half], preds[:, half : 2 * half])
    greatest = preds[:, :wide].clone()
    for columns in (preds[:, wide:], *rest):
        for part in columns.split(wide, dim=1):
            head = greatest[:, : part.shape[1]]
            torch.maximum(head, part, out=head)
    return greatest


def _bound(greatest: Tensor, top_k: int) -> Tensor:
    """The ``top_k``-th greatest of each query; no number where any is none."""
    place = greatest.shape[1] - top_k
    return torch.cat([_sorted_columns(part.t().contiguous())[place] for part in greatest.split(_QUERIES)])


def _sorted_columns(values: Tensor) -> Tensor:
    """Sort each column in place by Batcher's odd-even merges; the number of rows is a power of two."""
    width = values.shape[0]
    size = 2
    while size <= width:
        merged = values.unflatten(0, (-1, size))
        _exchange(merged.unflatten(1, (-1, 2, size // 2)))
        step = size // 4
        while step:
            _exchange(merged[:, step : size - step].unflatten(1, (-1, 2, step)))
            step //= 2
        size *= 2
    return values


def _exchange(pairs: Tensor) -> None:
    """Bring pairs, whose halves stand in the third dimension from the end, into order."""
    low, high = pairs.unbind(-3)
    greater = torch.maximum(low, high)
    torch.minimum(low, high, out=low)
    high.copy_(greater)


def _not_below(preds: Tensor, bound: Tensor) -> Tensor:
    # A score that is no number is below nothing, and nothing is below a bound that is no number.
    return places(flags(torch.lt, preds, bound).view(-1).bool().logical_not_())
