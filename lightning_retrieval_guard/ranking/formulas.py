"""The formulas of torchmetrics' retrieval metrics over all queries of a block at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking import roc
from lightning_retrieval_guard.ranking.measures import Measure
from lightning_retrieval_guard.ranking.ranked import Ranked, sort_key, starts_of


@dataclass(frozen=True)
class Hits:
    """Ranked rows that are relevant.

    Attributes:
        index: Which ranked rows they are, int64 of shape ``(hits,)``, ascending.
        of: The place of their query, int64 of the same shape.
        rank: Their rank within the query, from 0, int64 of the same shape.
        queries: The number of queries.
    """

    index: Tensor
    of: Tensor
    rank: Tensor
    queries: int
    _within: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def ordinal(self) -> Tensor:
        """How many hits of the same query rank higher, int64 of shape ``(hits,)``."""
        starts = starts_of(self.of, self.queries)
        return torch.arange(self.of.numel(), device=self.of.device).sub_(starts.index_select(0, self.of))

    @cached_property
    def precisions(self) -> Tensor:
        """Precision at the rank of each hit, float64 of shape ``(hits,)``."""
        return (self.ordinal + 1).double() / (self.rank + 1)

    @cached_property
    def first_rank(self) -> Tensor:
        """The rank of the first hit of each query, int64 of shape ``(queries,)``; huge where there is none."""
        ranks = torch.full((self.queries,), torch.iinfo(torch.int64).max, device=self.of.device)
        first = (self.ordinal == 0).nonzero().view(-1)
        return ranks.index_copy_(0, self.of.index_select(0, first), self.rank.index_select(0, first))

    def within(self, top_k: int) -> Tensor:
        """Which hits rank above a cut-off, int64 of shape ``(found,)``."""
        if top_k not in self._within:
            self._within[top_k] = (self.rank < top_k).nonzero().view(-1)
        return self._within[top_k]


class Block:
    """A block of ranked queries with what several formulas share.

    Args:
        ranked: The block.
        reranked: Whether it was ranked by the operation that torchmetrics uses, to settle ties.
    """

    def __init__(self, ranked: Ranked, *, reranked: bool = False) -> None:
        self.ranked = ranked
        self.reranked = reranked
        self._counts: dict[tuple[bool, int], Tensor] = {}

    @cached_property
    def hits(self) -> Hits:
        """Rows whose relevance is not zero."""
        index = self.ranked.target.nonzero().view(-1)
        return Hits(index, self.ranked.of_row.index_select(0, index), self.ranked.rank_at(index), len(self.ranked))

    @cached_property
    def positive_hits(self) -> Hits:
        """Those of them with a score above zero."""
        hits, ranked = self.hits, self.ranked
        positive = ranked.rows.preds.index_select(0, ranked.place.index_select(0, hits.index)) > 0
        if bool(positive.all()):
            return hits
        kept = positive.nonzero().view(-1)
        index, of, rank = (part.index_select(0, kept) for part in (hits.index, hits.of, hits.rank))
        return Hits(index, of, rank, hits.queries)

    def hits_for(self, measure: Measure) -> Hits:
        """The rows that a measure takes as relevant."""
        return self.positive_hits if measure.needs_positive_score else self.hits

    def counts(self, measure: Measure) -> Tensor:
        """Hits above the cut-off of a measure, float64 of shape ``(queries,)``."""
        hits, top_k = self.hits_for(measure), cut_off(measure, self.ranked)
        key = (hits is self.hits, top_k)
        if key not in self._counts:
            of = hits.of.index_select(0, hits.within(top_k))
            self._counts[key] = self.sums(of, torch.ones(1, dtype=torch.float64, device=of.device).expand_as(of))
        return self._counts[key]

    def sums(self, of: Tensor, values: Tensor) -> Tensor:
        """Sums over values of queries, float64 of shape ``(queries,)``."""
        return torch.zeros(len(self.ranked), dtype=torch.float64, device=of.device).index_add_(0, of, values)

    @cached_property
    def ideal(self) -> tuple[Tensor, Tensor, Tensor]:
        """Query, rank and relevance of the rows ranked by relevance, where that is not only 0 and 1."""
        ranked = self.ranked
        order = sort_key(ranked.of_row, ranked.target.float()).sort(stable=True).indices
        return ranked.of_row, ranked.rank, ranked.target.index_select(0, order).double()

    @cached_property
    def groups(self) -> tuple[Tensor, Tensor]:
        """Ranks of the first and of the last row that tie with each hit, int64 of shape ``(hits,)``."""
        return self.group_at(self.hits.index)

    def group_at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Ranks of the first and of the last row that tie with the ranked rows at ``index``."""
        begins, ends = self._tied
        group = (torch.searchsorted(begins, index, right=True) - 1).clamp_(min=0)
        begin, end = begins.index_select(0, group), ends.index_select(0, group)
        alone = (index < begin) | (index > end)
        offset = self.ranked.starts.index_select(0, self.ranked.of_row.index_select(0, index))
        return torch.where(alone, index, begin) - offset, torch.where(alone, index, end) - offset

    @cached_property
    def _tied(self) -> tuple[Tensor, Tensor]:
        """Where groups of two and more equal scores begin and end; there must be one."""
        tied = self.ranked.same.nonzero().view(-1)
        apart = (tied.diff() > 1).nonzero().view(-1)
        begins = torch.cat([tied[:1], tied.index_select(0, apart + 1)])
        return begins, torch.cat([tied.index_select(0, apart), tied[-1:]]) + 1


def cut_off(measure: Measure, ranked: Ranked) -> int:
    """The cut-off of a measure; the longest query where it has none."""
    return ranked.longest if measure.top_k is None else measure.top_k


def evaluate(measure: Measure, block: Block) -> Tensor:
    """Score every query of a block, empty or not.

    Args:
        measure: Any but one with a formula of its own.
        block: The ranked queries; relevance must be 0 or 1 for all formulas but nDCG and the curve.

    Returns:
        Float64 of shape ``(queries,)``; for a curve float64 of shape ``(queries, 2, k)``, precision and recall.
    """
    return _FORMULAS[measure.formula](measure, block)


def _reciprocal_rank(measure: Measure, block: Block) -> Tensor:
    first = block.hits_for(measure).first_rank
    return torch.where(first < cut_off(measure, block.ranked), 1.0 / (first.double() + 1.0), 0.0)


def _average_precision(measure: Measure, block: Block) -> Tensor:
    hits, counts = block.hits_for(measure), block.counts(measure)
    within = hits.within(cut_off(measure, block.ranked))
    sums = block.sums(hits.of.index_select(0, within), hits.precisions.index_select(0, within))
    return sums / counts.clamp(min=1)


def _precision(measure: Measure, block: Block) -> Tensor:
    sizes = block.ranked.sizes.double()
    if measure.top_k is None:
        return block.counts(measure) / sizes
    return block.counts(measure) / (sizes.clamp(max=measure.top_k) if measure.adaptive_k else measure.top_k)


def _recall(measure: Measure, block: Block) -> Tensor:
    return block.counts(measure) / block.ranked.relevance


def _hit_rate(measure: Measure, block: Block) -> Tensor:
    return (block.counts(measure) > 0).double()


def _fall_out(measure: Measure, block: Block) -> Tensor:
    sizes = block.ranked.sizes
    found = sizes.clamp(max=cut_off(measure, block.ranked)) - block.counts(measure)
    return found / (sizes - block.ranked.relevance)


def _r_precision(measure: Measure, block: Block) -> Tensor:
    relevance, hits = block.ranked.relevance, block.hits
    of = hits.of[hits.rank < relevance.index_select(0, hits.of)]
    return block.sums(of, torch.ones_like(of, dtype=torch.float64)) / relevance


def _auroc(measure: Measure, block: Block) -> Tensor:
    of, preds, relevant = rows_within(measure, block.ranked)
    queries = len(block.ranked)
    if not block.reranked:
        scores = roc.probabilities(of, preds, queries)
    else:
        scores = roc.probabilities_one_by_one(of, preds, queries)
        order = scores.argsort(descending=True, stable=True)
        order = order.index_select(0, of.index_select(0, order).argsort(stable=True))
        scores, relevant = scores.index_select(0, order), relevant.index_select(0, order)
    return roc.areas(of, scores, relevant.double(), queries, measure.max_fpr)


def rows_within(measure: Measure, ranked: Ranked) -> tuple[Tensor, Tensor, Tensor]:
    """Query, score and relevance of the rows above the cut-off, each of shape ``(found,)``."""
    inside = (ranked.rank < cut_off(measure, ranked)).nonzero().view(-1)
    values = (ranked.of_row, ranked.preds, ranked.target)
    of, preds, relevant = (value.index_select(0, inside) for value in values)
    return of, preds, relevant


def _curve(measure: Measure, block: Block) -> Tensor:
    ranked, max_k, hits = block.ranked, cut_off(measure, block.ranked), block.hits
    within = hits.within(max_k)
    found = torch.zeros(len(ranked), max_k, dtype=torch.float64, device=hits.of.device)
    relevance = ranked.target.index_select(0, hits.index.index_select(0, within)).double()
    found[hits.of.index_select(0, within), hits.rank.index_select(0, within)] = relevance
    found = found.cumsum(1)
    ranks = torch.arange(1, max_k + 1, device=found.device)
    cuts = torch.minimum(ranks, ranked.sizes[:, None]) if measure.adaptive_k else ranks
    return torch.stack([found / cuts, found / ranked.relevance[:, None]], dim=1)


def _ndcg(measure: Measure, block: Block) -> Tensor:
    discounts = discount_sums(measure, block.ranked)
    gain, ideal = _gain(block, discounts), ideal_gain(block, discounts)
    return torch.where(ideal == 0, 0.0, gain / ideal)


def discount_sums(measure: Measure, ranked: Ranked) -> Tensor:
    """Sums of the discounts of the first ranks, of shape ``(longest + 1,)``, in the dtype of the scores."""
    ranks = torch.arange(ranked.longest, device=ranked.of_row.device)
    discount = 1.0 / torch.log2(ranks.to(ranked.rows.preds.dtype) + 2.0)
    discount[cut_off(measure, ranked) :] = 0.0
    return torch.cat([discount.new_zeros(1), discount.cumsum(0)])


def _gain(block: Block, sums: Tensor) -> Tensor:
    """The discounted gain, in which rows with equal scores share their discounts."""
    hits, ranked = block.hits, block.ranked
    if ranked.has_ties:
        first, last = block.groups
        shared = sums.index_select(0, last + 1) - sums.index_select(0, first)
        discount = shared.double() / (last + 1 - first)
    else:
        discount = sums.diff().index_select(0, hits.rank).double()
    return block.sums(hits.of, discount * ranked.target.index_select(0, hits.index))


def ideal_gain(block: Block, sums: Tensor) -> Tensor:
    """The discounted gain of the best ranking, float64 of shape ``(queries,)``."""
    if block.ranked.rows.binary:
        # rows that were left out rank below the cut-off, where the sums do not grow any more
        relevant = block.ranked.relevance.long().clamp(max=sums.numel() - 1)
        return sums.index_select(0, relevant).double()
    of, rank, relevance = block.ideal
    return block.sums(of, sums.diff().index_select(0, rank).double() * relevance)


_FORMULAS: dict[str, Callable[[Measure, Block], Tensor]] = {
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
