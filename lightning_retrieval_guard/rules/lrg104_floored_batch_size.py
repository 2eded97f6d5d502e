"""LRG104 floored-batch-size

## What it flags
A mean logged with `sync_dist=True` whose integer batch sizes add up to different totals on the ranks.

## Why it is wrong
Lightning keeps the sum of the batch sizes in an integer tensor and takes its mean over the ranks. The mean of 4 and 3
becomes 3, so the epoch value is divided by too little and comes out too large (Lightning issue #21859). The constant
1.0 over 7 samples is logged as 1.1667 on two ranks, and as 1.75 on four.

## Example
    self.log("val_loss", loss, batch_size=len(labels), sync_dist=True)

## Use instead
    self.log("val_loss", loss, batch_size=float(len(labels)), sync_dist=True)

## What correct mode does
It divides by the exact mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Effect, Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, effect_of

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView, KeyView


class FlooredBatchSize(Rule):
    """Integer weights whose mean over ranks is floored."""

    spec = RuleSpec(
        "LRG104",
        "floored-batch-size",
        Severity.ERROR,
        "Pass a float, such as batch_size=float(len(labels)).",
        corrects="value",
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            floor = _floor_effect(key)
            if floor is not None:
                totals = [f"{facts.weight:g}" for facts in key.present]
                message = (
                    f"'{key.first.name}' has batch sizes that sum to {', '.join(totals)} on the ranks, and Lightning"
                    " floors their integer mean, which inflates the epoch value."
                )
                # where flooring changes nothing it is a note, whatever else is wrong with the number
                effect = floor if floor.is_nil else effect_of(epoch, key)
                yield self.at_key(epoch, key, message, effect=effect, is_mended=not key.is_partial)


def _floor_effect(key: KeyView) -> Effect | None:
    """What the floored mean of the batch sizes does to the logged mean, whatever the weights should be."""
    first, weight, logged = key.first, key.total("weight"), key.plain_value
    if not key.is_reduced or first.reduction != "mean" or logged is None or not first.in_step:
        return None
    if not all(facts.integral for facts in key.present) or weight % key.world_size == 0:
        return None
    return Effect(logged, key.total("value") / weight)
