"""LRG104 floored-batch-size

## What it flags
A key logged with `sync_dist=True` whose integer batch sizes add up to different totals on the ranks.

## Why it is wrong
Lightning reduces the sum of the batch sizes with a mean over ranks, in place, in an integer tensor. The mean of 3 and
4 becomes 3, and every epoch mean is too large (Lightning issue #21859). Seven samples of the constant 1.0 log as 1.17
on two ranks and as 1.75 on four.

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

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule
from lightning_retrieval_guard.rules.view import StageView


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
                    f"'{key.first.name}' has batch sizes that sum to {', '.join(totals)} on the ranks, and Lightning floors"
                    " their integer mean, which inflates the epoch value."
                )
                fix = "Pass a float, such as batch_size=float(len(labels))."
                yield self.at_key(stage, key, message, fix, effect=effect)
