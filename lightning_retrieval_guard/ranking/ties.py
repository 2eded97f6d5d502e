"""Queries in which rows of equal score decide a value, which have to be ranked just as torchmetrics ranks them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking.formulas import cut_off
from lightning_retrieval_guard.ranking.measures import Measure
from lightning_retrieval_guard.ranking.ranked import Ranked

_BY_TOPK = ("reciprocal_rank", "average_precision", "precision", "auroc", "curve")


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
        measure: Any but nDCG, which shares out the discounts, and one with a formula of its own.
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
