"""Leaving out rows that no measure looks at, without changing any value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking.measures import Measure
from lightning_retrieval_guard.ranking.ranked import Ranked, is_binary
from lightning_retrieval_guard.ranking.ranking import rank_rows


@dataclass(frozen=True)
class Lost:
    """What is gone with the rows that were left out.

    Attributes:
        query: Query ids, int64 of shape ``(entries,)``; an id may stand in several entries.
        rows: Numbers of rows, int64 of the same shape.
        relevance: Sums of their relevance, float64 of the same shape.
    """

    query: Tensor
    rows: Tensor
    relevance: Tensor

    @classmethod
    def together(cls, parts: Sequence[Lost]) -> Lost:
        """What several sources left out of their rows."""
        fields = ([getattr(part, name) for part in parts] for name in ("query", "rows", "relevance"))
        return cls(*(torch.cat(values) for values in fields))

    def add_to(self, ranked: Ranked) -> Ranked:
        """A block of kept rows with the totals of all rows."""
        place = torch.searchsorted(ranked.query, self.query).clamp(max=len(ranked) - 1)
        own = ranked.query.index_select(0, place) == self.query
        place = place[own]
        sizes = ranked.sizes.index_add(0, place, self.rows[own])
        return replace(ranked, sizes=sizes, relevance=ranked.relevance.index_add(0, place, self.relevance[own]))


def can_compact(measures: Sequence[Measure], preds: Tensor, target: Tensor) -> bool:
    """Whether rows can be left out for all of some measures.

    Every measure needs a cut-off, so R-precision and formulas of the user's own never can. Relevance has to be 0 or
    1, so that the ideal gain follows from a count, and every score a number. Where rows come from several sources,
    this must hold for each of them.

    Args:
        measures: What the rows will be scored by.
        preds: Scores, floating point of shape ``(rows,)``.
        target: Relevance of the same shape.
    """
    known = all(measure.top_k is not None and measure.formula != "own" for measure in measures)
    return known and is_binary(target) and not bool(preds.isnan().any())


def compact(query: Tensor, preds: Tensor, target: Tensor, top_k: int) -> tuple[Tensor, Lost]:
    """Choose the rows that rank within a cut-off, with all that tie with the last of them.

    A compacted part holds every row that can be among the top k of the whole, so parts of the same query from
    several sources can be joined, and compacted again. Only where rows with equal scores decide a value can the
    choice among them differ from the one that torchmetrics makes in the whole list.

    Args:
        query: Query ids, int64 of shape ``(rows,)``.
        preds: Scores, floating point of the same shape.
        target: Relevance, each 0 or 1, of the same shape.
        top_k: The largest cut-off of the measures.

    Returns:
        Positions of the rows to keep, int64 of shape ``(kept,)``, ascending, and what is lost with the others.
    """
    kept, lost = [query.new_zeros(0)], [Lost(query.new_zeros(0), query.new_zeros(0), preds.new_zeros(0).double())]
    for ranked in rank_rows(query, preds, target, top_k=top_k):
        keeps = _keeps(ranked, top_k)
        kept.append(ranked.order[keeps])
        lost.append(_lost(ranked, keeps))
    return torch.cat(kept).sort().values, Lost.together(lost)


def _keeps(ranked: Ranked, top_k: int) -> Tensor:
    """Which ranked rows score at least as much as the last within the cut-off, bool of shape ``(ranked,)``."""
    last = torch.minimum(ranked.starts[:-1] + top_k, ranked.starts[1:]) - 1
    bound = ranked.preds.index_select(0, last)
    return ~(ranked.preds < bound.index_select(0, ranked.of_row))


def _lost(ranked: Ranked, keeps: Tensor) -> Lost:
    of = ranked.of_row[keeps]
    rows = ranked.sizes.index_add(0, of, of.new_full((1,), -1).expand_as(of))
    relevance = ranked.relevance.index_add(0, of, -ranked.target[keeps].double())
    some = rows > 0
    return Lost(ranked.query[some], rows[some], relevance[some])
