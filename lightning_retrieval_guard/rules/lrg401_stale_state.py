"""LRG401 stale-state

## What it flags
A metric that still holds rows of an earlier epoch, or of the sanity check, when its value is logged. Not reported in
training, where a metric may count on. Not reported for aggregators such as `MaxMetric`, and for wrappers, which may
hold the best value of the run.

## Why it is wrong
Without a reset the value mixes the model of this epoch with earlier ones. It lags behind, and never shows the best
epoch. Rows of the sanity check stay in it for the whole run. Rows with the same query id pile up: each query then has
several copies of each document.

## Example
    def on_validation_epoch_end(self):
        self.log("val_mrr", self.mrr.compute())

## Use instead
    def on_validation_epoch_end(self):
        self.log("val_mrr", self.mrr.compute())
        self.mrr.reset()

## What correct mode does
It resets the metric before its first update in the epoch, and says how much it dropped. It does so only where a log
call has shown the metric, or its `compute()` value unchanged: `1 - mrr.compute()` stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.report.text import several
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, effect_of

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.source_view import SourceView
    from lightning_retrieval_guard.epoch.views import EpochView


class StaleState(Rule):
    """A metric still holds rows of an earlier epoch."""

    spec = RuleSpec(
        "LRG401",
        "stale-state",
        Severity.ERROR,
        "Log the metric object, which Lightning resets, or call reset() at the end of the epoch.",
        corrects="stale_state",
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for source in epoch.sources:
            if source.stale:
                yield from self._about_rows(epoch, source)
        for key in epoch.keys:
            stale = int(key.total("stale"))
            if stale:
                sanity = all(facts.sanity for facts in key.present if facts.stale)
                dropped = any(facts.dropped for facts in key.present)
                what = f"{key.first.metric} behind '{key.first.name}'"
                said = _message(what, several(stale, "update"), sanity, dropped)
                finding = self.at_key(epoch, key, said)
                yield _as_dropped(finding) if dropped else finding

    def _about_rows(self, epoch: EpochView, source: SourceView) -> Iterator[Finding]:
        """Values of ``forward()`` are free of the rows; where nothing shows the metric, dropped rows are a note."""
        said = _message(f"{source.metric} {source.name!r}", several(source.stale, "row"), source.sanity, source.dropped)
        keys = epoch.keys_of(source)
        for key in keys:
            if key.first.kind != "forward":
                finding = self.at_key(epoch, key, said, effect=effect_of(epoch, key))
                yield _as_dropped(finding) if source.dropped else finding
        if source.dropped and not keys:
            ranks = range(epoch.world_size)
            yield self.at_update(epoch, source, said, ranks=ranks, severity=Severity.NOTE)


def _message(what: str, count: str, sanity: bool, dropped: bool) -> str:
    origin = "the sanity check" if sanity else "earlier epochs"
    if dropped:
        return f"{what} began the epoch with {count} of {origin}, dropped before they could count."
    return f"{what} still counts {count} of {origin}."


def _as_dropped(finding: Finding) -> Finding:
    """What the value would have been with what was dropped is not known."""
    return replace(finding, corrected=True, effect=None, severity=StaleState.spec.severity)
