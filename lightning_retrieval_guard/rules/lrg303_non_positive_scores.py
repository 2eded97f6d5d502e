"""LRG303 non-positive-scores

## What it flags
Relevant rows with a score of zero or less, in a metric that leaves such rows out: MRR, MAP, precision and recall of
torchmetrics 1.7.4 and later. The message gives the share of queries whose value that changes.

## Why it is wrong
A score of zero or less counts as not retrieved, whatever its rank. Cosine similarities, logits and negative distances
are often below zero, so a relevant document that ranks first can count as missed. Hit rate, nDCG, R-precision and AUROC
rank by score alone, so metrics of the same run do not agree with each other.

## Example
    scores = F.cosine_similarity(query[:, None], document[None], dim=-1)
    self.mrr.update(scores, target, indexes=ids)

## Use instead
    scores = F.cosine_similarity(query[:, None], document[None], dim=-1)
    self.mrr.update(scores + 2, target, indexes=ids)  # the same order, and every score above zero

## What correct mode does
Nothing: one device logs the same number. The message gives the number that ranking by score alone has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity, show_number
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, share_of_queries

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.source_view import SourceView
    from lightning_retrieval_guard.epoch.views import EpochView


class NonPositiveScores(Rule):
    """Relevant rows with a score of zero or less are left out."""

    spec = RuleSpec(
        "LRG303",
        "non-positive-scores",
        Severity.WARNING,
        "Shift or scale the scores so that all are above zero; their order stays.",
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            source = key.source
            tally = None if source is None else source.tally
            if source is None or tally is None or not tally.non_positive:
                continue
            share = share_of_queries(source, tally.non_positive, tally.queries)
            message = (
                f"'{key.first.name}' leaves out relevant rows with a score of zero or less, which changes the value of"
                f" {share}.{_by_score(source, tally.shift / tally.queries)}"
            )
            yield self.at_key(epoch, key, message)


def _by_score(source: SourceView, more: float) -> str:
    """What ranking by score alone gives, where the value is a mean over queries and known."""
    if not source.mean or not source.covers_all_ranks or source.value is None:
        return ""
    return f" Ranked by score alone it is {show_number(source.value + more)} in place of {show_number(source.value)}."
