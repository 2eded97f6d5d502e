"""Values of queries: scored once for all metrics that saw their rows, passed on, and made one number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard.ranking import Measure, Rows, aggregate, measure_of, score
from lightning_retrieval_guard.ranking.score import EmptyQueryError, Scores

# in the place of a count, which is never negative
_FAILED = -1
_HALF = 32  # bits of a word
_HEAD_WORDS = 4


@dataclass(frozen=True)
class Tally:
    """How many queries have a value that something other than the scores decides.

    Attributes:
        queries: All queries that count.
        tied: Queries whose value depends on the order of rows with equal scores.
        non_positive: Queries whose value would be another one if relevant rows with a score of zero or less counted.
        shift: The sum of what these values would be more.
        twice: The sum of what the values of queries whose sample the sampler repeated would be more, had their rows
            counted twice; NaN where that is not known.
    """

    queries: int = 0
    tied: int = 0
    non_positive: int = 0
    shift: float = 0.0
    twice: float = 0.0

    @classmethod
    def together(cls, parts: Sequence[Tally]) -> Tally:
        """Several as one."""
        names = ("queries", "tied", "non_positive", "shift", "twice")
        return cls(*(sum(getattr(part, name) for part in parts) for name in names))


@dataclass(frozen=True)
class MetricOutcome:
    """The value of one metric over all ranks.

    Attributes:
        value: A number, for a curve a tuple of tensors; ``None`` where there was nothing to score or scoring failed.
        error: What scoring raised, on this rank or another.
        by_chance: Whether it depends on the order of rows with equal scores, and that order may not be torchmetrics'.
        tally: What decides the values of queries.
    """

    value: Any = None
    error: Exception | None = None
    by_chance: bool = False
    tally: Tally = Tally()


@dataclass(frozen=True)
class Values:
    """What one metric made of some queries.

    Attributes:
        values: float64 of shape ``(queries, width)``: one column, or those of a curve.
        position: Which of the queries each value belongs to, int64 of shape ``(queries,)``.
        error: What scoring raised instead.
        decided_by_ties: How many of the values depend on the order of rows with equal scores.
        by_score: What the values would be if rows with a score of zero or less counted like any other; ``None`` where
            that is the same.
    """

    values: Tensor
    position: Tensor
    error: Exception | None = None
    decided_by_ties: int = 0
    by_score: Tensor | None = None

    def of(self, queries: Tensor) -> Values:
        """The values of the queries that a boolean mask selects."""
        chosen = queries[self.position]
        by_score = None if self.by_score is None else self.by_score[chosen]
        return replace(self, values=self.values[chosen], position=self.position[chosen], by_score=by_score)

    @property
    def tally(self) -> Tally:
        """What decides the values."""
        more = torch.zeros(0) if self.by_score is None else self.by_score - self.values
        return Tally(self.position.numel(), self.decided_by_ties, int((more != 0).sum()), float(more.sum()))


def join_values(parts: Sequence[Values], starts: Sequence[int]) -> Values:
    """Values of several sets of queries, the positions of each set counted on from its start."""
    error = next((part.error for part in parts if part.error is not None), None)
    if error is not None:
        return Values(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), error)
    full = [part for part in parts if part.position.numel()]
    values = torch.cat([part.values.double() for part in full]) if full else parts[0].values
    position = torch.cat([part.position + start for part, start in zip(parts, starts, strict=False)])
    by_score = None
    if any(part.by_score is not None for part in full):
        by_score = torch.cat([(part.values if part.by_score is None else part.by_score).double() for part in full])
    return Values(values, position, None, sum(part.decided_by_ties for part in parts), by_score)


class MetricScorer:
    """The metrics that saw the same rows.

    Args:
        metrics: By name; ``None`` where this rank has no such metric.
        longest: The most rows that any query can have, over all ranks: how long a curve without a cut-off can be.
    """

    def __init__(self, metrics: Mapping[str, Metric | None], longest: int) -> None:
        measures = {name: measure_of(metric) for name, metric in metrics.items() if metric is not None}
        self._as_given = {name: measure for name, measure in measures.items() if measure is not None}
        self.measures = {name: _with_length(measure, longest) for name, measure in self._as_given.items()}

    def score(self, query: Tensor, preds: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Values]]:
        """The queries in ascending order, and what each metric makes of them.

        Args:
            query: Numbers of the queries, int64 or int32 of shape ``(rows,)``.
            preds: Scores of shape ``(rows,)``.
            target: Relevance of shape ``(rows,)``.
        """
        rows = Rows(query, preds, target)
        measures = list(self.measures.values())
        others = [replace(measure, by_score=True) for measure in measures if measure.needs_positive_score]
        # metrics that ask the same are scored once more together
        others = list(dict.fromkeys(others)) if others and _has_non_positive_hits(preds, target) else []
        try:
            # rows are grouped and ranked once for all metrics
            ids, scores = score([*measures, *others], rows)
        except Exception as error:
            if not any(_may_raise(measure, error) for measure in measures):
                raise
            # the code or the demand of one metric, which must not take the others with it
            return query.unique().long().cpu(), self._score_each(rows)
        values, other_values = map(values_of, scores[: len(measures)]), map(values_of, scores[len(measures) :])
        by_score = {measure: entry.values for measure, entry in zip(others, other_values, strict=True)}
        return ids.cpu(), {
            name: replace(entry, by_score=by_score.get(replace(measure, by_score=True)))
            for (name, measure), entry in zip(self.measures.items(), values, strict=True)
        }

    def _score_each(self, rows: Rows) -> dict[str, Values]:
        def score_one(measure: Measure) -> Values:
            try:
                return values_of(score([measure], rows)[1][0])
            except Exception as error:
                if not _may_raise(measure, error):
                    raise
                # it belongs to whoever asks for this metric's value
                return Values(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), error)

        return {name: score_one(measure) for name, measure in self.measures.items()}

    def width(self, name: str) -> int:
        """The number of columns of a value."""
        return self.measures[name].columns

    def length(self, name: str, longest: int) -> int | None:
        """How long a curve is once the most rows of any query are known; ``None`` for what is no curve."""
        measure = self._as_given[name]
        return measure.top_k or longest if measure.formula == "curve" else None


def _may_raise(measure: Measure, error: Exception) -> bool:
    """Whether an error is one of the metric, and not of the guard: what it demands, or what its code raises."""
    return measure.formula == "custom" or isinstance(error, EmptyQueryError)


def _has_non_positive_hits(preds: Tensor, target: Tensor) -> bool:
    return bool(((preds <= 0) & (target > 0)).any())


def _with_length(measure: Measure, longest: int) -> Measure:
    return replace(measure, top_k=longest) if measure.formula == "curve" and measure.top_k is None else measure


def values_of(scores: Scores) -> Values:
    """Values with one row a query, on the CPU."""
    # added up in double precision, so that it hardly matters how the queries are dealt to ranks
    values = scores.values.double().cpu()
    rows = values.reshape(values.shape[0], math.prod(values.shape[1:]))
    return Values(rows, scores.position.cpu(), decided_by_ties=scores.decided_by_ties)


@dataclass(frozen=True)
class Sum:
    """Values in the form in which they travel.

    Attributes:
        numbers: For a mean the sum of the values, float64 of shape ``(1, width)``, else each of them.
        lives: The metric life of each, int64; of no meaning for a mean.
        count: How many queries they are.
        failed: Whether scoring raised.
        tally: What decides their values.
    """

    numbers: Tensor
    lives: Tensor
    count: int
    failed: bool = False
    tally: Tally = Tally()

    @classmethod
    def of(cls, values: Values | None, lives: Tensor, mean: bool, width: int) -> Sum:
        """What becomes of values; ``None`` for nothing."""
        if values is None or values.error is not None:
            return replace(cls.nothing(mean, width), failed=values is not None)
        count = values.position.numel()
        if not count:
            return cls.nothing(mean, width)
        if mean:
            summed = values.values.sum(dim=0, keepdim=True)
            return replace(cls.nothing(mean, width), numbers=summed, count=count, tally=values.tally)
        return cls(values.values, lives[values.position], count, tally=values.tally)

    @classmethod
    def nothing(cls, mean: bool, width: int) -> Sum:
        """No query."""
        rows = int(mean)
        return cls(torch.zeros(rows, width, dtype=torch.float64), torch.zeros(rows, dtype=torch.int64), 0)

    @classmethod
    def join(cls, parts: Sequence[Sum], mean: bool, width: int) -> Sum:
        """Several as one."""
        numbers = torch.cat([cls.nothing(mean, width).numbers, *(part.numbers for part in parts)])
        lives = torch.cat([cls.nothing(mean, width).lives, *(part.lives for part in parts)])
        count, failed = sum(part.count for part in parts), any(part.failed for part in parts)
        tally = Tally.together([part.tally for part in parts])
        if mean:
            return cls(numbers.sum(dim=0, keepdim=True), lives[:1], count, failed, tally)
        return cls(numbers, lives, count, failed, tally)

    def pack(self, mean: bool, limit: int) -> Tensor:
        """As int64 words in the size that ``words`` gives."""
        # one word for two counts, each below 2**32
        counts = [_FAILED if self.failed else self.count | self.tally.tied << _HALF, self.tally.non_positive]
        sums = torch.tensor([self.tally.shift, self.tally.twice], dtype=torch.float64)
        head = torch.cat([torch.tensor(counts), sums.view(torch.int64)])
        numbers = self.numbers.contiguous().view(torch.int64)
        if mean:
            return torch.cat([head, numbers.reshape(-1)])
        # every rank expects this many, also where empty queries were skipped
        body = torch.zeros(limit, numbers.shape[1] + 1, dtype=torch.int64)
        body[: self.count, :-1], body[: self.count, -1] = numbers, self.lives
        return torch.cat([head, body.reshape(-1)])

    @classmethod
    def unpack(cls, words: Tensor, mean: bool, width: int) -> Sum:
        """Read what ``pack`` wrote."""
        first, non_positive = words[:2].tolist()
        count, tied = (0, 0) if first == _FAILED else (first & ((1 << _HALF) - 1), first >> _HALF)
        shift, twice = words[2:_HEAD_WORDS].view(torch.float64).tolist()
        rest = words[_HEAD_WORDS:]
        if mean:
            numbers, lives = rest.reshape(1, width), torch.zeros(1, dtype=torch.int64)
        else:
            body = rest.reshape(-1, width + 1)[:count]
            numbers, lives = body[:, :-1], body[:, -1]
        tally = Tally(count, tied, non_positive, shift, twice)
        return cls(numbers.contiguous().view(torch.float64), lives, count, first == _FAILED, tally)

    @staticmethod
    def words(mean: bool, width: int, limit: int) -> int:
        """The number of words that travel for at most ``limit`` queries."""
        return _HEAD_WORDS + (width if mean else limit * (width + 1))


def total(measure: Measure | None, sums: Sequence[Sum], mean: bool, length: int | None) -> Any:
    """One value from those of all ranks.

    Args:
        measure: Says how to aggregate; ``None`` where this rank does not have the metric and can only add up.
        sums: Of every rank.
        mean: Whether the sums are those of a mean.
        length: How long a curve is; ``None`` for what is no curve.
    """
    count = sum(rank_sum.count for rank_sum in sums)
    numbers = torch.cat([rank_sum.numbers for rank_sum in sums])
    if mean:
        numbers = numbers.sum(dim=0, keepdim=True) / count if count else numbers[:0]
        if measure is None:
            return (float(numbers) if count else 0.0) if numbers.shape[1] == 1 else None
    if measure is None:
        return None
    # a curve travels as long as it can be, and is cut to the longest query
    values = numbers[:, 0] if length is None else numbers.reshape(len(numbers), 2, numbers.shape[1] // 2)[:, :, :length]
    lives = torch.cat([rank_sum.lives for rank_sum in sums])
    return aggregate(measure, values) if mean else _by_lives(measure, values, lives)


def _by_lives(measure: Measure, values: Tensor, lives: Tensor) -> Any:
    """An aggregation within each metric life; several lives are averaged by their numbers of queries."""
    if measure.formula == "curve" or not lives.numel() or bool((lives == lives[0]).all()):
        return aggregate(measure, values)
    counts = {int(life): int((lives == life).sum()) for life in lives.unique()}
    parts = [cast(float, aggregate(measure, values[lives == life])) * count for life, count in counts.items()]
    return sum(parts) / sum(counts.values())
