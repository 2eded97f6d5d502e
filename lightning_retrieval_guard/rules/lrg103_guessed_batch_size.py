"""LRG103 guessed-batch-size

## What it flags
A log call without `batch_size`, where the leading size that Lightning took from the batch is not the number of
samples. The finding is a note where the tensors of the batch disagree and the number of samples is not known.

## Why it is wrong
Lightning takes the leading size of the first tensor that it finds, and warns at most once. In a batch of graphs, of
ragged sequences or of images with several captions, that size counts something else. Batches are then weighed by it.

## Example
    def validation_step(self, batch):  # {"tokens": (137, d), "labels": (8,)}: Lightning takes 137
        self.log("val_loss", self.loss(batch))

## Use instead
    self.log("val_loss", self.loss(batch), batch_size=len(batch["labels"]))

## What correct mode does
It weighs each batch by the samples in it, where the loader or `batch_size_fn` gives their number. With a collate
function of your own, an item may be a graph or a ready batch: a tensor must have as many entries as the loader gave
items. Otherwise the number stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView


class GuessedBatchSize(Rule):
    """Lightning took a leading size that is not the number of samples."""

    spec = RuleSpec(
        "LRG103",
        "guessed-batch-size",
        Severity.WARNING,
        "Pass batch_size, or give the guard a batch_size_fn.",
        corrects="value",
        judges_weights=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            if key.weight_fault == "guessed":
                message = (
                    f"'{key.first.name}' is logged without batch_size; Lightning took a leading size from the batch,"
                    " which is not the number of samples."
                )
                yield self.at_weights(epoch, key, message)
            elif key.is_shared and key.first.in_step and key.total("unsure"):
                message = (
                    f"'{key.first.name}' is logged without batch_size; the tensors in the batch disagree in their"
                    " leading sizes, and Lightning took the first. Nothing tells whether that is the number of samples."
                )
                yield self.at_key(epoch, key, message, severity=Severity.NOTE)
