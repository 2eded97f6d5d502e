"""LRG204 rank-zero-sync

## What it flags
`sync_dist=True` together with `rank_zero_only=True`; or a metric that combines ranks, computed on rank zero alone.

## Why it is wrong
With both arguments Lightning switches the reduction off without a word. A metric that combines ranks waits in
`compute()` for ranks that never arrive.

## Example
    self.log("val_loss", loss, sync_dist=True, rank_zero_only=True)

    if self.trainer.is_global_zero:
        print(self.recall.compute())

## Use instead
    self.log("val_loss", loss, sync_dist=True)
    recall = self.recall.compute()  # on every rank

## What correct mode does
It logs the value over all ranks. The `compute()` of a metric that was updated in the steps does not wait for other
ranks; where a rank is missing, the ranks that wait raise an error that names it.
"""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule
from lightning_retrieval_guard.rules.view import StageView


class RankZeroSync(Rule):
    """A reduction that rank_zero_only switches off."""

    code = "LRG204"
    slug = "rank-zero-sync"
    severity = Severity.ERROR

    @override
    def check(self, stage: StageView) -> Iterator[Finding]:
        for key in stage.keys:
            first = key.first
            if stage.world_size > 1 and first.sync_dist and first.rank_zero_only:
                message = (
                    f"'{first.name}' is logged with sync_dist=True and rank_zero_only=True. Lightning then reduces nothing,"
                    " and the logger shows the shard of rank 0."
                )
                yield self.at_key(stage, key, message, "Drop rank_zero_only.", effect=key.effect)
