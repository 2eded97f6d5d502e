"""LRG302 mean-of-batches

## What it flags
Values of a metric on single batches that are averaged over the epoch, where that mean is not the metric's own value.
Queries go on from batch to batch, or batches hold unequal numbers of queries. Or the metric is not a mean: it takes the
median or the maximum over queries, or it is AUROC, F1 or a correlation. Accuracies, errors and losses are not reported.

## Why it is wrong
A batch ranks only some of a query's rows. The relevant row has fewer competitors, and the mean is too high. The number
changes with the batch size and the number of devices.

## Example
    def validation_step(self, batch, batch_idx):
        scores, target, ids = self.rank(batch)  # some rows of each query
        self.log("val_mrr", self.mrr(scores, target, indexes=ids), sync_dist=True)

## Use instead
    def validation_step(self, batch, batch_idx):
        scores, target, ids = self.rank(batch)
        self.mrr.update(scores, target, indexes=ids)
        self.log("val_mrr", self.mrr)

## What correct mode does
It logs the value over all rows of the epoch, as if the metric object had been logged. A metric that was made in the
step has seen one batch only, so its queries count as they are. A metric of another kind is computed where it holds
exactly the rows of this epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Effect, Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, effect_of
from lightning_retrieval_guard.rules.lrg301_restarting_query_ids import merges_queries

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView, KeyView


class MeanOfBatches(Rule):
    """Values on single batches are averaged, and that is not the value over all of them."""

    spec = RuleSpec(
        "LRG302",
        "mean-of-batches",
        Severity.ERROR,
        "Update the metric in the step, and log the metric object.",
        corrects="value",
        static=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            reason = _reason(key) if key.averages_batches and key.is_shared else None
            if reason is not None:
                message = (
                    f"'{key.first.name}' is the mean of {key.total('calls'):.0f} values on single batches, {reason}."
                )
                yield self.at_key(epoch, key, message, effect=effect_of(epoch, key))


def _reason(key: KeyView) -> str | None:
    """Why the mean is not the value, where that is certain."""
    source = key.source
    if source is None:
        return None if key.first.mean else f"and {key.first.metric} over all samples is no mean of those"
    plan = source.plan
    if key.splits_queries:
        return "and queries have rows in several batches"
    combined = key.first.synced if key.first.kind == "forward" else source.synchronises
    is_explained = (bool(plan.classes) and combined) or plan.left_out or plan.ids_may_restart or merges_queries(key)
    if is_explained or not key.shows_source or source.value is None:  # other rules report it, or nobody knows
        return None
    if key.parts_queries:
        return "and queries have rows in several batches"
    if math.isnan(key.batch_mean) or Effect(key.batch_mean, source.value).is_nil:
        return None
    if not source.mean:
        return f"and {source.metric} takes no mean over queries"
    # of a metric that was made in a step only the samples tell whether it has seen whole queries
    whole = plan.keeps_whole or all(facts.single_life or facts.one_query_a_sample for facts in plan.with_rows)
    return "and batches do not count by their numbers of queries" if whole else None
