"""The formulas of torchmetrics' retrieval metrics over all queries of a block at once.

Each is that of the function of the same name in ``torchmetrics.functional.retrieval``, special cases included.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking import roc
from lightning_retrieval_guard.ranking.measures import Measure
from lightning_retrieval_guard.ranking.ranked import Hits, Ranked, sort_key

# An ideal gain this much smaller than its terms has fewer digits in single precision than a value needs.
_ROUGH = 0.25


def evaluate(measure: Measure, ranked: Ranked) -> Tensor:
    """Score every query of a block, empty or not.

    Args:
        measure: Any but one with a formula of its own.
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
    return roc.areas(query, roc.probabilities(query, preds, queries), relevant.double(), queries, measure.max_fpr)


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
