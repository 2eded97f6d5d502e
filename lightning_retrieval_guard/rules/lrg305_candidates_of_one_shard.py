"""LRG305 candidates-of-one-shard

## What it flags
Queries that were ranked, outside of a step, against exactly the samples that this rank saw, or all but the query
itself. So are images against as many texts of each. Where there are several dataloaders, those of one of them. Each
device holds a part of the data, so the candidates are a part of those that one device would have. In a step it is a
note, because candidates from the batch are usual there.

## Why it is wrong
With fewer candidates a query finds its answer more easily, so the number rises with the number of devices. Weighing the
ranks' values in another way does not help.

## Example
    def on_validation_epoch_end(self):
        scores = torch.cat(self.queries) @ torch.cat(self.documents).T  # those of this rank

## Use instead
    def on_validation_epoch_end(self):
        documents = self.all_gather(torch.cat(self.documents)).flatten(0, -2)
        scores = torch.cat(self.queries) @ documents.T

## What correct mode does
Nothing: the scores against the samples of the other ranks were never computed. There is no reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.row_facts import RowFacts
    from lightning_retrieval_guard.epoch.views import EpochView


class CandidatesOfOneShard(Rule):
    """Queries are ranked against the samples of their own rank only."""

    spec = RuleSpec(
        "LRG305",
        "candidates-of-one-shard",
        Severity.WARNING,
        "Gather the candidates of all ranks before you score, or evaluate on one device.",
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        # the samples of a sanity check are as many as its setting says, and lists may be as long by chance
        if epoch.world_size == 1 or epoch.stage == "sanity_check":
            return
        for key in epoch.keys:
            plan = None if key.source is None else key.source.plan
            if plan is None or not (plan.pool_of_rank or _are_of_batches(plan.with_rows)):
                continue
            facts = plan.with_rows
            # a query that is no candidate of its own is none on one device either
            left_out = int(any(rank_facts.lists_others for rank_facts in facts))
            longest = max(rank_facts.longest_chunk for rank_facts in facts)
            if plan.pool_of_rank:
                everything = sum(rank_facts.longest_chunk + left_out for rank_facts in facts) - left_out
                message = (
                    f"'{key.first.name}' ranks each query against at most {longest} candidates, those of its own rank,"
                    f" of {everything} on all ranks. On one device each query has all of them."
                )
                yield self.at_key(epoch, key, message)
            else:
                message = f"'{key.first.name}' ranks each query against at most {longest} samples, those of its batch."
                yield self.at_key(epoch, key, message, severity=Severity.NOTE)


def _are_of_batches(ranks: Sequence[RowFacts]) -> bool:
    """Whether each query of a step was ranked against the samples of its batch, itself among them."""
    square = all(facts.lists_samples and facts.is_diagonal and facts.one_query_a_sample for facts in ranks)
    return bool(ranks) and square and all(facts.in_steps for facts in ranks)
