"""LRG206 keys-differ

## What it flags
Keys that Lightning combines over ranks, and that the ranks logged in different orders, or not all of them logged.

## Why it is wrong
Lightning pairs the reductions by the order in which each rank first logged its keys; no name travels with them. With
a=0.1 and b=0.9 in opposite order on two ranks, both come out as 0.5. A key that one rank misses makes the others wait,
or shifts every later key by one.

## Example
    for name in set(values):
        self.log(name, values[name], sync_dist=True)

## Use instead
    for name in sorted(values):
        self.log(name, values[name], sync_dist=True)

## What correct mode does
It puts the keys in the same order on every rank. A key that a rank misses raises an error on every rank, which names
the key and the ranks that miss it.
"""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, listed
from lightning_retrieval_guard.rules.view import StageView, orders_that_meet


class KeysDiffer(Rule):
    """Ranks logged different keys, or in another order."""

    code = "LRG206"
    slug = "keys-differ"
    severity = Severity.ERROR
    before_reduction = True

    @override
    def check(self, stage: StageView) -> Iterator[Finding]:
        orders = orders_that_meet(stage.orders, stage.batches)
        if len({tuple(order) for order in orders}) <= 1:
            return
        for key in stage.keys:
            holders = [rank for rank, own in enumerate(key.facts) if own is not None]
            absent = [rank for rank in range(stage.world_size) if rank not in holders and stage.batches[rank]]
            storage = key.first.storage
            places = {order.index(storage) for order in orders if storage in order}
            if places and (absent or len(places) > 1):
                what = f"was not logged on {listed(absent)}" if absent else "was logged in another order on the ranks"
                message = (
                    f"'{key.first.name}' {what}; Lightning pairs the reductions of the ranks by their order alone."
                )
                fix = "Log the same keys in the same order on every rank."
                yield self.at_key(stage, key, message, fix, effect=None if absent else key.order_effect, ranks=holders)
