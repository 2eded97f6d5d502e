"""Areas under the ROC curves of many queries."""

from __future__ import annotations

import torch
from torch import Tensor

# Rounding of a sigmoid differs by a step or two between the vectorised and the other elements of a tensor.
_ROUNDING = 4


def areas(of: Tensor, scores: Tensor, relevant: Tensor, queries: int, max_fpr: float | None) -> Tensor:
    """The area of each query, as torchmetrics' ``binary_auroc`` defines it; zero where a class is missing.

    Args:
        of: The query of each row, int64 of shape ``(rows,)``, ascending.
        scores: Probabilities of the same shape, within a query from high to low.
        relevant: 1 or 0, float64 of the same shape.
        queries: The number of queries.
        max_fpr: Up to which false positive rate the area counts, corrected after McClish; ``None`` for all of it.

    Returns:
        Float64 of shape ``(queries,)``.
    """
    ends = torch.cat([(of[1:] != of[:-1]) | (scores[1:] != scores[:-1]), torch.ones_like(of[:1], dtype=torch.bool)])
    last = ends.nonzero().view(-1)
    query = of.index_select(0, last)
    rows_before = torch.searchsorted(of, torch.arange(queries + 1, device=of.device))
    found = torch.cat([relevant.new_zeros(1), relevant.cumsum(0)])
    base = found.index_select(0, rows_before)
    positives = base.diff()
    negatives = rows_before.diff() - positives
    hits = found.index_select(0, last + 1) - base.index_select(0, query)
    misses = last + 1 - rows_before.index_select(0, query) - hits
    high = _rates(hits, positives, query)
    wide = _rates(misses, negatives, query)
    first = torch.cat([torch.ones_like(query[:1], dtype=torch.bool), query[1:] != query[:-1]])
    area = _area(_shifted(wide, first), wide, _shifted(high, first), high, max_fpr)
    sums = torch.zeros(queries, dtype=torch.float64, device=of.device).index_add_(0, query, area)
    return torch.where((positives > 0) & (negatives > 0), _corrected(sums, max_fpr), 0.0)


def logits(of: Tensor, preds: Tensor, queries: int) -> Tensor | None:
    """Queries with a score outside of 0 and 1, bool of shape ``(queries,)``; ``None`` where there are none.

    Args:
        of: The query of each row, int64 of shape ``(rows,)``.
        preds: Scores of the same shape.
        queries: The number of queries.
    """
    outside = ((preds < 0) | (preds > 1)).nonzero().view(-1)
    if not outside.numel():
        return None
    return torch.zeros(queries, dtype=torch.bool, device=of.device).index_fill_(0, of.index_select(0, outside), True)


def probabilities(of: Tensor, preds: Tensor, queries: int) -> Tensor:
    """The scores, through a sigmoid for queries with any outside of 0 and 1; arguments as for ``logits``."""
    through = logits(of, preds, queries)
    return preds if through is None else torch.where(through.index_select(0, of), preds.sigmoid(), preds)


def probabilities_one_by_one(of: Tensor, preds: Tensor, queries: int) -> Tensor:
    """The same, rounded as torchmetrics rounds them, which takes one query after the other."""
    through = logits(of, preds, queries)
    if through is None:
        return preds
    sizes = torch.searchsorted(of, torch.arange(queries + 1, device=of.device)).diff().tolist()
    parts = zip(preds.split(sizes), through.tolist(), strict=True)
    return torch.cat([part.sigmoid() if outside else part for part, outside in parts])


def hang_on_rounding(of: Tensor, preds: Tensor, relevant: Tensor, queries: int) -> Tensor:
    """Queries whose area depends on the last digit of a sigmoid, bool of shape ``(queries,)``.

    Args:
        of: The query of each row, int64 of shape ``(rows,)``, ascending.
        preds: Scores of the same shape, within a query from high to low.
        relevant: Relevance of the same shape.
        queries: The number of queries.
    """
    hanging = torch.zeros(queries, dtype=torch.bool, device=of.device)
    through = logits(of, preds, queries)
    if through is None:
        return hanging
    scores = preds.sigmoid()
    near = scores[:-1] - scores[1:] <= _ROUNDING * torch.finfo(scores.dtype).eps * scores[:-1]
    close = near & (of[1:] == of[:-1]) & (relevant[1:] != relevant[:-1])
    return hanging.index_fill_(0, of[1:][close], True) & through


def _rates(counts: Tensor, totals: Tensor, query: Tensor) -> Tensor:
    return counts / totals.index_select(0, query).clamp(min=1)


def _shifted(values: Tensor, first: Tensor) -> Tensor:
    """The value of the threshold before, zero before the first of a query."""
    return torch.cat([values[:1], values[:-1]]).masked_fill(first, 0.0)


def _area(left: Tensor, right: Tensor, low: Tensor, high: Tensor, max_fpr: float | None) -> Tensor:
    if max_fpr is None or max_fpr == 1:
        return (right - left) * (low + high) / 2
    end = right.clamp(max=max_fpr)
    width = (end - left).clamp(min=0)
    share = torch.where(right > left, width / (right - left), 0.0)
    return width * (2 * low + share * (high - low)) / 2


def _corrected(area: Tensor, max_fpr: float | None) -> Tensor:
    if max_fpr is None or max_fpr == 1:
        return area
    least = 0.5 * max_fpr**2
    return 0.5 * (1 + (area - least) / (max_fpr - least))
