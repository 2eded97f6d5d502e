"""Values of all queries for many measures at once, those of torchmetrics to the last special case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.ranking.formulas import (
    decided_by_ties,
    depends_on_rounding,
    evaluate,
    gains_cancel,
    k_of_torchmetrics,
    mixed_ties,
    rows_within,
)
from lightning_retrieval_guard.ranking.measures import Measure
from lightning_retrieval_guard.ranking.ranked import Ranked, rank, rank_as_torchmetrics
from lightning_retrieval_guard.ranking.rows import Rows, blocks_of

# A sum this much smaller than its terms may be zero in one order of adding and not in another.
_CANCELLED = 1e-4


class EmptyQueryError(ValueError):
    """A query is empty and the metric was told to raise; the text is torchmetrics'."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The values of one measure.

    Attributes:
        values: Float64 of shape ``(scored,)``, each cast to the dtype of the scores as torchmetrics does. A curve has
            values of shape ``(scored, 2, k)``, precision and recall, in the dtype of the scores.
        position: The position of the query among all ids, int64 of shape ``(scored,)``, ascending.
            ``empty_target_action="skip"`` leaves queries out.
        decided_by_ties: How many queries have a value that depends on the order of rows with equal scores.
    """

    values: Tensor
    position: Tensor
    decided_by_ties: int = 0


def score(measures: Sequence[Measure], rows: Rows) -> tuple[Tensor, list[Scores]]:
    """Score all queries of some rows.

    Args:
        measures: What to score by.
        rows: The rows.

    Returns:
        The distinct ids in ascending order, int64 of shape ``(queries,)``, and the values for each measure.

    Raises:
        EmptyQueryError: A query is empty and a measure says ``"error"``.
        TypeError: Only the metric of a measure can score some query, and the measure has none.
    """
    top_k = _largest_cut_off(measures)
    query, columns = [], []
    for block in blocks_of(rows):
        scorer = _BlockScorer(rank(block, top_k), rows.preds.dtype)
        columns.append([scorer.score(measure) for measure in measures])
        query.append(block.query)
    if not query:
        nothing = rows.query.new_zeros(0, dtype=torch.int64)
        return nothing, [Scores(_no_values(measure, rows.preds), nothing) for measure in measures]
    ids, order = torch.cat(query).sort()
    position = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    positions = position.split([part.numel() for part in query])
    return ids, [_join(parts, positions) for parts in zip(*columns, strict=True)]


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


def _largest_cut_off(measures: Sequence[Measure]) -> int | None:
    """The ``top_k`` with which rows may be ranked for all measures; ``None`` where one needs every row."""
    cuts = [measure.top_k for measure in measures if measure.top_k is not None]
    return max(cuts) if cuts and len(cuts) == len(measures) else None


def _no_values(measure: Measure, preds: Tensor) -> Tensor:
    if measure.formula == "curve":
        return preds.new_zeros(0, 2, measure.top_k or 0)
    return preds.new_zeros(0, dtype=torch.float64)


def _join(parts: Sequence[Scores], positions: Sequence[Tensor]) -> Scores:
    """The values of all blocks, given the positions of the queries of each among all ids."""
    scored = [indexes.index_select(0, part.position) for part, indexes in zip(parts, positions, strict=True)]
    position, values = torch.cat(scored), torch.cat([part.values for part in parts])
    if bool((position[1:] < position[:-1]).any()):
        position, order = position.sort()
        values = values.index_select(0, order)
    return Scores(values, position, sum(part.decided_by_ties for part in parts))


def _either(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Both sets of queries together; ``None`` is an empty one."""
    return one | other if one is not None and other is not None else other if one is None else one


class _BlockScorer:
    """Scores the queries of one block by one measure after the other."""

    def __init__(self, ranked: Ranked, dtype: torch.dtype) -> None:
        self._ranked = ranked
        self._block = ranked.block
        self._dtype = dtype
        # looked for once, however many measures follow
        self._ties = mixed_ties(ranked)
        self._position = torch.arange(len(ranked.block), device=ranked.order.device)
        self._empty: dict[bool, Tensor] = {}

    def score(self, measure: Measure) -> Scores:
        """The values of the queries, with positions in the block."""
        empty = self._are_empty(measure)
        if measure.empty == "error" and bool(empty.any()):
            missing = "negative" if measure.needs_irrelevant else "positive"
            raise EmptyQueryError(f"`compute` method was provided with a query with no {missing} target.")
        values, decided = self._values(measure, empty)
        # torchmetrics rounds the value of each query to the dtype of the scores
        values = values.to(self._dtype)
        position = self._position
        if measure.empty == "skip":
            position = (~empty).nonzero().view(-1)
            values = values.index_select(0, position)
        else:
            value = 1.0 if measure.empty == "pos" else 0.0
            values = values.masked_fill_(empty.view(-1, *[1] * (values.ndim - 1)), value)
        return Scores(values if measure.formula == "curve" else values.double(), position, decided)

    def _values(self, measure: Measure, empty: Tensor) -> tuple[Tensor, int]:
        """Values in float64, and how many of them ties decide."""
        if not self._has_formula(measure):
            return self._one_by_one(measure, ~empty), 0
        values, tied, rounded = evaluate(measure, self._ranked), self._tied(measure), self._rounded(measure)
        if tied is not None and bool(tied.any()):
            again = rank_as_torchmetrics(self._block.select(tied), k_of_torchmetrics(measure, self._ranked))
            # the formula is the same, on the order that torchmetrics' sort leaves
            values[tied] = evaluate(measure, again)
        odd = _either(rounded, self._odd(measure))
        if odd is not None and bool((odd & ~empty).any()):
            values = torch.where(odd, self._one_by_one(measure, odd & ~empty), values)
        decided = _either(tied, rounded)
        return values, 0 if decided is None else int((decided & ~empty).sum())

    def _has_formula(self, measure: Measure) -> bool:
        if measure.formula in ("ndcg", "curve"):
            return True
        if measure.formula == "custom" or not self._block.is_binary:  # 0.5 passes torchmetrics' checks
            return False
        return measure.formula != "r_precision" or not self._block.target_dtype.is_floating_point  # which it refuses

    def _tied(self, measure: Measure) -> Tensor | None:
        """Queries whose value the order of equal scores decides."""
        if self._ties is None or measure.formula == "ndcg":
            return None
        return decided_by_ties(measure, self._ranked, self._ties)

    def _rounded(self, measure: Measure) -> Tensor | None:
        """Queries whose value the last digit of a sigmoid decides, which makes equal scores of unequal ones."""
        if measure.formula != "auroc":
            return None
        return depends_on_rounding(*rows_within(measure, self._ranked), len(self._block))

    def _odd(self, measure: Measure) -> Tensor | None:
        """Queries with scores that are not numbers, and with gains that cancel."""
        if measure.formula == "auroc":
            return self._ranked.has_nan
        return self._ranked.has_nan | gains_cancel(measure, self._ranked) if measure.formula == "ndcg" else None

    def _are_empty(self, measure: Measure) -> Tensor:
        inverted = measure.needs_irrelevant
        if inverted not in self._empty:
            self._empty[inverted] = self._sum_is_zero(inverted)
        return self._empty[inverted]

    def _sum_is_zero(self, inverted: bool) -> Tensor:
        block = self._block
        sums = block.sizes - block.relevance if inverted else block.relevance
        zero = sums == 0
        if block.is_binary or not block.target.is_floating_point():
            return zero
        size = block.sums(block.number, block.target.abs().double()) + block.sizes
        # only such sums depend on the order of adding, and are added as torchmetrics adds
        unsure = (sums.abs() < _CANCELLED * size) & (size > block.sizes)
        for number, _, target in self._each(unsure):
            zero[number] = not bool((1 - target if inverted else target).sum())
        return zero

    def _one_by_one(self, measure: Measure, queries: Tensor) -> Tensor:
        """The values that the metric's code gives some queries, in the dtype of the scores, zero elsewhere."""
        values = torch.zeros(len(self._block), dtype=torch.float64, device=queries.device)
        if not isinstance(measure.metric, Metric):
            raise TypeError("A measure whose queries only its metric can score needs the metric.")
        for number, preds, target in self._each(queries):
            values[number] = _compat.query_value(measure.metric, preds, target).to(self._dtype).double()
        return values

    def _each(self, queries: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """Number, scores and relevance of some queries, in order of arrival."""
        block = self._block.select(queries)
        sizes = block.sizes.tolist()
        target = block.target.to(block.target_dtype).split(sizes)
        columns = (queries.nonzero().view(-1).tolist(), block.preds.split(sizes), target)
        return list(zip(*columns, strict=True))
