"""LRG205 uneven-updates

## What it flags
A retrieval metric that combines ranks, and that the ranks updated unequally often, or one of them not at all.

## Why it is wrong
torchmetrics gathers every update by itself. With unequal numbers the ranks call different numbers of collectives: gloo
aborts the run, and NCCL hangs. A rank without data raises alone and takes the others down (torchmetrics issue #3336).

## Example
    if target.any():
        self.recall.update(scores, target, indexes=ids)

## Use instead
    self.recall.update(scores, target, indexes=ids)  # empty_target_action says what such queries count

Where ranks have unequal numbers of batches, run the guard with `mode="correct"`.

## What correct mode does
It exchanges the rows that there are. A rank without rows contributes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, several
from lightning_retrieval_guard.rules.spec import RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.source_view import SourceView
    from lightning_retrieval_guard.epoch.views import EpochView


class UnevenUpdates(Rule):
    """Ranks updated a retrieval metric unequally often."""

    spec = RuleSpec(
        "LRG205",
        "uneven-updates",
        Severity.ERROR,
        "Update it equally often on every rank, or let the guard run with mode='correct'.",
        corrects="value",
        precedes_reduction=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        if not epoch.gathers_updates:
            return
        for source in epoch.sources:
            if _combines(epoch, source) and source.plan.uneven and not source.plan.replicated:
                counts = [str(own.updates) for own in source.plan.facts]
                message = (
                    f"{source.metric} {source.name!r} was updated {', '.join(counts)} times on the"
                    f" {several(epoch.world_size, 'rank')}, and torchmetrics gathers every update by itself: the ranks"
                    " wait for each other, or abort."
                )
                yield self.at_source(epoch, source, message)


def _combines(epoch: EpochView, source: SourceView) -> bool:
    """Whether the metric is going to combine ranks: it is logged itself, or nothing but its rows is known yet."""
    if not source.synchronises:
        return False
    logged = any(key.source is source and key.first.kind == "metric" for key in epoch.keys)
    return logged or not source.shown_by_forward
