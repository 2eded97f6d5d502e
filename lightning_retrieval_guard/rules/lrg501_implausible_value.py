"""LRG501 implausible-value

## What it flags
Logged values of retrieval metrics that cannot all be right, where no other rule says why. A value is below 0, above 1
or NaN. Recall or hit rate falls as `top_k` grows, over the same rows. MRR, recall, hit rate and precision at `top_k=1`
differ although each query has exactly one relevant row. Not compared are ties, scores of zero and less, curves, metrics
with a formula of their own, other aggregations than the mean, and values with other weights.

## Why it is wrong
These laws hold for every data set. Where one is broken, at least one of the numbers does not measure what its metric
is named after: it was changed after `compute()`, or weighted with nothing at all.

## Example
    recall = self.recall.compute()
    recall /= self.trainer.world_size
    self.log("val_recall", recall)

## Use instead
    self.log("val_recall", self.recall)

## What correct mode does
It looks at the corrected numbers. Strict mode raises on one device. On several it warns, because each rank has seen its
own logged values only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity, show_number
from lightning_retrieval_guard.rules.base import Rule, RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.source_view import SourceView
    from lightning_retrieval_guard.epoch.views import EpochView, KeyView
    from lightning_retrieval_guard.ranking.measures import Measure

# sums over many steps in single precision are off by about this much
_SLACK = 1e-5
_GROWING = {"recall": "recall", "hit_rate": "hit rate"}


@dataclass(frozen=True)
class _Value:
    """A number that reached the logger, and what it is said to measure."""

    key: KeyView
    source: SourceView
    measure: Measure
    number: float

    @property
    def name(self) -> str:
        return self.key.first.name

    @property
    def text(self) -> str:
        return f"'{self.name}' is {show_number(self.number)}"

    @property
    def top_k(self) -> float:
        return self.measure.top_k or math.inf

    @property
    def comparable_by(self) -> object:
        """What must be the same for two numbers to be compared: the rows, and how they became one number."""
        first, source = self.key.first, self.source
        arguments = (first.kind, first.in_step, first.sync_dist, first.rank_zero_only, first.reduction)
        weights = tuple(facts and (facts.calls, facts.weight) for facts in self.key.facts)
        return (source.plan, source.synchronises, self.measure.empty, arguments, weights)


class ImplausibleValue(Rule):
    """Values that cannot all be right."""

    spec = RuleSpec(
        "LRG501",
        "implausible-value",
        Severity.WARNING,
        "Log the metric object, or what compute() returns as it is, with batch sizes above zero.",
        follows_others=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        values = [value for key in epoch.keys for value in _values(key, epoch)]
        for value in values:
            if message := _out_of_range(value):
                yield self.at_key(epoch, value.key, message)
        for alike in _grouped(values):
            for one, other in _falling(alike):
                message = (
                    f"{other.text} and {one.text}; both show the same rows, and {_GROWING[one.measure.formula]} does"
                    f" not fall as top_k grows from {one.measure.top_k} to {other.measure.top_k or 'all rows'}."
                )
                yield self.at_key(epoch, other.key, message)
            for one, other in _unequal(alike):
                message = (
                    f"{other.text} and {one.text}; both tell whether the best row is relevant, which is one number"
                    " where each query has exactly one relevant row."
                )
                yield self.at_key(epoch, other.key, message)


def _values(key: KeyView, epoch: EpochView) -> Iterator[_Value]:
    first, source = key.first, key.source
    if source is None or {first.name, source.name} & epoch.explained:
        return
    measure = source.measure
    if measure is None or measure.formula in ("curve", "custom") or measure.aggregation != "mean":
        return
    if first.kind != "metric" and first.reduction != "mean":
        return
    number = key.reference if first.storage in epoch.corrected and key.reference is not None else key.logged
    # a value that the program wrote to may be a percentage
    if number is not None and (0 <= number <= 1 or not key.is_written):
        yield _Value(key, source, measure, number)


def _out_of_range(value: _Value) -> str | None:
    if math.isnan(value.number):
        return f"{value.text}, and {value.source.metric} is always a number."
    # graded relevance below zero makes anything of nDCG
    if value.measure.formula != "ndcg" and not -_SLACK <= value.number <= 1 + _SLACK:
        return f"{value.text}, and {value.source.metric} lies between 0 and 1."
    return None


def _grouped(values: Sequence[_Value]) -> list[list[_Value]]:
    groups: dict[object, list[_Value]] = {}
    for value in values:
        groups.setdefault(value.comparable_by, []).append(value)
    return list(groups.values())


def _falling(values: Sequence[_Value]) -> Iterator[tuple[_Value, _Value]]:
    for formula in _GROWING:
        growing = sorted((value for value in values if value.measure.formula == formula), key=lambda value: value.top_k)
        for one, other in pairwise(growing):
            if one.top_k < other.top_k and other.number < one.number - _SLACK:
                yield one, other


def _unequal(values: Sequence[_Value]) -> Iterator[tuple[_Value, _Value]]:
    """Each value that differs from the first of its kind."""
    alike = [value for value in values if value.measure.is_best_row_relevant and _has_one_answer(value)]
    for other in alike[1:]:
        if abs(other.number - alike[0].number) > _SLACK:
            yield alike[0], other


def _has_one_answer(value: _Value) -> bool:
    """Whether each query has exactly one relevant row, on all ranks together."""
    plan = value.source.plan
    is_whole = not plan.ids_restart and not plan.split
    return is_whole and all(facts.one_answer for facts in plan.with_rows)
