"""Areas under the ROC curves of many queries."""

from __future__ import annotations

import torch
from torch import Tensor

# Rounding of a sigmoid differs by a step or two between the vectorised and the other elements of a tensor.
_ROUNDING = 4


def areas(query: Tensor, scores: Tensor, relevant: Tensor, queries: int, max_fpr: float | None) -> Tensor:
    """The area of each query, as torchmetrics' ``binary_auroc`` defines it; zero where a class is missing.

    Args:
        query: The query of each row, int64 of shape ``(rows,)``, ascending.
        scores: Probabilities of the same shape, within a query from high to low.
        relevant: 1 or 0, float64 of the same shape.
        queries: The number of queries.
        max_fpr: Up to which false positive rate the area counts, corrected after McClish (1989); ``None`` for all.

    Returns:
        Float64 of shape ``(queries,)``.
    """
    ends = torch.ones_like(query, dtype=torch.bool)
    ends[:-1] = (query[1:] != query[:-1]) | (scores[1:] != scores[:-1])
    last = ends.nonzero().view(-1)
    of = query.index_select(0, last)
    starts = torch.searchsorted(query, torch.arange(queries + 1, device=query.device))
    hits = torch.cat([relevant.new_zeros(1), relevant.cumsum(0)])
    hits_before = hits.index_select(0, starts)
    positives = hits_before.diff()
    negatives = starts.diff() - positives
    true = hits.index_select(0, last + 1) - hits_before.index_select(0, of)
    false = last + 1 - starts.index_select(0, of) - true
    high, right = _rates(true, positives, of), _rates(false, negatives, of)
    area = _area(_before(right, of), right, _before(high, of), high, max_fpr)
    sums = area.new_zeros(queries).index_add_(0, of, area)
    return torch.where((positives > 0) & (negatives > 0), _corrected(sums, max_fpr), 0.0)


def probabilities(query: Tensor, preds: Tensor, queries: int) -> Tensor:
    """The scores, through a sigmoid for queries with any outside of 0 and 1, of shape ``(rows,)``.

    Args:
        query: The query of each row, int64 of shape ``(rows,)``.
        preds: Scores of the same shape.
        queries: The number of queries.
    """
    return torch.where(_are_logits(query, preds, queries).index_select(0, query), preds.sigmoid(), preds)


def depends_on_rounding(query: Tensor, preds: Tensor, relevant: Tensor, queries: int) -> Tensor:
    """Queries whose area depends on the last digit of a sigmoid, bool of shape ``(queries,)``.

    Args:
        query: The query of each row, int64 of shape ``(rows,)``, ascending.
        preds: Scores of the same shape, within a query from high to low.
        relevant: Relevance of the same shape.
        queries: The number of queries.
    """
    scores = preds.sigmoid()
    near = scores[:-1] - scores[1:] <= _ROUNDING * torch.finfo(scores.dtype).eps * scores[:-1]
    close = near & (query[1:] == query[:-1]) & (relevant[1:] != relevant[:-1])
    return _marked(query[1:][close], queries) & _are_logits(query, preds, queries)


def _are_logits(query: Tensor, preds: Tensor, queries: int) -> Tensor:
    return _marked(query[(preds < 0) | (preds > 1)], queries)


def _marked(query: Tensor, queries: int) -> Tensor:
    return torch.zeros(queries, dtype=torch.bool, device=query.device).index_fill_(0, query, True)


def _rates(counts: Tensor, totals: Tensor, query: Tensor) -> Tensor:
    return counts / totals.index_select(0, query).clamp(min=1)


def _before(values: Tensor, query: Tensor) -> Tensor:
    """The value at the threshold before, zero before the first of a query."""
    before = torch.zeros_like(values)
    # thresholds of another query are none of this one's
    before[1:] = torch.where(query[1:] == query[:-1], values[:-1], 0.0)
    return before


def _area(left: Tensor, right: Tensor, low: Tensor, high: Tensor, max_fpr: float | None) -> Tensor:
    if max_fpr is None or max_fpr == 1:
        return (right - left) * (low + high) / 2
    width = (right.clamp(max=max_fpr) - left).clamp(min=0)
    share = torch.where(right > left, width / (right - left), 0.0)
    return width * (2 * low + share * (high - low)) / 2


def _corrected(area: Tensor, max_fpr: float | None) -> Tensor:
    if max_fpr is None or max_fpr == 1:
        return area
    least = 0.5 * max_fpr**2
    return 0.5 * (1 + (area - least) / (max_fpr - least))
