"""Ranks updated a retrieval metric unequally often."""

import pytest
import torch
from unit.simulated import Update, update

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from lightning_retrieval_guard.rules import REGISTRY

from .factories import facts, found, source, stage, the_finding


def updates(*counts: int) -> list[list[Update]]:
    """So many updates on each rank, each with a query of its own."""
    ids = iter(range(sum(counts)))
    return [[update([query, query], [0.9, 0.1], [1, 0]) for query in (next(ids) for _ in range(n))] for n in counts]


def test_it_speaks_before_lightning_combines_ranks() -> None:
    assert REGISTRY["LRG205"].spec.precedes_reduction


def test_the_counts_of_all_ranks_are_named_at_the_log_call() -> None:
    key = KeyView((facts("val_recall", kind="metric", source="recall"),) * 3, source(updates(3, 2, 0)))
    finding = the_finding("LRG205", stage(key))
    assert finding.severity is Severity.ERROR
    assert (finding.key, finding.hook, finding.ranks) == ("val_recall", "validation_step", (0, 1, 2))
    assert finding.text() == (
        "LRG205 uneven-updates: RetrievalRecall 'recall' was updated 3, 2, 0 times on the 3 ranks, and torchmetrics"
        " gathers every update by itself: the ranks wait for each other, or abort."
        " Update it equally often on every rank, or let the guard run with mode='correct'."
    )


def test_a_metric_without_a_log_call_is_named_at_its_first_update() -> None:
    seen = stage(world_size=2, sources=[source(updates(1, 0))])
    finding = the_finding("LRG205", seen, line=7)
    assert (finding.key, finding.hook, finding.ranks) == ("recall", "update", (0, 1))
    assert finding.severity is Severity.ERROR


@pytest.mark.parametrize(
    "own",
    [source(updates(2, 2)), source(updates(3)), source(updates(2, 1), synchronises=False), source(updates(0, 0))],
    ids=["equal", "one-rank", "sync-off", "no-updates"],
)
def test_right_programs_are_silent(own) -> None:
    assert not found("LRG205", stage(world_size=len(own.plan.facts), sources=[own]))


def test_gathered_rows_in_unequal_updates_are_left_to_lrg201() -> None:
    first, second = updates(2)[0]
    joined = tuple(torch.cat(parts) for parts in zip(first, second, strict=True))
    assert not found("LRG205", stage(world_size=2, sources=[source([[first, second], [joined]])]))


def test_a_metric_whose_forward_values_are_logged_never_combines_ranks() -> None:
    own = source(updates(2, 1), shown_by_forward=True)
    forward = KeyView((facts("val_recall", kind="forward", source="recall", value=1.0, weight=1.0),) * 2, own)
    assert not found("LRG205", stage(forward))
    both = KeyView((facts("val_again", kind="metric", source="recall"),) * 2, own)
    assert found("LRG205", stage(forward, both))
