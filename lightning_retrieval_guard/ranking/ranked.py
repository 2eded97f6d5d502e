"""Rows in order of arrival, and blocks of whole queries with their rows ranked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking.numbering import CHUNK

# Rows that are sorted at once: such blocks fit the cache.
BLOCK = 1 << 18


@dataclass(frozen=True)
class Rows:
    """Rows in order of arrival.

    Attributes:
        query: Query ids, int64 or int32 of shape ``(rows,)``.
        preds: Scores, float32 or float64 of the same shape.
        target: Relevance, int8, int32, int64 or floating point of the same shape; int8 for nothing but 0 and 1.
        binary: Whether every relevance is 0 or 1.
        arrival: Where each row stood in the input, or ``None`` where the rows stand as they came.
    """

    query: Tensor
    preds: Tensor
    target: Tensor
    binary: bool
    arrival: Tensor | None = None

    def __len__(self) -> int:
        return self.query.numel()

    def relevance_at(self, place: Tensor) -> Tensor:
        """Relevance of the rows at some places, in a dtype in which one may reckon."""
        relevance = self.target.index_select(0, place)
        return relevance.int() if relevance.dtype == torch.int8 else relevance


@dataclass(frozen=True)
class Ranked:
    """Some whole queries, in ascending order of query id, with their rows ranked.

    Attributes:
        query: The ids, int64 of shape ``(queries,)``.
        sizes: The number of rows of each query, ranked here or not, int64 of shape ``(queries,)``.
        relevance: The sum of the relevance over all of them, float64 of shape ``(queries,)``.
        of_row: The place in ``query`` of the query of each ranked row, int64 of shape ``(ranked,)``.
        starts: Where the ranked rows of each query begin, and the end, int64 of shape ``(queries + 1,)``.
        place: Which of ``rows`` the ranked rows are: by query, then by score from high to low, equal scores in order
            of arrival; int64 of shape ``(ranked,)``.
        target: Their relevance, of the same shape.
        same: Whether a ranked row and the next one are of one query and equal in score, of shape ``(ranked - 1,)``.
        longest: The number of rows of the longest query, over all blocks.
        rows: All rows, of this block or not.
        ranks: Where only relevant rows were ranked: their ranks within their query, from 0, int64 of shape
            ``(ranked,)``. None of them then ties with another row, and every score is a number.
        complete: ``None`` where every row of the queries is ranked. Else the rows below the cut-off are missing, and
            this finds all rows of the queries in a mask of shape ``(queries,)``: their places in order of arrival,
            and the place in ``query`` of their query.
    """

    query: Tensor
    sizes: Tensor
    relevance: Tensor
    of_row: Tensor
    starts: Tensor
    place: Tensor
    target: Tensor
    same: Tensor
    longest: int
    rows: Rows
    ranks: Tensor | None = None
    complete: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def __len__(self) -> int:
        return self.query.numel()

    @cached_property
    def order(self) -> Tensor:
        """Positions of the ranked rows in the input, int64 of shape ``(ranked,)``."""
        arrival = self.rows.arrival
        return self.place if arrival is None else arrival.index_select(0, self.place)

    @cached_property
    def preds(self) -> Tensor:
        """Scores of the ranked rows, of shape ``(ranked,)``."""
        return self.rows.preds.index_select(0, self.place)

    @cached_property
    def rank(self) -> Tensor:
        """Ranks of the ranked rows within their query, from 0, int64 of shape ``(ranked,)``."""
        return self.rank_at(torch.arange(self.of_row.numel(), device=self.of_row.device))

    @cached_property
    def has_ties(self) -> bool:
        """Whether any two ranked rows of a query are equal in score."""
        return bool(self.same.any())

    @cached_property
    def has_nan(self) -> Tensor:
        """Queries with a score that is no number, bool of shape ``(queries,)``; such a score ranks first."""
        if self.ranks is not None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.query.device)
        first = self.place.index_select(0, self.starts[:-1])
        return self.rows.preds.index_select(0, first).isnan()

    def rank_at(self, index: Tensor) -> Tensor:
        """Ranks of the ranked rows at ``index``, int64 of the same shape."""
        if self.ranks is not None:
            return self.ranks.index_select(0, index)
        return index - self.starts.index_select(0, self.of_row.index_select(0, index))

    def all_rows(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """All rows of some queries, ranked here or not.

        Args:
            queries: Which ones, bool of shape ``(queries,)``.

        Returns:
            Places in ``rows`` and places in ``query``, both int64 of shape ``(found,)``, by query and then in order
            of arrival.
        """
        if self.complete is not None:
            place, of_row = self.complete(queries)
        else:
            chosen = queries.index_select(0, self.of_row).nonzero().view(-1)
            place, arrived = self.place.index_select(0, chosen).sort()
            of_row = self.of_row.index_select(0, chosen.index_select(0, arrived))
        of_row, grouped = of_row.sort(stable=True)
        return place.index_select(0, grouped), of_row


def is_binary(target: Tensor) -> bool:
    """Whether every relevance is 0 or 1.

    Args:
        target: Integer, bool or floating point of shape ``(rows,)``.
    """
    if target.dtype == torch.bool or not target.numel():
        return True
    low, high = target.aminmax()
    if not bool((low >= 0) & (high <= 1)):
        return False
    return not target.is_floating_point() or all(bool((part == part.round()).all()) for part in target.split(CHUNK))


def sort_key(number: Tensor, preds: Tensor) -> Tensor:
    """One integer a row whose ascending order is by query and then by score from high to low.

    Args:
        number: Numbers from 0 to 2**31 - 1, int64 of shape ``(rows,)``.
        preds: Scores, float32 of shape ``(rows,)``. Values that are no number are the greatest, and zero has no sign.
    """
    scores = preds + 0.0
    missing = scores.isnan()
    if bool(missing.any()):
        scores = scores.masked_fill_(missing, torch.nan)
    bits = scores.view(torch.int32)
    # As integers the bits of positive floats ascend and those of negative ones descend.
    descending = bits.bitwise_xor((bits >> 31) & 0x7FFFFFFF).bitwise_not_()
    return (number << 32).add_(descending).add_(1 << 31)


def sort_rows(number: Tensor, preds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ranked order of the rows, their numbers in that order, and whether each is tied with the next."""
    if preds.dtype == torch.float32:
        key, order = sort_key(number, preds).sort(stable=True)
        return order, key >> 32, key[1:] == key[:-1]
    by_score = preds.argsort(descending=True, stable=True)
    of_row, order = number.index_select(0, by_score).sort(stable=True)
    order = by_score.index_select(0, order)
    scores = preds.index_select(0, order)
    equal = (scores[1:] == scores[:-1]) | (scores[1:].isnan() & scores[:-1].isnan())
    return order, of_row, equal & (of_row[1:] == of_row[:-1])


def starts_of(of_row: Tensor, queries: int) -> Tensor:
    """Where the rows of each query begin, and the end, int64 of shape ``(queries + 1,)``; rows stand by query."""
    ends = torch.zeros(queries + 1, dtype=torch.int64, device=of_row.device)
    ends.scatter_add_(0, of_row + 1, torch.ones_like(of_row))
    return ends.cumsum_(0)
