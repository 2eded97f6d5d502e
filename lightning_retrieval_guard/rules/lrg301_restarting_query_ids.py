"""LRG301 restarting-query-ids

## What it flags
Query ids that stand for different queries in different updates or on different ranks. The evidence: every update holds
as many ids as samples came in since the update before, each with two rows or more and one relevant row or more, and
the same id comes with different rows elsewhere.

## Why it is wrong
torchmetrics groups rows by id over the whole epoch and all ranks. `torch.arange(batch_size)` in every batch merges the
first queries of all batches into one query. It happens on one device too.

## Example
    ids = torch.arange(len(scores)).repeat_interleave(scores.shape[1])
    self.recall.update(scores.flatten(), target.flatten(), indexes=ids)

## Use instead
    ids = batch["index"].repeat_interleave(scores.shape[1])

## What correct mode does
It gives each update its own ids.
"""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, several
from lightning_retrieval_guard.rules.view import StageView


class RestartingQueryIds(Rule):
    """Query ids restart, so that different queries merge."""

    code = "LRG301"
    slug = "restarting-query-ids"
    severity = Severity.ERROR

    @override
    def check(self, stage: StageView) -> Iterator[Finding]:
        for key in stage.keys:
            source = key.source
            if source is not None and source.plan.restarting and stage.declared_scope == "auto":
                facts = source.plan.facts
                queries = sum(own.pieces for own in facts) if not source.plan.gathered else facts[0].pieces
                ids = max(own.id_max for own in facts) - min(own.id_min for own in facts if own.rows) + 1
                message = (
                    f"'{key.first.name}' got {several(queries, 'query').replace('querys', 'queries')}, one for each sample,"
                    f" under at most {several(ids, 'id')} that restart in each batch or on each rank, so different queries"
                    " merge."
                )
                fix = (
                    "Pass ids that are unique over the epoch, such as the index in the dataset, or query_scope='batch'."
                )
                yield self.at_key(stage, key, message, fix, effect=key.effect)
