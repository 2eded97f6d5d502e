"""LRG101 batch-size-times-world-size

## What it flags
A `batch_size` that is the world size times the number of samples in this rank's batch. A shorter batch that is given
the loader's nominal size times the world size counts too. Where the factor cancels, the finding is a note. It is a
warning all the same where the source of the argument names the number of devices.

## Why it is wrong
Lightning's epoch mean is the sum of value times `batch_size`, divided by the sum of `batch_size`. A factor that is the
same in every batch cancels, and the number stays right. The nominal size times the number of devices is not the same:
it gives a short last batch the weight of a full one. This factor does not divide Recall@1; see LRG201 for what does.

## Example
    self.log("val_acc", acc, batch_size=self.batch_size * self.trainer.world_size, sync_dist=True)

## Use instead
A float, because Lightning floors integers that differ between ranks; see LRG104.

    self.log("val_acc", acc, batch_size=float(len(labels)), sync_dist=True)

## What correct mode does
It weighs each batch by the samples in it. Where the factor cancels, the number stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.report.text import several
from lightning_retrieval_guard.rules.base import Rule, RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView


_CANCELS = "The factor cancels as long as it is the same in every batch; with a shorter last batch it does not."


class BatchSizeTimesWorldSize(Rule):
    """A weight that is the world size times the samples of the rank."""

    spec = RuleSpec(
        "LRG101",
        "batch-size-times-world-size",
        Severity.WARNING,
        "Pass the number of samples in this rank's own batch, such as batch_size=float(len(labels)).",
        corrects="value",
        judges_weights=True,
        static=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            if key.weight_fault != "times_world_size":
                continue
            message = (
                f"'{key.first.name}' is logged with a batch_size of {epoch.world_size} times the samples in this rank's"
                f" batch, on {several(epoch.world_size, 'rank')}."
            )
            alone = key.weight_effect
            cancels = alone is None or alone.is_nil
            named = any(facts.names_devices for facts in key.present)
            # written on purpose: it warns although it changes nothing, since with other batches it would
            if cancels and named:
                yield self.at_key(epoch, key, f"{message} {_CANCELS}")
            elif named or not any(facts.explained for facts in key.present):
                yield self.at_weights(epoch, key, message)
            else:
                yield self.at_key(epoch, key, message, severity=Severity.NOTE)
