"""The value of a growing metric is logged in every step."""

import pytest
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from tests.unit.simulated import update

from .factories import at_end, facts, findings_of, source, stage, steps, the_finding

UPDATES = [update([0, 0], [0.9, 0.1], [1, 0]), update([1, 1], [0.9, 0.1], [0, 1])]


def running(*values: float, updates: int = 2, **changed: object) -> KeyView:
    key = steps(
        *[(value, 2, 2) for value in values], name="val_mrr", **{"kind": "compute", "source": "recall", **changed}
    )
    return KeyView((key,), source([UPDATES[:updates]], RetrievalMRR()))


def test_the_mean_of_running_values() -> None:
    finding = the_finding("LRG402", stage(running(1.0, 0.75)))
    assert finding.severity is Severity.ERROR
    assert (finding.effect.logged, finding.effect.reference) == pytest.approx((0.875, 0.75))
    assert finding.text() == (
        "LRG402 running-value: 'val_mrr' is the mean of 2 running values: RetrievalMRR goes on growing while its"
        " compute() is logged in every step. Logged 0.8750, reference 0.7500."
        " Log the metric object in the step, or compute() once at the end of the epoch."
    )


def test_another_metric() -> None:
    key = KeyView((steps((1.0, 2, 2), (0.75, 2, 2), kind="compute", metric="MeanMetric", running=True),))
    finding = the_finding("LRG402", stage(key))
    assert (finding.severity, finding.effect) == (Severity.ERROR, None)
    assert the_finding("LRG402", stage(KeyView(key.facts, recomputed=0.75))).effect.logged == pytest.approx(0.875)


@pytest.mark.parametrize(
    "key",
    [
        running(1.0, updates=1),
        running(1.0, 0.5, kind="forward"),
        KeyView((at_end(0.75, kind="compute", source="recall"),), source([UPDATES], RetrievalMRR())),
        KeyView((facts(kind="metric", source="recall", calls=2),), source([UPDATES], RetrievalMRR())),
        KeyView((steps((1.0, 2, 2), (0.5, 2, 2), kind="compute", metric="BinaryAccuracy"),)),
    ],
)
def test_right_programs_are_silent(key: KeyView) -> None:
    assert not findings_of("LRG402", stage(key))
