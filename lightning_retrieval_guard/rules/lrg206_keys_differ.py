"""LRG206 keys-differ

## What it flags
Keys that Lightning combines over ranks, and that the ranks logged in different orders, or not all of them logged.

## Why it is wrong
Lightning pairs the reductions by the order in which each rank first logged its keys; no name travels with them. With
a=0.1 and b=0.9 in opposite order on two ranks, both come out as 0.5. A key that one rank misses makes the others wait,
or shifts every later key by one. A rank whose dataloader is empty skips the loop, and misses all of them.

## Example
    for name in set(values):
        self.log(name, values[name], sync_dist=True)

## Use instead
    for name in sorted(values):
        self.log(name, values[name], sync_dist=True)

## What correct mode does
It puts the keys in the same order on every rank, and goes on without a rank that has seen no batch. A key that another
rank misses raises an error on every rank, which names the key and the ranks that miss it.
"""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from lightning_retrieval_guard.epoch.views import KeyView, StageView, orders_that_meet
from lightning_retrieval_guard.findings import Effect, Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, listed


class KeysDiffer(Rule):
    """Ranks logged different keys, or in another order."""

    code = "LRG206"
    slug = "keys-differ"
    severity = Severity.ERROR
    before_reduction = True

    @override
    def check(self, stage: StageView) -> Iterator[Finding]:
        orders = orders_that_meet(stage.orders, stage.batches)
        agree = len({tuple(order) for order in orders}) <= 1
        for key in stage.keys:
            places = {order.index(key.first.storage) for order in orders if key.first.storage in order}
            missing = [rank for rank, own in enumerate(key.facts) if own is None]
            absent = [rank for rank in missing if stage.batches[rank]]
            if places and not agree and (absent or len(places) > 1):
                what = f"was not logged on {listed(absent)}" if absent else "was logged in another order on the ranks"
                message = (
                    f"'{key.first.name}' {what}; Lightning pairs the reductions of the ranks by their order alone."
                )
                fix = "Log the same keys in the same order on every rank."
                yield self._at(stage, key, message, fix, effect=None if absent else key.order_effect)
            elif places and missing and key.first.kind != "metric" and not key.corrected:  # LRG205 tells of metrics
                message = (
                    f"'{key.first.name}' was not logged on {listed(missing)}, where no batch came; Lightning's"
                    " reduction of it waits for every rank."
                )
                fix = "Give every rank a batch, or let the guard run with mode='correct'."
                yield self._at(stage, key, message, fix, effect=None)

    def _at(self, stage: StageView, key: KeyView, message: str, fix: str, effect: Effect | None) -> Finding:
        holders = [rank for rank, own in enumerate(key.facts) if own is not None]
        return self.at_key(stage, key, message, fix, effect=effect, ranks=holders)
