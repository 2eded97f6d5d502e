"""LRG306 batch-as-one-query

## What it flags
A functional retrieval metric that got scores of two dimensions, a batch of queries, and scored all of them as the rows
of one query.

## Why it is wrong
The functions of `torchmetrics.functional.retrieval` flatten what they get. The relevant rows of all queries then
compete with each other, so the value depends on the batch size, on one device too.

## Example
    scores = queries @ documents.T
    self.log("val_ndcg", retrieval_normalized_dcg(scores, target), sync_dist=True)

## Use instead
    values = [retrieval_normalized_dcg(row, relevance) for row, relevance in zip(scores, target)]
    self.log("val_ndcg", torch.stack(values).mean(), sync_dist=True)

## What correct mode does
Nothing: it cannot know which rows belong to a query.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView


class BatchAsOneQuery(Rule):
    """A functional scored a batch of queries as one query."""

    spec = RuleSpec(
        "LRG306",
        "batch-as-one-query",
        Severity.ERROR,
        "Call it once for each query and take the mean, or use the metric of the same name with indexes.",
        static=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for call in epoch.flattened:
            message = (
                f"{call.function} got scores of shape {call.shape} and scored {call.shape[0]} queries as the"
                f" {call.shape[0] * call.shape[1]} rows of one."
            )
            yield self.at_call(epoch, call, call.function, message)
