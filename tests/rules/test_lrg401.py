"""A metric holds rows of an earlier epoch."""

from dataclasses import replace

import pytest
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from tests.unit.simulated import update

from .factories import at_end, facts, findings_of, source, stage, the_finding

ROWS = [[update([0, 0], [0.9, 0.1], [0, 1])]]


def stale(**changed: object) -> KeyView:
    held = replace(source(ROWS, RetrievalMRR()), **{"stale": 8, "as_combined": None, **changed})
    return KeyView((at_end(0.75, "val_mrr", kind="compute", source="recall"),), held)


@pytest.mark.parametrize(("sanity", "origin"), [(True, "the sanity check"), (False, "earlier epochs")])
def test_rows_that_count(sanity: bool, origin: str) -> None:
    finding = the_finding("LRG401", stage(stale(sanity=sanity)))
    assert finding.severity is Severity.ERROR
    assert (finding.effect.logged, finding.effect.reference) == (0.75, 0.5)
    assert not finding.corrected
    assert finding.text() == (
        f"LRG401 stale-state: RetrievalMRR 'recall' still counts 8 rows of {origin}. Logged 0.7500, reference 0.5000."
        " Log the metric object, which Lightning resets, or call reset() at the end of the epoch."
    )


def test_rows_that_were_dropped() -> None:
    finding = the_finding("LRG401", stage(stale(stale=1, dropped=True)))
    assert (finding.severity, finding.effect, finding.corrected) == (Severity.ERROR, None, True)
    assert finding.message == (
        "RetrievalMRR 'recall' began the epoch with 1 row of earlier epochs, dropped before they could count."
    )


def test_the_merged_value_of_a_logged_object_is_not_guessed() -> None:
    key = KeyView((facts("val_mrr", kind="metric", source="recall"),), stale().source)
    assert the_finding("LRG401", stage(key)).effect is None
    key = KeyView(key.facts, key.source, computed=0.8)
    assert the_finding("LRG401", stage(key)).effect.logged == 0.8


@pytest.mark.parametrize("dropped", [False, True])
def test_another_metric(dropped: bool) -> None:
    key_facts = at_end(0.75, "val_acc", kind="compute", metric="BinaryAccuracy", stale=3, sanity=True, dropped=dropped)
    finding = the_finding("LRG401", stage(KeyView((key_facts, key_facts))))
    assert (finding.severity, finding.effect, finding.corrected) == (Severity.ERROR, None, dropped)
    assert finding.message.startswith("BinaryAccuracy behind 'val_acc' ")
    assert "6 updates of the sanity check" in finding.message


def test_rows_that_no_key_shows() -> None:
    hidden = stale(dropped=True)
    view = stage(KeyView((at_end(0.75),)), sources=[hidden.source])
    finding = the_finding("LRG401", view, line=7)
    assert (finding.severity, finding.key, finding.hook) == (Severity.NOTE, "recall", "update")
    assert not findings_of("LRG401", stage(KeyView((at_end(0.75),)), sources=[stale().source]))


def test_values_of_forward_are_free_of_them() -> None:
    for dropped in (False, True):
        stale_key = stale(dropped=dropped)
        forward = KeyView((facts("val_mrr", kind="forward", source="recall", value=0.5, weight=1.0),), stale_key.source)
        assert not findings_of("LRG401", stage(forward))


def test_right_programs_are_silent() -> None:
    assert not findings_of("LRG401", stage(stale(stale=0)))
    assert not findings_of("LRG401", stage(KeyView((at_end(0.75, kind="compute", metric="BinaryAccuracy"),))))
