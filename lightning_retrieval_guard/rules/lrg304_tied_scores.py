"""LRG304 tied-scores

## What it flags
Queries in which relevant and other rows have the same score just where it decides the value, so that it depends on the
order of the rows. The message gives their share; below one in a thousand the finding is a note.

## Why it is wrong
Shuffling the data, another batch size or another number of devices changes the number, although the model is the same.
A model that gives every document the same score can look perfect, when the relevant document happens to come first.
bfloat16 and float16 scores tie often, and so do rounded or saturated ones.

## Example
    with torch.autocast("cuda", dtype=torch.bfloat16):
        scores = query @ document.T
    self.mrr.update(scores, target, indexes=ids)

## Use instead
    with torch.autocast("cuda", enabled=False):
        scores = query.float() @ document.float().T
    self.mrr.update(scores, target, indexes=ids)

## What correct mode does
Nothing on its own: nobody knows in which order one device has the rows of all ranks. Where another rule corrects the
number, or a hook calls `compute()`, equal scores are ranked in the order of each rank's rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, share_of_queries

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView

_FEW = 1e-3


class TiedScores(Rule):
    """The order of rows with equal scores decides values."""

    spec = RuleSpec(
        "LRG304",
        "tied-scores",
        Severity.WARNING,
        "Score in float32, and break ties on purpose.",
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            source = key.source
            tally = None if source is None else source.tally
            if source is None or tally is None or not tally.tied:
                continue
            share = share_of_queries(source, tally.tied, tally.queries)
            message = (
                f"'{key.first.name}' depends on the order of rows with equal scores, relevant and not, in {share}."
            )
            severity = Severity.NOTE if tally.tied < _FEW * tally.queries else None
            yield self.at_key(epoch, key, message, severity=severity)
