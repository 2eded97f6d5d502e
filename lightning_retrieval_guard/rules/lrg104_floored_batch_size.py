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

from typing_extensions import override

from lightning_retrieval_guard.epoch.views import StageView
from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule


class FlooredBatchSize(Rule):
    """Integer weights whose mean over ranks is floored."""

    code = "LRG104"
    slug = "floored-batch-size"
    severity = Severity.ERROR

    @override
    def check(self, stage: StageView) -> Iterator[Finding]:
        for key in stage.keys:
            effect = key.floor_effect
            if effect is not None:
                totals = [f"{own.weight:g}" for own in key.present]
                message = (
                    f"'{key.first.name}' has batch sizes that sum to {', '.join(totals)} on the ranks, and Lightning"
                    " floors their integer mean, which inflates the epoch value."
                )
                fix = "Pass a float, such as batch_size=float(len(labels))."
                yield self.at_key(stage, key, message, fix, effect=effect)
