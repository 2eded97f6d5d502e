"""LRG404 shared-metric

## What it flags
One metric object that several dataloaders or stages feed, logged for one of them while it holds rows of another. Not
reported where it is reset in between, unless the validation resets what the training has fed and logs at the end. Nor
where one number over all dataloaders is logged at the end, or a hook of the training logs a metric of the validation.

## Why it is wrong
The number of the second dataloader is that of both. Query ids that both use merge different queries. A metric that
training and validation share is reset by Lightning after the validation, in the middle of the training epoch.

## Example
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.recall.update(*self.rank(batch))
        self.log("recall", self.recall)

## Use instead
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        recall = self.recalls[dataloader_idx]  # a ModuleList with one metric a dataloader
        recall.update(*self.rank(batch))
        self.log("recall", recall)

## What correct mode does
It logs for each dataloader and each stage the value of what it fed. What the program computes in a hook stays the value
of everything that the metric holds then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.report.text import several
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, effect_of

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView


class SharedMetric(Rule):
    """Several dataloaders or stages feed one metric."""

    spec = RuleSpec(
        "LRG404",
        "shared-metric",
        Severity.ERROR,
        "Make one metric for each dataloader and stage, in a ModuleList or a ModuleDict.",
        corrects="foreign_state",
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            source = next((shown for shown in key.sources if shown.shared), key.source)
            others = source.shared if source is not None else int(key.total("shared"))
            lost = source.lost if source is not None else int(key.total("lost"))
            if lost and not others and key.first.shows_object:
                count, metric = several(lost, "update"), source.metric if source is not None else key.first.metric
                message = f"'{key.first.name}' lacks {count} of its {metric}, which another stage has reset."
                yield self.at_key(epoch, key, message, effect=effect_of(epoch, key), is_mended=not key.parts)
            if others and key.first.kind != "forward" and not key.is_of_another_stage:
                metric = source.metric if source is not None else key.first.metric
                count = several(others, "row" if source is not None else "update")
                message = f"'{key.first.name}' shows a {metric} that also holds {count} of another dataloader or stage."
                yield self.at_key(epoch, key, message, effect=effect_of(epoch, key), is_mended=not key.parts)
