"""LRG403 padded-samples

## What it flags
An evaluation whose distributed sampler repeated samples, so that every rank gets the same number of them.

## Why it is wrong
The repeated samples count twice. With 7 samples on 2 ranks one sample weighs double. A query that is repeated has all
its rows twice, the relevant ones too.

## Example
    trainer = Trainer(devices=2)
    trainer.test(model, DataLoader(dataset, batch_size=2))  # 7 samples

## Use instead
One device for final numbers, or a data set whose size the number of devices divides.

    trainer = Trainer(devices=1)
    trainer.test(model, DataLoader(dataset, batch_size=2))

For retrieval metrics alone, `RetrievalGuard(mode="correct")` is enough.

## What correct mode does
For retrieval metrics it counts a repeated sample once, where it finds it. Exactly one sample of a rank's last batch
must have the same rows as one in the first batch of the other rank. Otherwise the number stays as it is. A plain
value is averaged over its batch already, so it stays too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, several
from lightning_retrieval_guard.rules.spec import RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView


class PaddedSamples(Rule):
    """The distributed sampler repeated samples."""

    spec = RuleSpec(
        "LRG403",
        "padded-samples",
        Severity.WARNING,
        "Use a dataset whose size the world size divides, or one device for final numbers.",
        corrects="value",
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        # in training every sample comes again anyway
        if not epoch.repeated or epoch.stage == "train":
            return
        for key in epoch.keys:
            source = key.source
            if source is None and not key.first.in_step and key.first.kind == "plain":
                continue  # nobody knows what it was made of
            them = "it" if epoch.repeated == 1 else "them"
            message = (
                f"'{key.first.name}' counts {several(epoch.repeated, 'sample')} twice: the sampler repeated {them} to"
                f" give {several(epoch.world_size, 'rank')} the same number."
            )
            counted_once = source is not None and source.plan.left_out == epoch.repeated
            corrected = "mode='correct', " if counted_once else ""
            fix = f"Use {corrected}a dataset whose size the world size divides, or one device for final numbers."
            effect = key.effect if counted_once else None
            yield self.at_key(epoch, key, message, fix=fix, effect=effect, is_mended=counted_once)
