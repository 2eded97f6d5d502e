"""Values of all queries for many measures at once, torchmetrics' own to the last special case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.ranking import ties
from lightning_retrieval_guard.ranking.compaction import Lost
from lightning_retrieval_guard.ranking.formulas import Block, discount_sums, evaluate, ideal_gain
from lightning_retrieval_guard.ranking.measures import Measure
from lightning_retrieval_guard.ranking.numbering import inverse
from lightning_retrieval_guard.ranking.ranked import Ranked
from lightning_retrieval_guard.ranking.ranking import rank_rows
from lightning_retrieval_guard.ranking.recent import RecentRanking

# A sum this much smaller than its terms may be zero in one order of adding and not in another.
_CANCELLED = 1e-4

# An ideal gain this much smaller than its terms has fewer digits in single precision than a value needs.
_ROUGH = 0.25


class EmptyQueryError(ValueError):
    """A query is empty and the metric was told to raise; the text is torchmetrics' own."""


@dataclass(frozen=True)
class Scores:
    """The values of one measure.

    Attributes:
        values: Float64 of shape ``(scored,)``, each cast to the dtype of the scores as torchmetrics does. A curve has
            values of shape ``(scored, 2, k)``, precision and recall, in the dtype of the scores.
        position: The place of the query in the ids of the block, or in all ids, int64 of shape ``(scored,)``,
            ascending. ``empty_target_action="skip"`` leaves queries out.
        decided_by_ties: How many queries have a value that depends on the order of rows with equal scores.
    """

    values: Tensor
    position: Tensor
    decided_by_ties: int = 0


def score(
    measures: Sequence[Measure],
    query: Tensor,
    preds: Tensor,
    target: Tensor,
    *,
    lost: Lost | None = None,
    recent: RecentRanking | None = None,
) -> tuple[Tensor, list[Scores]]:
    """Score all queries of some rows.

    Args:
        measures: What to score by.
        query: Query ids, int64 or int32 of shape ``(rows,)``; any values in any order.
        preds: Scores, floating point of shape ``(rows,)``.
        target: Relevance, integer, bool or floating point of shape ``(rows,)``.
        lost: What compaction left out of the rows; the measures must allow compaction.
        recent: Where other measures ranked the same rows before, and others will.

    Returns:
        The distinct ids in ascending order, int64 of shape ``(queries,)``, and the values for each measure.

    Raises:
        EmptyQueryError: A query is empty and a measure says ``"error"``.
        ValueError: The shapes of the rows differ.
    """
    ids: list[Tensor] = []
    blocks: list[list[Scores]] = []
    only_relevant = all(measure.formula not in ("auroc", "own") for measure in measures)
    rank = rank_rows if recent is None else recent.rank
    for ranked in rank(query, preds, target, top_k=largest_cut_off(measures), only_relevant=only_relevant):
        ids.append(ranked.query)
        blocks.append(score_block(measures, ranked if lost is None else lost.add_to(ranked), preds.dtype))
    if not ids:
        none = query.new_zeros(0).long()
        return none, [Scores(_no_values(measure, preds), none) for measure in measures]
    found = torch.cat(ids)
    ascend = bool((found[1:] > found[:-1]).all())
    found, order = (found, torch.arange(found.numel(), device=found.device)) if ascend else found.sort()
    place = order if ascend else inverse(order)
    return found, [
        _join(own, place, [part.numel() for part in ids], sorts=not ascend) for own in zip(*blocks, strict=True)
    ]


def largest_cut_off(measures: Sequence[Measure]) -> int | None:
    """The ``top_k`` with which rows may be ranked for some measures; ``None`` where one needs every row."""
    cuts = [measure.top_k for measure in measures]
    known = [cut for cut in cuts if cut is not None]
    return max(known) if known and len(known) == len(cuts) else None


def score_block(measures: Sequence[Measure], ranked: Ranked, dtype: torch.dtype | None = None) -> list[Scores]:
    """Score the queries of one block.

    Args:
        measures: What to score by.
        ranked: The block, ranked at least as deep as the measures look.
        dtype: The dtype of the scores as they came; by default the one in which they were ranked.

    Raises:
        EmptyQueryError: A query is empty and a measure says ``"error"``.
    """
    scorer = _Scorer(ranked, dtype or ranked.rows.preds.dtype)
    scorer.prepare(measures)
    return [scorer.scores(measure) for measure in measures]


def aggregate(
    measure: Measure, values: Tensor, dtype: torch.dtype = torch.float32
) -> float | tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]:
    """One value from the values of queries, as torchmetrics aggregates.

    Args:
        measure: Says how.
        values: As in ``Scores``, in ascending order of id where the aggregation depends on the order.
        dtype: The dtype of the scores, in which torchmetrics aggregates.

    Returns:
        A number; for a curve precision, recall and cut-offs of shape ``(k,)``, or numbers where k is 1; for the
        recall at a fixed precision that recall and its cut-off.
    """
    if measure.formula != "curve":
        if not values.numel():
            return 0.0
        return float(_compat.aggregate(values.to(dtype), measure.aggregation))
    curves = values.to(dtype)
    top_k = torch.arange(1, values.shape[2] + 1, device=values.device)
    if values.shape[0]:
        precision, recall = (_compat.aggregate_curves(curves[:, side], measure.aggregation) for side in (0, 1))
    else:
        precision, recall = curves.new_zeros(2, values.shape[2])
    if measure.min_precision is None:
        # torchmetrics returns no shape for a single number
        return (precision, recall, top_k) if len(top_k) != 1 else (precision[0], recall[0], top_k[0])
    return _compat.recall_at_precision(precision, recall, top_k, measure.min_precision)


def _no_values(measure: Measure, preds: Tensor) -> Tensor:
    if measure.formula == "curve":
        return preds.new_zeros(0, 2, measure.top_k or 0)
    return torch.zeros(0, dtype=torch.float64, device=preds.device)


def _join(parts: Sequence[Scores], place: Tensor, sizes: Sequence[int], *, sorts: bool) -> Scores:
    position = place
    if sum(part.position.numel() for part in parts) < place.numel():
        of_parts = zip(parts, place.split(list(sizes)), strict=True)
        position = torch.cat([own.index_select(0, part.position) for part, own in of_parts])
    values = torch.cat([part.values for part in parts])
    if sorts:
        position, order = position.sort()
        values = values.index_select(0, order)
    return Scores(values, position, sum(part.decided_by_ties for part in parts))


class _Scorer:
    """Scores one block by one measure after the other."""

    def __init__(self, ranked: Ranked, dtype: torch.dtype) -> None:
        self._ranked = ranked
        self._block = Block(ranked)
        self._dtype = dtype
        self._groups = ties.mixed_groups(self._block)
        self._empty: dict[bool, Tensor] = {}
        self._position = torch.arange(len(ranked), device=ranked.query.device)
        self._decided: dict[Measure, Tensor] = {}
        self._tied: dict[int | None, Tensor] = {}
        self._reranked: dict[int | None, Block] = {}

    def prepare(self, measures: Sequence[Measure]) -> None:
        """Find the queries that have to be ranked again for some measures, to do it once."""
        for measure in measures:
            if not self._has_formula(measure) or (self._groups is None and measure.formula != "auroc"):
                continue
            tied = ties.decided_by_ties(measure, self._block, self._groups) & ~self._are_empty(measure)
            if bool(tied.any()):
                kind = ties.ranking_of(measure, self._ranked)
                self._decided[measure] = tied
                self._tied[kind] = self._tied[kind] | tied if kind in self._tied else tied

    def scores(self, measure: Measure) -> Scores:
        empty = self._are_empty(measure)
        values, decided = self._values(measure, empty)
        values = values.to(self._dtype)
        position = self._position
        if measure.empty == "error" and bool(empty.any()):
            wanted = "negative" if measure.needs_irrelevant else "positive"
            raise EmptyQueryError(f"`compute` method was provided with a query with no {wanted} target.")
        if measure.empty == "skip":
            position = (~empty).nonzero().view(-1)
            values = values.index_select(0, position)
        else:
            value = 1.0 if measure.empty == "pos" else 0.0
            values = values.masked_fill(empty.view(-1, *[1] * (values.ndim - 1)), value)
        return Scores(values if measure.formula == "curve" else values.double(), position, decided)

    def _values(self, measure: Measure, empty: Tensor) -> tuple[Tensor, int]:
        if not self._has_formula(measure):
            return self._one_by_one(measure, ~empty), 0
        values = evaluate(measure, self._block)
        decided = self._decided.get(measure)
        if decided is not None:
            kind = ties.ranking_of(measure, self._ranked)
            values[self._tied[kind]] = evaluate(measure, self._rerank(kind))
        odd = self._odd(measure) if measure.formula in ("ndcg", "auroc") else None
        if odd is not None:
            values = torch.where(odd, self._one_by_one(measure, odd & ~empty), values)
        return values, 0 if decided is None else int(decided.sum())

    def _has_formula(self, measure: Measure) -> bool:
        # Relevance between 0 and 1 passes torchmetrics' checks, and R-precision takes no float relevance.
        if measure.formula == "r_precision" and self._ranked.target.is_floating_point():
            return False
        return measure.formula != "own" and (measure.formula in ("ndcg", "curve") or self._ranked.rows.binary)

    def _rerank(self, kind: int | None) -> Block:
        if kind not in self._reranked:
            self._reranked[kind] = Block(ties.rerank(self._ranked, self._tied[kind], kind), reranked=True)
        return self._reranked[kind]

    def _odd(self, measure: Measure) -> Tensor | None:
        """Queries for the metric's own code: scores that are no number, and gains that cancel."""
        odd = self._ranked.has_nan
        if measure.formula == "ndcg" and not self._ranked.rows.binary:
            sums = discount_sums(measure, self._ranked)
            of, rank, relevance = self._block.ideal
            size = self._block.sums(of, sums.diff().index_select(0, rank).double() * relevance.abs())
            odd = odd | (ideal_gain(self._block, sums).abs() < _ROUGH * size)
        return odd if bool(odd.any()) else None

    def _are_empty(self, measure: Measure) -> Tensor:
        inverted = measure.needs_irrelevant
        if inverted not in self._empty:
            ranked = self._ranked
            sums = ranked.sizes - ranked.relevance if inverted else ranked.relevance
            self._empty[inverted] = self._exactly_zero(sums, inverted=inverted)
        return self._empty[inverted]

    def _exactly_zero(self, sums: Tensor, *, inverted: bool) -> Tensor:
        zero = sums == 0
        if not self._ranked.target.is_floating_point() or self._ranked.rows.binary:
            return zero
        absolute = self._block.sums(self._ranked.of_row, self._ranked.target.abs().double()) + self._ranked.sizes
        unsure = (sums.abs() < _CANCELLED * absolute) & (absolute > self._ranked.sizes)
        for number, _, target in self._each(unsure):
            zero[number] = not bool((1 - target if inverted else target).sum())
        return zero

    def _one_by_one(self, measure: Measure, queries: Tensor) -> Tensor:
        values = torch.zeros(len(self._ranked), dtype=torch.float64, device=queries.device)
        metric = measure.metric
        if not isinstance(metric, Metric):
            raise TypeError("A measure whose queries only its metric can score needs the metric.")
        for number, preds, target in self._each(queries):
            values[number] = _compat.query_value(metric, preds, target).to(self._dtype).double()
        return values

    def _each(self, queries: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """Number, scores and relevance of some queries, in order of arrival."""
        if not bool(queries.any()):
            return []
        place, of_row = self._ranked.all_rows(queries)
        numbers, sizes = of_row.unique_consecutive(return_counts=True)
        preds = self._ranked.rows.preds.index_select(0, place).split(sizes.tolist())
        target = self._ranked.rows.relevance_at(place).split(sizes.tolist())
        return list(zip(numbers.tolist(), preds, target, strict=True))
