"""LRG207 sync-in-step

## What it flags
A retrieval metric that combines ranks within steps: in `compute()`, or in `forward()` with `dist_sync_on_step=True`.

## Why it is wrong
The number can be right. But in every step all ranks wait for the slowest, and torchmetrics calls nine collectives for
each update that the metric holds.

## Example
    def validation_step(self, batch, batch_idx):
        scores, target, ids = self.rank(batch)
        recall = RetrievalRecall(top_k=1)
        recall.update(scores, target, indexes=ids)
        self.log("val_recall", recall.compute())

## Use instead
    def validation_step(self, batch, batch_idx):
        scores, target, ids = self.rank(batch)
        self.recall.update(scores, target, indexes=ids)
        self.log("val_recall", self.recall)

## What correct mode does
Nothing in the step: `compute()` and `forward()` return there what they return without a guard. At the end of the epoch
it logs the value over all steps and ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.report.text import several
from lightning_retrieval_guard.rules.base import Rule, RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView


class SyncInStep(Rule):
    """A metric combines ranks in every step."""

    spec = RuleSpec(
        "LRG207",
        "sync-in-step",
        Severity.NOTE,
        "Update in the step, and log the metric object.",
        static=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            source = key.source
            if source is not None and source.synced_in_steps and epoch.world_size > 1:
                message = (
                    f"'{key.first.name}' combined {several(epoch.world_size, 'rank')} within steps"
                    f" {several(source.synced_in_steps, 'time')}; each time all ranks wait for the slowest."
                )
                yield self.at_key(epoch, key, message)
