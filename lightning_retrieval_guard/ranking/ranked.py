"""The rows of a block from the best to the worst of each query, and what several formulas ask of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking.rows import Block

# How many rows to a slot make it worth while to leave rows out.
_WORTH = 2


@dataclass(frozen=True, eq=False)
class Hits:
    """Ranked rows that are relevant, all tensors int64 of shape ``(hits,)``.

    Attributes:
        index: Which ranked rows they are, ascending.
        query: Their query.
        rank: Their rank within the query, from 0.
        queries: The number of queries.
    """

    index: Tensor
    query: Tensor
    rank: Tensor
    queries: int

    def at(self, which: Tensor) -> Hits:
        """Some of them, by their positions."""
        index, query, rank = (part.index_select(0, which) for part in (self.index, self.query, self.rank))
        return Hits(index, query, rank, self.queries)

    @cached_property
    def counts(self) -> Tensor:
        """How many there are of each query, int64 of shape ``(queries,)``."""
        return self.query.bincount(minlength=self.queries)

    @cached_property
    def precisions(self) -> Tensor:
        """Precision at the rank of each hit, float64 of shape ``(hits,)``."""
        before = self.counts.cumsum(0) - self.counts
        ordinal = torch.arange(1, self.rank.numel() + 1, device=self.rank.device) - before.index_select(0, self.query)
        return ordinal.double() / (self.rank + 1)

    @cached_property
    def first_rank(self) -> Tensor:
        """The rank of the first hit of each query, int64 of shape ``(queries,)``; huge where there is none."""
        ranks = torch.full((self.queries,), torch.iinfo(torch.int64).max, device=self.rank.device)
        return ranks.scatter_reduce_(0, self.query, self.rank, "amin")


@dataclass(frozen=True, eq=False)
class Ranked:
    """A block with its rows ranked.

    Attributes:
        block: The queries and all their rows.
        order: The positions in the block of the ranked rows, by query and then by score from high to low, int64 of
            shape ``(ranked,)``. Rows below the largest cut-off may be missing, but none that tie with one above it.
        starts: Where the ranked rows of each query begin, int64 of shape ``(queries,)``.
        same: Whether a ranked row and the next one are of one query and equal in score, bool of shape
            ``(ranked - 1,)``.
    """

    block: Block
    order: Tensor
    starts: Tensor
    same: Tensor
    _within: dict[tuple[bool, int], Hits] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def number(self) -> Tensor:
        """The queries of the ranked rows, int64 of shape ``(ranked,)``."""
        return self.block.number_at(self.order)

    @cached_property
    def preds(self) -> Tensor:
        """Scores of the ranked rows, of shape ``(ranked,)``."""
        return self.block.preds.index_select(0, self.order)

    @cached_property
    def gains(self) -> Tensor:
        """Relevance of the ranked rows, of shape ``(ranked,)``."""
        return self.block.target.index_select(0, self.order)

    @cached_property
    def rank(self) -> Tensor:
        """Ranks of the ranked rows within their query, from 0, int64 of shape ``(ranked,)``."""
        ranked = torch.arange(self.order.numel(), device=self.order.device)
        return ranked - self.starts.index_select(0, self.number)

    def number_at(self, index: Tensor) -> Tensor:
        """The queries of some ranked rows, int64 of the shape of ``index``."""
        return self.block.number_at(self.order.index_select(0, index))

    def is_positive_at(self, index: Tensor) -> Tensor:
        """Which of some ranked rows have a score above zero, bool of the shape of ``index``."""
        return self.block.preds.index_select(0, self.order.index_select(0, index)) > 0

    @cached_property
    def has_nan(self) -> Tensor:
        """Queries with a score that is not a number, bool of shape ``(queries,)``; such a score ranks first."""
        return self.block.preds.index_select(0, self.order.index_select(0, self.starts)).isnan()

    @cached_property
    def hits(self) -> Hits:
        """Rows whose relevance is not zero."""
        index = self.gains.nonzero().view(-1)
        query = self.number_at(index)
        return Hits(index, query, index - self.starts.index_select(0, query), len(self.block))

    @cached_property
    def positive_hits(self) -> Hits:
        """Those of them with a score above zero."""
        positive = self.is_positive_at(self.hits.index)
        return self.hits if bool(positive.all()) else self.hits.at(positive.nonzero().view(-1))

    def hits_within(self, top_k: int, *, positive: bool) -> Hits:
        """The hits above a cut-off.

        Args:
            top_k: The cut-off.
            positive: Whether only those with a score above zero count.
        """
        hits = self.positive_hits if positive else self.hits
        # many measures share a cut-off
        key = (hits is self.hits, top_k)
        if key not in self._within:
            self._within[key] = hits.at((hits.rank < top_k).nonzero().view(-1))
        return self._within[key]

    # --- rows of equal score ----------------------------------------------------------------------------------

    @cached_property
    def has_ties(self) -> bool:
        """Whether any two ranked rows of a query are equal in score."""
        return bool(self.same.any())

    def tie_at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Ranks of the first and of the last row that tie with the ranked rows at ``index``; some rows must tie."""
        firsts, lasts = self._tied
        tie = (torch.searchsorted(firsts, index, right=True) - 1).clamp_(min=0)
        first, last = firsts.index_select(0, tie), lasts.index_select(0, tie)
        # the tie found is the last to begin at or before the row, which may lie past its end
        alone = (index < first) | (index > last)
        start = self.starts.index_select(0, self.number_at(index))
        return torch.where(alone, index, first) - start, torch.where(alone, index, last) - start

    @cached_property
    def _tied(self) -> tuple[Tensor, Tensor]:
        """Where sets of two and more equal scores begin and end."""
        tied = self.same.nonzero().view(-1)
        apart = (tied.diff() > 1).nonzero().view(-1)
        firsts = torch.cat([tied[:1], tied.index_select(0, apart + 1)])
        return firsts, torch.cat([tied.index_select(0, apart), tied[-1:]]) + 1


def rank(block: Block, top_k: int | None) -> Ranked:
    """Rank the rows of a block.

    Args:
        block: The rows.
        top_k: The largest cut-off, if everything asked of the ranking has one.
    """
    # the ideal ranking of graded relevance needs every row
    if top_k is None or not block.is_binary or _WORTH * _slots(top_k) * len(block) > block.preds.numel():
        order, same = _sort(block.number, block.preds)
        return Ranked(block, order, block.sizes.cumsum(0) - block.sizes, same)
    kept = _may_be_among(block, top_k)
    number = block.number_at(kept)
    order, same = _sort(number, block.preds.index_select(0, kept))
    sizes = number.bincount(minlength=len(block))
    return Ranked(block, kept.index_select(0, order), sizes.cumsum(0) - sizes, same)


def _slots(top_k: int) -> int:
    # above the cut-off, for the bound is one of so many maxima; a power of two, for bits tell the slot
    return 1 << top_k.bit_length()


def _may_be_among(block: Block, top_k: int) -> Tensor:
    """Positions of the rows that may be among the best of their query, int64 of shape ``(kept,)``.

    The rows of a query are spread over slots. The ``top_k``-th greatest of the slots' maxima is a bound: a row that
    scores less is not among the best ``top_k``, and does not tie with one of them. A NaN is the greatest of all.
    """
    slots = _slots(top_k)
    if block.length is not None:
        preds = block.preds.view(-1, block.length)
        folded = preds[:, : block.length // slots * slots].unflatten(1, (-1, slots)).amax(1)
        bound = folded.sort(dim=1).values[:, -top_k, None]
    else:
        preds = block.preds
        slot = torch.arange(preds.numel(), device=preds.device).bitwise_and_(slots - 1).add_(block.number, alpha=slots)
        folded = preds.new_full((len(block) * slots,), -torch.inf).scatter_reduce_(0, slot, preds, "amax")
        bound = folded.view(-1, slots).sort(dim=1).values[:, -top_k].index_select(0, block.number)
    below: Tensor = preds < bound
    return below.logical_not_().view(-1).nonzero().view(-1)


def _sort(number: Tensor, preds: Tensor) -> tuple[Tensor, Tensor]:
    """Positions by query and then by score from high to low, and whether each row ties with the next."""
    if preds.dtype == torch.float32:
        key, order = sort_key(number, preds).sort(stable=True)
        return order, key[1:] == key[:-1]
    by_score = preds.argsort(descending=True, stable=True)
    number, order = number.index_select(0, by_score).sort(stable=True)
    order = by_score.index_select(0, order)
    preds = preds.index_select(0, order)
    equal = (preds[1:] == preds[:-1]) | (preds[1:].isnan() & preds[:-1].isnan())
    return order, equal & (number[1:] == number[:-1])


def sort_key(number: Tensor, preds: Tensor) -> Tensor:
    """One integer a row whose ascending order is by query and then by score from high to low.

    Args:
        number: Numbers from 0 to 2**31 - 1, int64 of shape ``(rows,)``.
        preds: Scores, float32 of shape ``(rows,)``. NaN is the greatest, and zero has no sign.

    Returns:
        Int64 of shape ``(rows,)``, equal for equal scores of one query.
    """
    scores = preds + 0.0
    missing = scores.isnan()
    if bool(missing.any()):
        scores = scores.masked_fill_(missing, torch.nan)
    bits = scores.view(torch.int32)
    # as integers the bits of positive floats ascend and those of negative ones descend
    bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))
    return bits.long().neg_().add_(number, alpha=1 << 32).add_(1 << 31)


def rank_as_torchmetrics(block: Block, top_k: int | None) -> Ranked:
    """Rank the rows of a block by the operation that torchmetrics uses, which settles the order of equal scores.

    Args:
        block: The rows, query by query.
        top_k: The ``k`` of the ``topk`` that torchmetrics calls; ``None`` where it calls ``argsort``.
    """
    sizes = block.sizes if top_k is None else block.sizes.clamp(max=top_k)
    starts = sizes.cumsum(0) - sizes
    begins = block.sizes.cumsum(0) - block.sizes
    order = torch.empty(int(sizes.sum()), dtype=torch.int64, device=sizes.device)
    for length in block.sizes.unique().tolist():
        queries = (block.sizes == length).nonzero().view(-1)
        rows = begins[queries][:, None] + torch.arange(length, device=sizes.device)
        preds = block.preds[rows]
        if top_k is None:
            best = preds.argsort(dim=-1, descending=True)
        else:
            best = preds.topk(min(top_k, length), sorted=True, dim=-1).indices
        order[starts[queries][:, None] + torch.arange(best.shape[1], device=sizes.device)] = rows.gather(1, best)
    return Ranked(block, order, starts, torch.zeros_like(order[1:], dtype=torch.bool))
