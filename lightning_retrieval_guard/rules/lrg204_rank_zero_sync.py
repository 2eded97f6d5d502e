"""LRG204 rank-zero-sync

## What it flags
A value logged with both `sync_dist=True` and `rank_zero_only=True`. A metric object is silent, because it combines
the ranks by itself.

## Why it is wrong
With both arguments Lightning switches the reduction off without a word, and the logger shows the value of rank 0, which
saw a part of the data only.

## Example
    self.log("val_loss", loss, sync_dist=True, rank_zero_only=True)

## Use instead
    self.log("val_loss", loss, sync_dist=True)

Code that runs on rank zero alone must not combine ranks either, because the others never arrive. Call `compute()` on
every rank, and print on one:

    recall = self.recall.compute()
    if self.trainer.is_global_zero:
        print(recall)

## What correct mode does
It logs the value over all ranks. A value that differs between ranks in an epoch-end hook stays as it is, because
nothing tells how to combine it.
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
            if stage.world_size > 1 and first.kind != "metric" and first.sync_dist and first.rank_zero_only:
                message = (
                    f"'{first.name}' is logged with sync_dist=True and rank_zero_only=True. Lightning then reduces"
                    " nothing, and the logger shows the shard of rank 0."
                )
                yield self.at_key(stage, key, message, "Drop rank_zero_only.", effect=key.effect)
