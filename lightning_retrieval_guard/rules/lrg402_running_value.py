"""LRG402 running-value

## What it flags
`compute()` of a metric that grows over the epoch, logged in every step. Lightning then averages the values of the
metric after one batch, after two, after three.

## Why it is wrong
Only the last of these values is that of the epoch. The mean counts the first batches again and again. It changes with
the order of the data and the number of batches. Where the metric combines ranks, all ranks also wait for each other in
every step.

## Example
    def validation_step(self, batch, batch_idx):
        scores, target, ids = self.rank(batch)
        self.recall.update(scores, target, indexes=ids)
        self.log("val_recall", self.recall.compute())

## Use instead
    def validation_step(self, batch, batch_idx):
        scores, target, ids = self.rank(batch)
        self.recall.update(scores, target, indexes=ids)
        self.log("val_recall", self.recall)

## What correct mode does
It logs the value of the metric over the whole epoch, as if the metric object had been logged. A metric of another kind
is computed where it holds exactly the rows of this epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, effect_of

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView


class RunningValue(Rule):
    """The value of a growing metric is logged in every step."""

    spec = RuleSpec(
        "LRG402",
        "running-value",
        Severity.ERROR,
        "Log the metric object in the step, or compute() once at the end of the epoch.",
        corrects="value",
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            if key.shows_running and key.is_shared:
                metric = key.source.metric if key.source is not None else key.first.metric
                message = (
                    f"'{key.first.name}' is the mean of {key.first.calls} running values: {metric} goes on growing"
                    " while its compute() is logged in every step."
                )
                yield self.at_key(epoch, key, message, effect=effect_of(epoch, key))
