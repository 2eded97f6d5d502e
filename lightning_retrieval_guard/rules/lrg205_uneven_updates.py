"""LRG205 uneven-updates

## What it flags
A metric that combines ranks, and that the ranks updated unequally often, or one of them not at all, so that
torchmetrics does not get the value of one device. That concerns metrics that keep lists, as retrieval metrics and
BinaryAUROC do, and those that average states. It concerns all metrics where a rank does not come to `compute()`.

## Why it is wrong
torchmetrics gathers every update by itself. With unequal numbers the ranks call different numbers of collectives: gloo
aborts the run, and NCCL hangs. A rank without data raises alone and takes the others down (torchmetrics issue #3336).
An averaged state counts a rank with one update as much as one with a hundred.

## Example
    if target.any():
        self.recall.update(scores, target, indexes=ids)

## Use instead
    self.recall.update(scores, target, indexes=ids)  # empty_target_action says what such queries count

Where ranks have unequal numbers of batches, run the guard with `mode="correct"`.

## What correct mode does
It exchanges the rows that there are. A rank without rows contributes nothing. Metrics of other kinds compute their
value from the merged states of all ranks, and keep their own. States that cannot be merged are named, and left to
torchmetrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.report.text import several
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, listed

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.source_view import SourceView
    from lightning_retrieval_guard.epoch.states import StateView
    from lightning_retrieval_guard.epoch.views import EpochView


class UnevenUpdates(Rule):
    """Ranks updated a metric unequally often."""

    spec = RuleSpec(
        "LRG205",
        "uneven-updates",
        Severity.ERROR,
        "Update it equally often on every rank, or let the guard run with mode='correct'.",
        corrects="value",
        precedes_reduction=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        if not epoch.gathers_updates:
            return
        for source in epoch.sources:
            if _combines(epoch, source) and source.plan.uneven and not source.plan.replicated:
                counts = [str(facts.updates) for facts in source.plan.facts]
                message = (
                    f"{source.metric} {source.name!r} was updated {', '.join(counts)} times on the"
                    f" {several(epoch.world_size, 'rank')}, and torchmetrics gathers every update by itself: the ranks"
                    " wait for each other, or abort."
                )
                yield from self.at_source(epoch, source, message)
        for states in epoch.states:
            yield from self._about_states(epoch, states)

    def _about_states(self, epoch: EpochView, states: StateView) -> Iterator[Finding]:
        keys = [key for key in epoch.keys if key.first.kind == "metric" and states.name in key.first.shows]
        if states.fault is None or (states.shown_by_forward and not keys):
            return
        counts = ", ".join(map(str, states.updates))
        message = (
            f"{states.metric} {states.name!r} was updated {counts} times on the"
            f" {several(len(states.ranks), 'rank')}, {_why(states)}"
        )
        if states.problem:
            message += f" Its states cannot be merged: {states.problem}."
        for key in keys:
            yield self.at_key(epoch, key, message)
        if not keys:
            yield self.at_update(epoch, states, message, ranks=states.ranks)


def _why(states: StateView) -> str:
    if states.fault == "absent":
        verb = "does" if len(states.absent) == 1 else "do"
        return f"and {listed(states.absent)} {verb} not come to its compute(): the others wait, or abort."
    if states.fault == "lists":
        return "and torchmetrics gathers every element of its lists by itself: the ranks wait for each other, or abort."
    if states.fault == "joined":
        return "and what torchmetrics sends for an empty list does not go with the others' lists: the ranks abort."
    return "and torchmetrics counts the states of every rank alike."


def _combines(epoch: EpochView, source: SourceView) -> bool:
    """Whether the metric is going to combine ranks: it is logged itself, or nothing but its rows is known yet."""
    if not source.synchronises:
        return False
    logged = any(key.first.kind == "metric" for key in epoch.keys_of(source))
    return logged or not source.shown_by_forward
