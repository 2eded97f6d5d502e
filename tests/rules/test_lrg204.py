"""A reduction that rank_zero_only switches off."""

import pytest

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity

from .factories import at_end, facts, findings_of, stage, steps, the_finding


def both_arguments(first: float, second: float, **changed) -> KeyView:
    options = {"world_size": 2, "sync_dist": True, "rank_zero_only": True, **changed}
    return KeyView((steps((first, 4, 4), **options), steps((second, 2, 2), **options)))


def test_both_arguments_switch_the_reduction_off() -> None:
    finding = the_finding("LRG204", stage(both_arguments(1.0, 4.0)))
    assert finding.severity is Severity.ERROR
    assert finding.ranks == (0, 1)
    assert finding.text() == (
        "LRG204 rank-zero-sync: 'val_loss' is logged with sync_dist=True and rank_zero_only=True. Lightning then"
        " reduces nothing, and the logger shows the shard of rank 0. Logged 1.0000, reference 2.0000."
        " Drop rank_zero_only."
    )


def test_equal_values_make_it_a_note() -> None:
    assert the_finding("LRG204", stage(both_arguments(1.0, 1.0))).severity is Severity.NOTE


def test_a_value_at_the_end_has_no_reference() -> None:
    options = {"sync_dist": True, "rank_zero_only": True}
    finding = the_finding("LRG204", stage(KeyView((at_end(1.0, **options), at_end(3.0, **options)))))
    assert (finding.severity, finding.effect) == (Severity.ERROR, None)


@pytest.mark.parametrize(
    "key",
    [
        both_arguments(1.0, 4.0, rank_zero_only=False),
        both_arguments(1.0, 4.0, sync_dist=False),
        KeyView((both_arguments(1.0, 4.0).facts[0],)),
        KeyView((facts("val_acc", kind="metric", sync_dist=True, rank_zero_only=True),) * 2),
    ],
    ids=["sync-dist", "rank-zero-only", "one-rank", "metric-combines-by-itself"],
)
def test_right_programs_are_silent(key: KeyView) -> None:
    assert not findings_of("LRG204", stage(key))
