"""Ranks updated a retrieval metric unequally often."""

from typing import Any

import pytest
import torch

from lightning_retrieval_guard.epoch.states import StateFacts, StateView
from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from lightning_retrieval_guard.rules import REGISTRY
from tests.unit.simulated import Update, update

from .factories import LINE, PATH, facts, findings_of, source, stage, the_finding


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
    "view",
    [source(updates(2, 2)), source(updates(3)), source(updates(2, 1), synchronises=False), source(updates(0, 0))],
    ids=["equal", "one-rank", "sync-off", "no-updates"],
)
def test_right_programs_are_silent(view) -> None:
    assert not findings_of("LRG205", stage(world_size=len(view.plan.facts), sources=[view]))


def test_gathered_rows_in_unequal_updates_are_left_to_lrg201() -> None:
    first, second = updates(2)[0]
    joined = tuple(torch.cat(parts) for parts in zip(first, second, strict=True))
    assert not findings_of("LRG205", stage(world_size=2, sources=[source([[first, second], [joined]])]))


def test_a_metric_whose_forward_values_are_logged_never_combines_ranks() -> None:
    view = source(updates(2, 1), shown_by_forward=True)
    forward = KeyView((facts("val_recall", kind="forward", source="recall", value=1.0, weight=1.0),) * 2, view)
    assert not findings_of("LRG205", stage(forward))
    both = KeyView((facts("val_again", kind="metric", source="recall"),) * 2, view)
    assert findings_of("LRG205", stage(forward, both))


# --- metrics that keep states -----------------------------------------------------------------------------------


def states(*ranks: StateFacts | None, **changed: Any) -> StateView:
    """A metric that keeps states, on all ranks."""
    return StateView("auroc", tuple(range(len(ranks))), ranks, **changed)


def fed(updates: int, **changed: Any) -> StateFacts:
    """The same on one rank."""
    return StateFacts("BinaryAUROC", PATH, 7, updates=updates, **changed)


UNEVEN_LISTS = (fed(2, lists=(2,)), fed(1, lists=(1,)))


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (
            states(*UNEVEN_LISTS),
            "2, 1 times on the 2 ranks, and torchmetrics gathers every element of its lists by itself: the ranks wait"
            " for each other, or abort.",
        ),
        (
            states(fed(2, holds_joined=True), None),
            "2, 0 times on the 2 ranks, and what torchmetrics sends for an empty list does not go with the others'"
            " lists: the ranks abort.",
        ),
        (
            states(fed(2), None, None, absent=(1, 2)),
            "2, 0, 0 times on the 3 ranks, and ranks 1 and 2 do not come to its compute(): the others wait, or abort.",
        ),
        (
            states(fed(3, averages=True), fed(1, averages=True)),
            "3, 1 times on the 2 ranks, and torchmetrics counts the states of every rank alike.",
        ),
        (
            states(*UNEVEN_LISTS, problem="RuntimeError: they do not fit"),
            "2, 1 times on the 2 ranks, and torchmetrics gathers every element of its lists by itself: the ranks wait"
            " for each other, or abort. Its states cannot be merged: RuntimeError: they do not fit.",
        ),
    ],
    ids=["lists", "joined", "absent", "weights", "problem"],
)
def test_it_says_why_states_cannot_be_combined(seen: StateView, why: str) -> None:
    finding = the_finding("LRG205", stage(world_size=len(seen.ranks), states=(seen,)), line=7)
    assert finding.message == f"BinaryAUROC 'auroc' was updated {why}"
    assert (finding.key, finding.hook, finding.ranks, finding.target) == ("auroc", "update", seen.ranks, "auroc")


def test_every_log_call_of_the_object_is_named() -> None:
    keys = [KeyView((facts(name, kind="metric", shows=["auroc"]),) * 2) for name in ("one", "two")]
    other = KeyView((facts("other", kind="metric", shows=["f1"]),) * 2)
    findings = findings_of("LRG205", stage(*keys, other, states=(states(*UNEVEN_LISTS),)))
    assert [(finding.key, finding.line) for finding in findings] == [("one", LINE), ("two", LINE)]


def test_states_that_come_out_right_are_silent() -> None:
    assert not findings_of("LRG205", stage(world_size=2, states=(states(fed(2), fed(1)),)))
    assert not findings_of("LRG205", stage(world_size=2, states=(states(*UNEVEN_LISTS),), gathers_updates=False))


def test_a_metric_of_which_only_forward_values_are_logged_is_silent() -> None:
    seen = states(*UNEVEN_LISTS, shown_by_forward=True)
    forward = KeyView((facts("step", kind="forward", shows=["auroc"], value=1.0, weight=1.0),) * 2)
    assert not findings_of("LRG205", stage(forward, states=(seen,)))
