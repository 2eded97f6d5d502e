"""Queries in which rows of equal score decide a value, ranked just as torchmetrics ranks them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking import roc
from lightning_retrieval_guard.ranking.formulas import Block, cut_off, rows_within
from lightning_retrieval_guard.ranking.measures import Measure
from lightning_retrieval_guard.ranking.ranked import Ranked

_BY_TOPK = ("reciprocal_rank", "average_precision", "precision", "auroc", "curve")


@dataclass(frozen=True)
class Groups:
    """Rows of equal score of which some are relevant and others not.

    Attributes:
        of: The place of the query, int64 of shape ``(groups,)``.
        first: The rank of the first row, int64 of the same shape.
        last: The rank of the last row, int64 of the same shape.
        positive: Whether the score is above zero, bool of the same shape.
    """

    of: Tensor
    first: Tensor
    last: Tensor
    positive: Tensor


def mixed_groups(block: Block) -> Groups | None:
    """The groups of a block, or ``None`` where there are none."""
    ranked = block.ranked
    if not ranked.has_ties:
        return None
    pairs = (ranked.same & (ranked.target[1:] != ranked.target[:-1])).nonzero().view(-1)
    if not pairs.numel():
        return None
    first, last = block.group_at(pairs)
    place = ranked.place.index_select(0, pairs)
    return Groups(ranked.of_row.index_select(0, pairs), first, last, ranked.rows.preds.index_select(0, place) > 0)


def decided_by_ties(measure: Measure, block: Block, groups: Groups | None) -> Tensor:
    """Queries whose value depends on the order of rows with equal scores, bool of shape ``(queries,)``."""
    decided = torch.zeros(len(block.ranked), dtype=torch.bool, device=block.ranked.query.device)
    if measure.formula == "auroc":
        # A sigmoid makes equal scores of unequal ones, and unequal ones of equal.
        decided = roc.hang_on_rounding(*rows_within(measure, block.ranked), len(block.ranked))
    if groups is None or measure.formula in ("ndcg", "own"):
        return decided
    decisive = _are_decisive(measure, block, groups)
    if measure.needs_positive_score:
        decisive &= groups.positive
    decided[groups.of[decisive]] = True
    return decided


def _are_decisive(measure: Measure, block: Block, groups: Groups) -> Tensor:
    top_k = cut_off(measure, block.ranked)
    if measure.formula == "reciprocal_rank":
        rank = block.hits_for(measure).first_rank.index_select(0, groups.of)
        return (groups.first <= rank) & (rank <= groups.last) & (groups.first < top_k)
    if measure.formula in ("average_precision", "curve"):
        return groups.first < top_k
    if measure.formula == "r_precision":
        relevance = block.ranked.relevance.index_select(0, groups.of)
        return (groups.first < relevance) & (relevance <= groups.last)
    at_cut = (groups.first < top_k) & (top_k <= groups.last)
    if measure.formula == "hit_rate":  # a hit before them decides already
        at_cut &= groups.first <= block.hits.first_rank.index_select(0, groups.of)
    return at_cut


def ranking_of(measure: Measure, ranked: Ranked) -> int | None:
    """How torchmetrics ranks for a measure: by ``topk`` with this k, or with ``None`` by ``argsort``."""
    return cut_off(measure, ranked) if measure.formula in _BY_TOPK else None


def rerank(ranked: Ranked, queries: Tensor, top_k: int | None) -> Ranked:
    """Some queries of a block, ranked by the operation that torchmetrics uses.

    Args:
        ranked: The block.
        queries: Which queries, bool of shape ``(queries,)``.
        top_k: See ``ranking_of``.
    """
    place, of_row = ranked.all_rows(queries)
    chosen = queries.nonzero().view(-1)
    sizes = torch.diff(torch.searchsorted(of_row, torch.cat([chosen, chosen[-1:] + 1])))
    begins = sizes.cumsum(0) - sizes
    kept = sizes if top_k is None else sizes.clamp(max=top_k)
    starts = torch.cat([kept.new_zeros(1), kept.cumsum(0)])
    order = torch.empty(int(starts[-1]), dtype=torch.int64, device=place.device)
    preds = ranked.rows.preds.index_select(0, place)
    for length in sizes.unique().tolist():
        same_length = (sizes == length).nonzero().view(-1)
        rows = begins.index_select(0, same_length)[:, None] + torch.arange(length, device=place.device)
        best = _best(preds[rows], top_k)
        columns = torch.arange(best.shape[1], device=place.device)
        order[starts.index_select(0, same_length)[:, None] + columns] = rows.gather(1, best)
    place = place.index_select(0, order)
    of_kept = torch.arange(chosen.numel(), device=place.device).repeat_interleave(kept)
    return replace(
        ranked,
        query=ranked.query.index_select(0, chosen),
        sizes=ranked.sizes.index_select(0, chosen),
        relevance=ranked.relevance.index_select(0, chosen),
        of_row=of_kept,
        starts=starts,
        place=place,
        target=ranked.rows.relevance_at(place),
        same=torch.zeros(max(place.numel() - 1, 0), dtype=torch.bool, device=place.device),
    )


def _best(preds: Tensor, top_k: int | None) -> Tensor:
    if top_k is None:
        return torch.argsort(preds, dim=-1, descending=True)
    return preds.topk(min(top_k, preds.shape[-1]), sorted=True, dim=-1).indices
