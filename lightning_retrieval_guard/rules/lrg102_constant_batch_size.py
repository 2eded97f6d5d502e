"""LRG102 constant-batch-size

## What it flags
An explicit `batch_size` that is the nominal size of the loader, while the batch at hand holds fewer samples.

## Why it is wrong
Lightning's epoch mean is the sum of value times `batch_size`, over the sum of `batch_size`. A short last batch then
counts as much as a full one.

## Example
    self.log("val_acc", acc, batch_size=64)

## Use instead
    self.log("val_acc", acc, batch_size=len(labels))

With `sync_dist=True` pass `float(len(labels))`, because integers that differ between ranks are floored; see LRG104.

## What correct mode does
It weighs each batch by the samples in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, listed

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView


class ConstantBatchSize(Rule):
    """The nominal weight for a batch that is shorter."""

    spec = RuleSpec(
        "LRG102",
        "constant-batch-size",
        Severity.WARNING,
        "Pass the number of samples in the batch, such as batch_size=float(len(labels)).",
        corrects="value",
        judges_weights=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            if key.weight_fault == "nominal":
                ranks = [
                    rank for rank, facts in enumerate(key.facts) if facts is not None and facts.nominal + facts.either
                ]
                message = (
                    f"'{key.first.name}' is logged with the loader's nominal batch_size while the batch is shorter"
                    f" ({listed(ranks)}), so the short batch weighs as much as a full one."
                )
                yield self.at_weights(epoch, key, message, ranks=ranks)
