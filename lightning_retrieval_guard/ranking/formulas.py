"""The formulas of torchmetrics' retrieval metrics over all queries of a block at once, and what decides their values.

Each is that of the function of the same name in ``torchmetrics.functional.retrieval``, special cases included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking.measures import Measure
from lightning_retrieval_guard.ranking.ranked import Hits, Ranked, sort_key

# An ideal gain this much smaller than its terms has fewer digits in single precision than a value needs.
_ROUGH = 0.25
# Rounding of a sigmoid differs by a step or two between the vectorised and the other elements of a tensor.
_ROUNDING = 4
_BY_TOPK = ("reciprocal_rank", "average_precision", "precision", "auroc", "curve")


def evaluate(measure: Measure, ranked: Ranked) -> Tensor:
    """Score every query of a block, empty or not.

    Args:
        measure: Any but one with a custom formula.
        ranked: The queries; relevance must be 0 or 1 for all formulas but nDCG and the curve.

    Returns:
        Float64 of shape ``(queries,)``; for a curve float64 of shape ``(queries, 2, k)``, precision and recall.
    """
    return _FORMULAS[measure.formula](measure, ranked)


def cut_off(measure: Measure, ranked: Ranked) -> int:
    """The cut-off of a measure; the longest query where it has none."""
    return ranked.block.longest if measure.top_k is None else measure.top_k


def hits_of(measure: Measure, ranked: Ranked) -> Hits:
    """The hits above the cut-off of a measure."""
    return ranked.hits_within(cut_off(measure, ranked), positive=measure.needs_positive_score)


def rows_within(measure: Measure, ranked: Ranked) -> tuple[Tensor, Tensor, Tensor]:
    """Query, score and relevance of the rows above the cut-off, each of shape ``(rows within,)``."""
    inside = (ranked.rank < cut_off(measure, ranked)).nonzero().view(-1)
    query, preds, gains = (part.index_select(0, inside) for part in (ranked.number, ranked.preds, ranked.gains))
    return query, preds, gains


def _reciprocal_rank(measure: Measure, ranked: Ranked) -> Tensor:
    hits = hits_of(measure, ranked)
    return torch.where(hits.counts > 0, 1.0 / (hits.first_rank.double() + 1.0), 0.0)


def _average_precision(measure: Measure, ranked: Ranked) -> Tensor:
    hits = hits_of(measure, ranked)
    return ranked.block.sums(hits.query, hits.precisions) / hits.counts.clamp(min=1)


def _precision(measure: Measure, ranked: Ranked) -> Tensor:
    counts, sizes = hits_of(measure, ranked).counts.double(), ranked.block.sizes
    if measure.top_k is None:
        return counts / sizes
    return counts / (sizes.clamp(max=measure.top_k) if measure.adaptive_k else measure.top_k)


def _recall(measure: Measure, ranked: Ranked) -> Tensor:
    # an empty query divides by zero here, and gets its value afterwards
    return hits_of(measure, ranked).counts / ranked.block.relevance


def _hit_rate(measure: Measure, ranked: Ranked) -> Tensor:
    return (hits_of(measure, ranked).counts > 0).double()


def _fall_out(measure: Measure, ranked: Ranked) -> Tensor:
    sizes = ranked.block.sizes
    misses = sizes.clamp(max=cut_off(measure, ranked)) - hits_of(measure, ranked).counts
    return misses / (sizes - ranked.block.relevance)


def _r_precision(measure: Measure, ranked: Ranked) -> Tensor:
    relevance, hits = ranked.block.relevance, ranked.hits
    within = hits.at((hits.rank < relevance.index_select(0, hits.query)).nonzero().view(-1))
    return within.counts / relevance


def _auroc(measure: Measure, ranked: Ranked) -> Tensor:
    query, preds, relevant = rows_within(measure, ranked)
    queries = len(ranked.block)
    return _roc_areas(query, _probabilities(query, preds, queries), relevant.double(), queries, measure.max_fpr)


def _curve(measure: Measure, ranked: Ranked) -> Tensor:
    max_k, hits = cut_off(measure, ranked), hits_of(measure, ranked)
    gains = ranked.gains.index_select(0, hits.index).double()
    relevant = gains.new_zeros(len(ranked.block), max_k).index_put_((hits.query, hits.rank), gains).cumsum(1)
    ranks = torch.arange(1, max_k + 1, device=gains.device)
    cuts = torch.minimum(ranks, ranked.block.sizes[:, None]) if measure.adaptive_k else ranks
    return torch.stack([relevant / cuts, relevant / ranked.block.relevance[:, None]], dim=1)


# --- normalized discounted cumulative gain (Järvelin and Kekäläinen 2002) -------------------------------------


def _ndcg(measure: Measure, ranked: Ranked) -> Tensor:
    sums = _discount_sums(measure, ranked)
    ideal = _ideal_gain(ranked, sums)
    return torch.where(ideal == 0, 0.0, _gain(measure, ranked, sums) / ideal)


def gains_cancel(measure: Measure, ranked: Ranked) -> Tensor:
    """Queries whose positive and negative ideal gains leave too few digits, bool of shape ``(queries,)``."""
    sums = _discount_sums(measure, ranked)
    if ranked.block.is_binary:
        return torch.zeros(len(ranked.block), dtype=torch.bool, device=sums.device)
    terms = _ideal_terms(ranked, sums)
    total, size = (ranked.block.sums(ranked.number, values) for values in (terms, terms.abs()))
    return total.abs() < _ROUGH * size


def _discount_sums(measure: Measure, ranked: Ranked) -> Tensor:
    """Sums of the discounts of the first ranks, of shape ``(longest + 1,)``, in the dtype of the scores."""
    ranks = torch.arange(ranked.block.longest, device=ranked.order.device)
    discount = 1.0 / torch.log2(ranks.to(ranked.block.preds.dtype) + 2.0)
    discount[cut_off(measure, ranked) :] = 0.0
    return torch.cat([discount.new_zeros(1), discount.cumsum(0)])


def _gain(measure: Measure, ranked: Ranked, sums: Tensor) -> Tensor:
    """The discounted gain, in which rows with equal scores share their discounts."""
    if not ranked.has_ties:
        hits = hits_of(measure, ranked)
        discount = sums.diff().index_select(0, hits.rank).double()
    else:
        hits = ranked.hits
        first, last = ranked.tie_at(hits.index)
        discount = (sums.index_select(0, last + 1) - sums.index_select(0, first)).double() / (last + 1 - first)
    return ranked.block.sums(hits.query, discount * ranked.gains.index_select(0, hits.index))


def _ideal_gain(ranked: Ranked, sums: Tensor) -> Tensor:
    """The discounted gain of the best ranking, float64 of shape ``(queries,)``."""
    if ranked.block.is_binary:
        return sums.index_select(0, ranked.block.relevance.long()).double()
    return ranked.block.sums(ranked.number, _ideal_terms(ranked, sums))


def _ideal_terms(ranked: Ranked, sums: Tensor) -> Tensor:
    """What each rank of the best ranking adds to the gain, float64 of shape ``(ranked,)``."""
    order = sort_key(ranked.number, ranked.gains.float()).argsort()
    return sums.diff().index_select(0, ranked.rank).double() * ranked.gains.index_select(0, order)


# --- areas under ROC curves ------------------------------------------------------------------------------------


def _roc_areas(query: Tensor, scores: Tensor, relevant: Tensor, queries: int, max_fpr: float | None) -> Tensor:
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
    # rows of equal score pass the threshold together, so that the curve has a point only after the last of them
    ends = torch.ones_like(query, dtype=torch.bool)
    ends[:-1] = (query[1:] != query[:-1]) | (scores[1:] != scores[:-1])
    last = ends.nonzero().view(-1)
    query_of_point = query.index_select(0, last)
    starts = torch.searchsorted(query, torch.arange(queries + 1, device=query.device))
    hits = torch.cat([relevant.new_zeros(1), relevant.cumsum(0)])
    hits_before = hits.index_select(0, starts)
    positives = hits_before.diff()
    negatives = starts.diff() - positives
    true = hits.index_select(0, last + 1) - hits_before.index_select(0, query_of_point)
    false = last + 1 - starts.index_select(0, query_of_point) - true
    high, right = _rates(true, positives, query_of_point), _rates(false, negatives, query_of_point)
    area = _area(_before(right, query_of_point), right, _before(high, query_of_point), high, max_fpr)
    sums = area.new_zeros(queries).index_add_(0, query_of_point, area)
    return torch.where((positives > 0) & (negatives > 0), _corrected(sums, max_fpr), 0.0)


def _probabilities(query: Tensor, preds: Tensor, queries: int) -> Tensor:
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


_FORMULAS: dict[str, Callable[[Measure, Ranked], Tensor]] = {
    "reciprocal_rank": _reciprocal_rank,
    "average_precision": _average_precision,
    "precision": _precision,
    "recall": _recall,
    "hit_rate": _hit_rate,
    "fall_out": _fall_out,
    "r_precision": _r_precision,
    "auroc": _auroc,
    "curve": _curve,
    "ndcg": _ndcg,
}


# --- rows of equal score, which have to be ranked just as torchmetrics ranks them ------------------------------


@dataclass(frozen=True, eq=False)
class Ties:
    """Rows of equal score of which some are relevant and others not, all tensors of shape ``(ties,)``.

    Attributes:
        query: Their query, int64.
        first: The rank of the first row, int64.
        last: The rank of the last row, int64.
        positive: Whether the score is above zero, bool.
    """

    query: Tensor
    first: Tensor
    last: Tensor
    positive: Tensor


def mixed_ties(ranked: Ranked) -> Ties | None:
    """The ties of a block, some perhaps more than once; ``None`` where there are none."""
    if not ranked.has_ties:
        return None
    index = (ranked.same & (ranked.gains[1:] != ranked.gains[:-1])).nonzero().view(-1)
    if not index.numel():
        return None
    first, last = ranked.tie_at(index)
    return Ties(ranked.number_at(index), first, last, ranked.is_positive_at(index))


def decided_by_ties(measure: Measure, ranked: Ranked, ties: Ties) -> Tensor:
    """Queries whose value depends on the order of rows with equal scores, bool of shape ``(queries,)``.

    Args:
        measure: Any but nDCG, which shares out the discounts, and one with a custom formula.
        ranked: The block.
        ties: Its ties.
    """
    decisive = _are_decisive(measure, ranked, ties)
    if measure.needs_positive_score:
        decisive &= ties.positive
    decided = torch.zeros(len(ranked.block), dtype=torch.bool, device=decisive.device)
    return decided.index_fill_(0, ties.query[decisive], True)


def _are_decisive(measure: Measure, ranked: Ranked, ties: Ties) -> Tensor:
    top_k = cut_off(measure, ranked)
    # every rank of a hit above the cut-off counts
    if measure.formula in ("average_precision", "curve"):
        return ties.first < top_k
    if measure.formula == "r_precision":
        # the cut-off of each query is the number of its relevant rows
        relevance = ranked.block.relevance.index_select(0, ties.query)
        return (ties.first < relevance) & (relevance <= ties.last)
    hits = ranked.positive_hits if measure.needs_positive_score else ranked.hits
    first_hit = hits.first_rank.index_select(0, ties.query)
    if measure.formula == "reciprocal_rank":
        # only rows that tie with the first hit can move it
        return (ties.first < top_k) & (ties.first <= first_hit) & (first_hit <= ties.last)
    # the others count hits, so that only a tie across the cut-off matters
    at_cut = (ties.first < top_k) & (top_k <= ties.last)
    if measure.formula == "hit_rate":  # a hit before them decides already
        at_cut &= ties.first <= first_hit
    return at_cut


def k_of_torchmetrics(measure: Measure, ranked: Ranked) -> int | None:
    """The ``k`` with which torchmetrics calls ``topk`` for a measure; ``None`` where it calls ``argsort``."""
    return cut_off(measure, ranked) if measure.formula in _BY_TOPK else None
