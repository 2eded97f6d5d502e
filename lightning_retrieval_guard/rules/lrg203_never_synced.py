"""LRG203 never-synced

## What it flags
The epoch value of a key that differs between ranks because nothing combines it: the value of `forward()` or a plain
value without `sync_dist`, or the `compute()` of a metric that was built with `sync_on_compute=False`. A value that is
the same on all ranks is silent.

## Why it is wrong
Loggers, checkpoints and progress bars show the value of rank 0 only, which is the value of 1/W of the data; every rank
decides about early stopping by a number of its own.

## Example
    self.log("val_recall", self.recall(scores, target, indexes=ids))

## Use instead
    self.recall.update(scores, target, indexes=ids)
    self.log("val_recall", self.recall)

## What correct mode does
It logs the value over all ranks. Where a plain value is logged in an epoch-end hook, nothing tells how it must be
combined, and it stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, monitored_note, several
from lightning_retrieval_guard.rules.view import KeyView, StageView


class NeverSynced(Rule):
    """A value of this rank alone is logged as the value of the epoch."""

    code = "LRG203"
    slug = "never-synced"
    severity = Severity.ERROR

    @override
    def check(self, stage: StageView) -> Iterator[Finding]:
        for key in stage.keys:
            if key.is_shared and _shows_one_rank(key):
                message = (
                    f"'{key.first.name}' is a rank's own value, never combined over {several(stage.world_size, 'rank')}: the"
                    f" logger shows the shard of rank 0.{monitored_note(stage, key)}"
                )
                yield self.at_key(stage, key, message, _fix(key), effect=key.effect)


def _shows_one_rank(key: KeyView) -> bool:
    first, source = key.first, key.source
    if first.sync_dist or key.world_size == 1:
        return False
    if source is not None and first.kind != "forward" and source.synchronises:
        return False
    if source is not None and (first.kind == "metric" or key.replaced):
        return not source.plan.gathered and source.plan.has_rows
    if first.value is None or first.synced:
        return False
    return len(key.present) == key.world_size and not key.ranks_agree


def _fix(key: KeyView) -> str:
    if key.source is not None:
        return "Log the metric object, built with sync_on_compute=True."
    return "Pass sync_dist=True."
