"""LRG203 never-synced

## What it flags
An epoch value that differs between ranks because nothing combines it. It is a plain value or the value of `forward()`,
logged without `sync_dist`, or a metric that was built with `sync_on_compute=False` or has no states. Not reported are
values that are the same on all ranks, values logged with `rank_zero_only=True`, and plain values of the training.

## Why it is wrong
The logger shows the value of rank 0, which saw only its part of the data. Checkpoints, early stopping and schedulers
decide on each rank by a number of its own.

## Example
    self.log("val_recall", self.recall(scores, target, indexes=ids))

## Use instead
    self.recall.update(scores, target, indexes=ids)
    self.log("val_recall", self.recall)

## What correct mode does
It logs the value over all ranks. A plain value that is logged in an epoch-end hook stays as it is, because the guard
cannot know how to combine it. So do a sum, minimum or maximum over steps that is not a count, and the number of a
metric that keeps no rows and combines no ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity, all_same
from lightning_retrieval_guard.report.text import several
from lightning_retrieval_guard.rules.base import Rule, RuleSpec, effect_of, monitored_note

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.source_view import SourceView
    from lightning_retrieval_guard.epoch.views import EpochView, KeyView


class NeverSynced(Rule):
    """A value of this rank alone is logged as the value of the epoch."""

    spec = RuleSpec(
        "LRG203",
        "never-synced",
        Severity.ERROR,
        "Pass sync_dist=True.",
        corrects="value",
        static=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for key in epoch.keys:
            if key.is_shared and _shows_one_rank(key):
                ranks = several(epoch.world_size, "rank")
                message = (
                    f"'{key.first.name}' is a rank's own value, never combined over {ranks}:"
                    f" the logger shows the shard of rank 0.{monitored_note(epoch, key)}"
                )
                yield self.at_key(epoch, key, message, fix=_fix(key), effect=effect_of(epoch, key))


def _shows_one_rank(key: KeyView) -> bool:
    if key.sources:
        return any(_is_of_one_rank(key, source) for source in key.sources)
    return is_lone_value(key) or is_lone_object(key)


def is_lone_value(key: KeyView) -> bool:
    """Whether a value of one rank is shown as a result of all, without rows that would tell more."""
    first = key.first
    alone = not first.sync_dist and not first.synced and first.value is not None and key.world_size > 1
    return alone and key.evaluates and _differs(key)


def is_lone_object(key: KeyView) -> bool:
    """Whether a metric object is logged that combines no ranks, and these come to different numbers."""
    values = [facts.of_shard for facts in key.present]
    return None not in values and not all_same(values)


def _differs(key: KeyView) -> bool:
    """Whether every rank that has seen a batch logged the key, and not all the same number."""
    values = [facts.rank_value for facts in key.present]
    missing = any(facts is None and rank not in key.idle for rank, facts in enumerate(key.facts))
    return not missing and None not in values and not all_same(values)


def _is_of_one_rank(key: KeyView, source: SourceView) -> bool:
    first = key.first
    if source.syncs_itself:
        return first.kind == "compute" and not first.in_step and _differs(key)
    if first.sync_dist or key.world_size == 1 or (first.kind != "forward" and source.synchronises):
        return False
    if first.kind == "metric" or key.replaced:
        return not source.plan.replicated and source.plan.has_rows
    return not first.synced and _differs(key)


_LOG_OBJECT = "Log the metric object, built with sync_on_compute=True."
_ADD_STATES = "Give the metric states with add_state(): what it keeps in attributes of its own stays on each rank."


def _fix(key: KeyView) -> str | None:
    if key.first.lacks_states and key.first.kind != "forward":
        return _ADD_STATES
    if is_lone_object(key):
        return "Build the metric with sync_on_compute=True."
    if key.source is None:
        # sync_dist=True would log the mean of the values of the ranks
        return None if key.first.kind == "plain" else _LOG_OBJECT
    if key.source.plan.ids_restart:
        return (
            "Log the metric object, built with sync_on_compute=True, and pass ids that are unique over the epoch: yours"
            " restart in each batch or on each rank."
        )
    if key.source.syncs_itself:
        return "Leave dist_sync_fn out: it keeps the rows of the rank."
    return _LOG_OBJECT
