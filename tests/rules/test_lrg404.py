"""One metric for several dataloaders or stages."""

from dataclasses import replace

import pytest
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from tests.unit.simulated import update

from .factories import facts, findings_of, source, stage, steps, the_finding

ROWS = [[update([0, 0], [0.9, 0.1], [0, 1])]]


def shared(rows: int, kind: str = "metric") -> KeyView:
    held = replace(source(ROWS, RetrievalMRR()), shared=rows)
    return KeyView((facts("val_mrr", kind=kind, source="recall"),), held, computed=0.75)


def test_rows_of_another_dataloader() -> None:
    finding = the_finding("LRG404", stage(shared(6)))
    assert finding.severity is Severity.ERROR
    assert (finding.effect.logged, finding.effect.reference) == (0.75, 0.5)
    assert finding.text() == (
        "LRG404 shared-metric: 'val_mrr' shows a RetrievalMRR that also holds 6 rows of another dataloader or stage."
        " Logged 0.7500, reference 0.5000. Make one metric for each dataloader and stage, in a ModuleList or a"
        " ModuleDict."
    )


def test_another_metric() -> None:
    key = KeyView((facts("val_acc", kind="metric", metric="BinaryAccuracy", shared=1),))
    finding = the_finding("LRG404", stage(key))
    assert (finding.severity, finding.effect) == (Severity.ERROR, None)
    assert "a BinaryAccuracy that also holds 1 update of another" in finding.message


def test_a_metric_of_the_validation_that_the_training_logs_is_not_shared() -> None:
    held = replace(source(ROWS, RetrievalMRR()), shared=6, elsewhere=True)
    key = KeyView((facts("val_mrr", kind="compute", source="recall", in_step=False, value=0.5, weight=1.0),), held)
    assert not findings_of("LRG404", stage(key))
    # its rows were judged with those of the validation, and not here
    assert key.reference is None
    ranks = [facts("val_acc", kind="metric", metric="BinaryAccuracy", shared=1, elsewhere=one) for one in (True, False)]
    assert not findings_of("LRG404", stage(KeyView((ranks[0], ranks[0]))))
    assert findings_of("LRG404", stage(KeyView(tuple(ranks))))


def test_what_another_stage_has_reset() -> None:
    key = KeyView((facts("train_acc", kind="metric", metric="BinaryAccuracy", lost=3),))
    finding = the_finding("LRG404", stage(key))
    assert finding.text() == (
        "LRG404 shared-metric: 'train_acc' lacks 3 updates of its BinaryAccuracy, which another stage has reset. Make"
        " one metric for each dataloader and stage, in a ModuleList or a ModuleDict."
    )
    assert not findings_of("LRG404", stage(KeyView((facts("train_acc", kind="forward", lost=3),))))


@pytest.mark.parametrize("key", [shared(0), shared(6, kind="forward"), KeyView((steps((0.5, 2, 2)),))])
def test_right_programs_are_silent(key: KeyView) -> None:
    assert not findings_of("LRG404", stage(key))
