"""LRG201 gathered-before-sync

## What it flags
A retrieval metric that holds the same rows on every rank, and combines the ranks once more in `compute()`. The rows
were gathered before, or every rank evaluates all of the data. It also flags groups of ranks that hold the same rows,
as under tensor or context parallelism.

## Why it is wrong
After the second gathering each query has every document once for each of W ranks. It has W relevant documents in place
of one, so Recall@1 is 1/W of the truth. Only a few numbers, such as MRR@1, still look right. The batch size has nothing
to do with it (torchmetrics issue #2852).

## Example
    queries, documents = self.all_gather(queries), self.all_gather(documents)
    metric = RetrievalRecall(top_k=1)
    metric.update(scores, target, indexes=ids)
    self.log("val_recall", metric.compute())

## Use instead
    metric = RetrievalRecall(top_k=1, sync_on_compute=False)

Or update with this rank's own rows, and do not gather them.

## What correct mode does
It counts the rows of one rank once, and exchanges none. Of each group of ranks it counts the first rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.report.text import several
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, effect_of

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.source_view import SourceView
    from lightning_retrieval_guard.epoch.views import EpochView, KeyView


class GatheredBeforeSync(Rule):
    """Several ranks hold the same rows, and the metric combines them again."""

    spec = RuleSpec(
        "LRG201",
        "gathered-before-sync",
        Severity.ERROR,
        "Pass each rank's own rows, or build the metric with sync_on_compute=False.",
        corrects="value",
        scales_by_ranks=True,
        static=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            source = next((shown for shown in key.sources if shown.plan.classes and _combines(key, shown)), None)
            if source is not None:
                ranks, held = several(epoch.world_size, "rank"), _held(source)
                message = f"'{key.first.name}' on {ranks} holds {held}, and torchmetrics combines them again."
                yield self.at_key(epoch, key, message, effect=effect_of(epoch, key))


def _held(source: SourceView) -> str:
    plan = source.plan
    if plan.replicated:
        return f"the same {several(plan.facts[0].rows, 'row')} on every rank"
    counted = len(plan.counted)
    return f"{counted} sets of rows, each on {len(plan.facts) // counted} of them"


def _combines(key: KeyView, source: SourceView) -> bool:
    return source.synchronises and key.first.kind in ("metric", "compute")
