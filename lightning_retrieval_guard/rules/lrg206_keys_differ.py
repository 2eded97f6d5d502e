"""LRG206 keys-differ

## What it flags
Keys that Lightning combines over ranks, and that the ranks logged in different orders, or that some ranks did not log.

## Why it is wrong
Lightning pairs the reductions by the order in which each rank first logged its keys; no name travels with them. With
a=0.1 and b=0.9 in opposite order on two ranks, both are logged as 0.5. A key that one rank misses makes the others
wait, or shifts every later key by one. A rank whose dataloader is empty skips the loop, and misses all of them.

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
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning_retrieval_guard.findings import Effect, Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, listed

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView, KeyView


class KeysDiffer(Rule):
    """Ranks logged different keys, or in another order."""

    spec = RuleSpec(
        "LRG206",
        "keys-differ",
        Severity.ERROR,
        "Log the same keys in the same order on every rank.",
        corrects="order",
        precedes_reduction=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        # a rank that skipped the loop has nothing to reduce, and keeps no other waiting
        orders = [order for order, seen in zip(epoch.orders, epoch.batches, strict=True) if order or seen]
        agree = len(set(orders)) <= 1
        for key in epoch.keys:
            positions = {order.index(key.first.storage) for order in orders if key.first.storage in order}
            missing = [rank for rank, facts in enumerate(key.facts) if facts is None]
            absent = [rank for rank in missing if epoch.batches[rank]]
            if positions and not agree and (absent or len(positions) > 1):
                what = f"was not logged on {listed(absent)}" if absent else "was logged in another order on the ranks"
                message = (
                    f"'{key.first.name}' {what}; Lightning pairs the reductions of the ranks by their order alone."
                )
                effect = None if absent else _effect(epoch, key)
                yield self._at(epoch, key, message, effect=effect, is_mended=not absent)
            elif positions and missing and key.first.kind != "metric":  # LRG205 is about metrics
                message = (
                    f"'{key.first.name}' was not logged on {listed(missing)}, where no batch came; Lightning's"
                    " reduction of it waits for every rank."
                )
                fix = "Give every rank a batch, or let the guard run with mode='correct'."
                # correct mode supplies the number here, and puts no order right
                yield replace(self._at(epoch, key, message, fix=fix), corrects="value")

    def _at(self, epoch: EpochView, key: KeyView, message: str, **words: Any) -> Finding:
        logging_ranks = [rank for rank, facts in enumerate(key.facts) if facts is not None]
        return self.at_key(epoch, key, message, ranks=logging_ranks, **words)


def _effect(epoch: EpochView, key: KeyView) -> Effect | None:
    """Reference, and what Lightning made of the key once it has reduced it."""
    if key.computed is None or key.reference is None or not epoch.knows_reference(key):
        return None
    return Effect(key.computed, key.reference)
