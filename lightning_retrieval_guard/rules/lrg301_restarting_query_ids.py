"""LRG301 restarting-query-ids

## What it flags
Query ids that count the samples of a batch or of a rank, so the same id stands for different queries elsewhere.
Each batch has consecutive ids, one for each sample. They count for certain where `torch.arange`, `nonzero` or `where`
was seen to make them. Else no column of the batch may hold them, and one thing more must show it. Their number follows
that of the samples, the relevant row of each query is on the diagonal, or the hook fed them. With less, or with several
ids a sample or none for some, it warns, and the number stays. `query_scope="batch"` makes every repeated id evidence.

## Why it is wrong
torchmetrics groups rows by id over the whole epoch and all ranks. `torch.arange(batch_size)` in every batch merges the
first queries of all batches into one query. That happens on one device too.

## Example
    ids = torch.arange(len(scores)).repeat_interleave(scores.shape[1])
    self.recall.update(scores.flatten(), target.flatten(), indexes=ids)

## Use instead
    ids = batch["index"].repeat_interleave(scores.shape[1])
    self.recall.update(scores.flatten(), target.flatten(), indexes=ids)

Where ids cannot be unique, `RetrievalGuard(mode="correct", query_scope="batch")` declares that each update has its
own. `query_scope="global"` declares that equal ids are the same query.

## What correct mode does
It gives each update its own ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.report.text import several
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, effect_of

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.plan import Plan
    from lightning_retrieval_guard.epoch.views import EpochView, KeyView


_FIX_OF_DOUBT = (
    'Pass ids that are unique over the epoch, or declare query_scope="global" if equal ids are the same query.'
)


class RestartingQueryIds(Rule):
    """Query ids restart, so that different queries merge."""

    spec = RuleSpec(
        "LRG301",
        "restarting-query-ids",
        Severity.ERROR,
        "Pass ids that are unique over the epoch, such as the index in the dataset.",
        corrects="value",
        static=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            plans = [] if key.is_of_batches else [source.plan for source in key.sources]
            if plan := next((plan for plan in plans if plan.merges), None):
                yield self.at_key(epoch, key, _message(key.first.name, plan), effect=effect_of(epoch, key))
            elif plan := next((plan for plan in plans if plan.ids_may_restart), None):
                doubt, message = Severity.WARNING, _message(key.first.name, plan)
                yield self.at_key(epoch, key, message, fix=_FIX_OF_DOUBT, severity=doubt, is_mended=False)
        for source in epoch.sources if epoch.is_complete else ():
            # what a value is that the program made of several metrics follows from what is wrong with each of them
            if not epoch.keys_of(source) and (source.plan.merges or source.plan.ids_may_restart):
                fix, severity = (None, None) if source.plan.merges else (_FIX_OF_DOUBT, Severity.WARNING)
                message = _message(source.name, source.plan)
                ranks = range(epoch.world_size)
                yield self.at_update(epoch, source, message, ranks=ranks, fix=fix, severity=severity)


def _message(name: str, plan: Plan) -> str:
    counts = [plan.facts[rank].queries_in_batches or plan.facts[rank].chunks for rank in plan.counted]
    queries = several(sum(counts), "query", "queries")
    ids = max(facts.id_max for facts in plan.with_rows) - min(facts.id_min for facts in plan.with_rows) + 1
    each = {0: "one for some samples", 1: "one for each sample"}
    share = each.get(plan.queries_a_sample, f"{plan.queries_a_sample} for each sample")
    got = f"'{name}' got {queries}, {share}, under at most {several(ids, 'id')}"
    if plan.merges:
        return f"{got} that restart in each batch or on each rank, so different queries merge."
    return f"{got} that come again. Different queries merge if these ids number the samples of a batch."


def merges_queries(key: KeyView) -> bool:
    """Whether restarting ids merge queries in the number itself."""
    return any(source.plan.merges for source in key.sources) and not key.is_of_batches
