"""LRG301 restarting-query-ids

## What it flags
Query ids that stand for different queries in different updates or on different ranks. The evidence is that every
update holds exactly one id for each sample, and that the same id has other rows elsewhere. Each of these queries has
two rows or more, and a relevant one. With `query_scope="batch"` every id that comes again is evidence. Values that
each stand for one batch of one rank are not reported.

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
from lightning_retrieval_guard.rules.base import Rule, several
from lightning_retrieval_guard.rules.spec import RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView, KeyView


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
            source = key.source
            if source is not None and merges_queries(key):
                facts = source.plan.facts
                count = sum(facts[rank].pieces for rank in source.plan.counted)
                queries = "1 query" if count == 1 else f"{count} queries"
                ids = max(own.id_max for own in facts) - min(own.id_min for own in facts if own.rows) + 1
                message = (
                    f"'{key.first.name}' got {queries}, one for each sample, under at most {several(ids, 'id')} that"
                    " restart in each batch or on each rank, so different queries merge."
                )
                yield self.at_key(epoch, key, message, effect=key.effect)


def merges_queries(key: KeyView) -> bool:
    """Whether restarting ids merge queries in the number itself: not where each value is that of one rank's batch."""
    if key.source is None or not key.source.plan.merges:
        return False
    return key.first.synced or not key.averages_batches
