"""LRG205 uneven-updates

## What it flags
A retrieval metric that combines ranks, and that the ranks updated unequally often, or one of them not at all.

## Why it is wrong
torchmetrics gathers every update by itself. With unequal numbers the ranks call different numbers of collectives: gloo
aborts, NCCL hangs. A rank without data raises alone and takes the others down (torchmetrics issue #3336).

## Example
    if target.any():
        self.recall.update(scores, target, indexes=ids)

## Use instead
    self.recall.update(scores, target, indexes=ids)  # empty_target_action says what such queries count

Where ranks have unequal numbers of batches, run the guard with `mode="correct"`.

## What correct mode does
It exchanges what the ranks have. A rank without rows contributes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import SourceView
from lightning_retrieval_guard.epoch.views import StageView
from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, several


class UnevenUpdates(Rule):
    """Ranks updated a retrieval metric unequally often."""

    code = "LRG205"
    slug = "uneven-updates"
    severity = Severity.ERROR
    before_reduction = True

    @override
    def check(self, stage: StageView) -> Iterator[Finding]:
        if not _compat.UNEVEN_LISTS.shown_by("torchmetrics"):
            return
        for source in stage.sources:
            if _combines(stage, source) and source.plan.uneven and not source.plan.gathered:
                counts = [str(own.updates) for own in source.plan.facts]
                message = (
                    f"{source.metric} {source.name!r} was updated {', '.join(counts)} times on the"
                    f" {several(stage.world_size, 'rank')}, and torchmetrics gathers every update by itself: the ranks"
                    " wait for each other, or abort."
                )
                fix = "Update it equally often on every rank, or let the guard run with mode='correct'."
                yield self.at_source(stage, source, message, fix)


def _combines(stage: StageView, source: SourceView) -> bool:
    """Whether the metric is going to combine ranks: it is logged itself, or nothing but its rows is known yet."""
    if not source.synchronises:
        return False
    logged = any(key.source is source and key.first.kind == "metric" for key in stage.keys)
    return logged or not source.shown_by_forward
