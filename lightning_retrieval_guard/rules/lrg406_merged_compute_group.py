"""LRG406 merged-compute-group

## What it flags
A metric of a `MetricCollection` that shows the state of another member, although its own update would have made another
one. It is an error where rows came that one of the two leaves out. It is a warning where one has an `update()` of its
own, and a note where only a setting differs.

## Why it is wrong
A collection merges members that hold equal states after the first batch, and from then on updates only one of them.
Two metrics with another `ignore_index` are equal as long as no ignored row has come.

## Example
    self.metrics = MetricCollection({"mrr": RetrievalMRR(), "map": RetrievalMAP(ignore_index=-1)})

## Use instead
    metrics = {"mrr": RetrievalMRR(), "map": RetrievalMAP(ignore_index=-1)}
    self.metrics = MetricCollection(metrics, compute_groups=False)

## What correct mode does
Nothing: the state that the metric would have held was never made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView

_SEVERITIES = {"rows": Severity.ERROR, "update": Severity.WARNING, "setting": Severity.NOTE}


class MergedComputeGroup(Rule):
    """A MetricCollection shares the state of metrics whose updates differ."""

    spec = RuleSpec(
        "LRG406",
        "merged-compute-group",
        Severity.ERROR,
        "Pass compute_groups=False to the MetricCollection.",
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            if key.foreign.merged_how:
                message = (
                    f"'{key.first.name}' shows the state of another member of its MetricCollection, which merged them"
                    f" after the first batch: {key.foreign.merged}."
                )
                yield self.at_key(epoch, key, message, severity=_SEVERITIES[key.foreign.merged_how])
