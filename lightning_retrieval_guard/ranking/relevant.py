"""Ranks of the relevant rows alone, by counting the rows that score more, where nothing else is asked."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking import selection
from lightning_retrieval_guard.ranking.flags import flags, places

# How many rows may be compared for each row there is: beyond that, sorting is quicker.
_WORTH = 8

# Longer lists have more rows than a sum of ones in single precision can count.
_COUNTABLE = 1 << 24

# Scores that are compared at once, so that they stay in the cache.
_COMPARED = 1 << 17


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
    if preds.shape[1] > _COUNTABLE:
        return None
    relevant = target.reshape(-1).bool()
    if top_k is not None and selection.pays(preds.numel(), preds.shape[0], top_k):
        greatest = selection.bound_of_grid(preds, top_k)
        queries = max(1, _COMPARED // preds.shape[1])
        parts = relevant.view(preds.shape).split(queries)
        for part, rows, bound in zip(parts, preds.split(queries), greatest[:, None].split(queries), strict=True):
            part.logical_and_(flags(torch.ge, rows, bound).bool())
    else:
        greatest = preds
    hits = places(relevant)
    if hits.numel() > _WORTH * preds.shape[0] or bool(greatest.max().isnan()):
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
        if int(flags(torch.eq, rows, score).sum()) > part.numel():
            return None
        above.append(flags(torch.gt, rows, score).sum(1).long())
    return torch.cat(above)
