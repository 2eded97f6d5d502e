"""LRG202 synced-twice

## What it flags
The value of a metric that has combined all ranks in `compute()`, logged with `sync_dist=True`.

## Why it is wrong
With `reduce_fx="sum"` the value is added up once for each rank, so it is too large by the number of ranks. With a mean
nothing changes, because the mean of equal numbers is that number. The finding is then a note. Lightning recommends
`sync_dist=True` for values of an epoch: that is right for a plain value, and not needed for a metric.

## Example
    self.log("val_recall", self.recall.compute(), sync_dist=True, reduce_fx="sum")

## Use instead
    self.log("val_recall", self.recall)

## What correct mode does
It logs the value once. A sum over the values of several steps stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.report.text import several
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, effect_of

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView


class SyncedTwice(Rule):
    """A value that combines all ranks already is reduced over the ranks again."""

    spec = RuleSpec(
        "LRG202",
        "synced-twice",
        Severity.ERROR,
        "Drop sync_dist and reduce_fx, or log the metric.",
        corrects="value",
        scales_by_ranks=True,
        static=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            first = key.first
            if first.kind != "compute" or not first.synced or not key.is_reduced:
                continue
            if first.reduction == "sum":
                message = (
                    f"'{first.name}' combines all ranks already, and sync_dist=True with reduce_fx='sum' adds it up"
                    f" once for each of {several(epoch.world_size, 'rank')}."
                )
                effect = effect_of(epoch, key) if not first.in_step else None
                yield self.at_key(epoch, key, message, effect=effect)
            elif first.reduction == "mean":
                message = f"'{first.name}' combines all ranks already; sync_dist=True averages equal numbers."
                yield self.at_key(epoch, key, message, fix="Drop sync_dist.", severity=Severity.NOTE)
