"""A value that combines all ranks already is reduced over the ranks again."""

import pytest

from lightning_retrieval_guard.epoch.states import StateFacts, StateView
from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity

from .factories import PATH, at_end, facts, findings_of, stage, the_finding


def computed(ranks: int = 3, **changed) -> KeyView:
    options = {"kind": "compute", "synced": True, "sync_dist": True, "reduction": "sum", **changed}
    return KeyView((at_end(0.25, "val_recall", **options),) * ranks)


def test_a_sum_is_too_large_by_the_number_of_ranks() -> None:
    finding = the_finding("LRG202", stage(computed()))
    assert finding.severity is Severity.ERROR
    assert (finding.key, finding.hook, finding.ranks) == ("val_recall", "on_validation_epoch_end", (0, 1, 2))
    assert finding.text() == (
        "LRG202 synced-twice: 'val_recall' combines all ranks already, and sync_dist=True with reduce_fx='sum' adds it"
        " up once for each of 3 ranks. Logged 0.7500, reference 0.2500 (3 x the reference: the number of ranks)."
        " Drop sync_dist and reduce_fx, or log the metric."
    )


def test_where_a_sample_counts_twice_the_metric_does_not_know_the_number_of_one_device() -> None:
    key = computed(2, shows=["mean"])
    assert the_finding("LRG202", stage(key, repeated=1)).effect is None
    ranks = (StateFacts("MeanMetric", PATH, 7, updates=2), StateFacts("MeanMetric", PATH, 7, updates=2, last_of=0))
    once = StateView("mean", (0, 1), ranks, repeated=1)
    # it was computed of states without that sample
    assert the_finding("LRG202", stage(key, states=(once,), repeated=1)).effect.reference == 0.25


def test_the_sum_of_zeros_is_a_note() -> None:
    key_facts = at_end(0.0, kind="compute", synced=True, sync_dist=True, reduction="sum")
    assert the_finding("LRG202", stage(KeyView((key_facts, key_facts)))).severity is Severity.NOTE


def test_a_mean_is_a_note() -> None:
    finding = the_finding("LRG202", stage(computed(reduction="mean")))
    assert finding.severity is Severity.NOTE
    assert finding.effect is None
    assert finding.text() == (
        "LRG202 synced-twice: 'val_recall' combines all ranks already; sync_dist=True averages equal numbers."
        " Drop sync_dist."
    )


def test_a_sum_within_steps_is_an_error_without_numbers() -> None:
    finding = the_finding("LRG202", stage(computed(in_step=True, hook="validation_step")))
    assert finding.severity is Severity.ERROR
    assert finding.effect is None


@pytest.mark.parametrize(
    "key",
    [
        computed(sync_dist=False),
        computed(synced=False),  # sync_on_compute=False: the sum combines the ranks
        computed(ranks=1),
        computed(reduction="max"),
        computed(rank_zero_only=True),
        computed(kind="plain"),
        KeyView((facts("val_recall", kind="metric", sync_dist=True),) * 2),
    ],
    ids=["no-sync-dist", "own-value", "one-rank", "max", "rank-zero-only", "plain", "metric"],
)
def test_right_programs_are_silent(key: KeyView) -> None:
    assert not findings_of("LRG202", stage(key))
