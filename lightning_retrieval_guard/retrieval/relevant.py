"""Ranks of the relevant rows alone, by counting the rows that score more, where nothing else is asked."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_retrieval_guard.retrieval import selection

# How many rows may be compared for each row there is: beyond that, sorting is quicker.
_WORTH_WITH_CUT = 1
_WORTH = 8

# Scores that are compared at once, so that they stay in the cache.
_COMPARED = 1 << 16


def rank_relevant(preds: Tensor, target: Tensor, top_k: int | None) -> tuple[Tensor, Tensor] | None:
    """Rank the relevant rows of queries of one length.

    Args:
        preds: Scores of shape ``(queries, rows)``.
        target: Relevance, each 0 or 1, of the same shape.
        top_k: The largest cut-off, if there is one: rows that score less than the ``top_k``-th of their query may
            then be missing.

    Returns:
        Positions of relevant rows in the flattened scores and their ranks within their query from 0, both int64 of
        shape ``(ranked,)``. ``None`` where that would not be quicker than sorting, where a relevant row has the score
        of another row, and where a score is no number.
    """
    length = preds.shape[1]
    hits = target.reshape(-1).nonzero().view(-1)
    worth = _WORTH if top_k is None else _WORTH_WITH_CUT
    if hits.numel() > worth * preds.shape[0]:
        if top_k is None or not selection.pays(preds.numel(), preds.shape[0], top_k):
            return None
        bound = selection.bound_of_grid(preds, top_k)
        below = preds.view(-1).index_select(0, hits) < bound.index_select(0, _query_of(hits, length))
        hits = hits.index_select(0, below.logical_not_().nonzero().view(-1))
        if hits.numel() > _WORTH * preds.shape[0]:
            return None
    if bool(preds.max().isnan()):
        return None
    ranks = _count_above(preds, hits)
    return None if ranks is None else (hits, ranks)


def _query_of(place: Tensor, length: int) -> Tensor:
    return torch.div(place, length, rounding_mode="floor")


def _count_above(preds: Tensor, hits: Tensor) -> Tensor | None:
    """How many rows of its query score more than each hit; ``None`` where any other row scores the same."""
    length = preds.shape[1]
    above = [hits[:0]]
    for part in hits.split(max(1, _COMPARED // length)):
        score = preds.view(-1).index_select(0, part)[:, None]
        rows = preds.index_select(0, _query_of(part, length))
        if int((rows == score).count_nonzero()) > part.numel():
            return None
        above.append((rows > score).sum(1, dtype=torch.int32).long())
    return torch.cat(above)
