"""LRG204 rank-zero-sync

## What it flags
A value logged with both `sync_dist=True` and `rank_zero_only=True`. Also `compute()` of a metric that combines ranks,
called on rank zero alone. A metric object that is logged is not reported, because it combines the ranks by itself.

## Why it is wrong
With both arguments Lightning switches the reduction off and does not say so. The logger shows the value of rank 0,
which saw only its part of the data. A metric that combines ranks waits in `compute()` for ranks that never arrive, so
the run hangs until a time-out ends it.

## Example
    self.log("val_loss", loss, sync_dist=True, rank_zero_only=True)

    if self.trainer.is_global_zero:
        print(self.recall.compute())

## Use instead
    self.log("val_loss", loss, sync_dist=True)

    recall = self.recall.compute()
    if self.trainer.is_global_zero:
        print(recall)

## What correct mode does
It logs the value over all ranks, and `compute()` on rank zero returns it without waiting. A value that differs between
ranks in an epoch-end hook stays as it is. Where only rank zero has the rows, all ranks raise an error that names the
metric. Strict mode raises it when the guard's time-out is over; in warn mode the guard is disabled then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, effect_of, listed

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView


class RankZeroSync(Rule):
    """A reduction that rank_zero_only switches off."""

    spec = RuleSpec(
        "LRG204",
        "rank-zero-sync",
        Severity.ERROR,
        "Drop rank_zero_only.",
        corrects="value",
        static=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            first = key.first
            if epoch.world_size > 1 and first.kind != "metric" and first.sync_dist and first.rank_zero_only:
                message = (
                    f"'{first.name}' is logged with sync_dist=True and rank_zero_only=True. Lightning then reduces"
                    " nothing, and the logger shows the shard of rank 0."
                )
                yield self.at_key(epoch, key, message, effect=effect_of(epoch, key))
        for call in epoch.computed_alone:
            ranks = listed(call.ranks)
            came = "it" if len(call.ranks) == 1 else "them"
            message = (
                f"compute() of {call.name} combines all ranks, but only {ranks} called it."
                f" Without the guard {came} would wait for the others."
            )
            yield self.at_call(epoch, call, call.name, message, fix="Call it on every rank.")


def describe_lone_compute(metrics: Mapping[int, str]) -> str:
    """What to say where only some ranks compute a metric that combines all of them; the metrics by rank."""
    names = ", ".join(sorted(set(metrics.values())))
    spec = RankZeroSync.spec
    return (
        f"{spec.code} {spec.slug}: compute() of {names} combines all ranks, but only rank(s)"
        f" {', '.join(map(str, metrics))} called it; the others never arrive. Call it on every rank."
    )
