"""A MetricCollection shares the state of metrics whose updates differ."""

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score
from torchmetrics.retrieval import RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from lightning_retrieval_guard.watch.merged import merged_into
from lightning_retrieval_guard.watch.update_context import Given

from .factories import facts, findings_of, stage, the_finding

WHY = "BinaryF1Score has threshold=0.6 and BinaryAccuracy has 0.5"


@pytest.mark.parametrize(
    ("how", "severity"), [("rows", Severity.ERROR), ("update", Severity.WARNING), ("setting", Severity.NOTE)]
)
def test_it_is_as_serious_as_what_was_seen(how: str, severity: Severity) -> None:
    key = KeyView((facts("val_f1", kind="metric", merged=WHY, merged_how=how),), recomputed=None, computed=0.5)
    finding = the_finding("LRG406", stage(key))
    assert (finding.severity, finding.effect, finding.corrects) == (severity, None, None)
    assert finding.text() == (
        "LRG406 merged-compute-group: 'val_f1' shows the state of another member of its MetricCollection, which merged"
        " them after the first batch: BinaryF1Score has threshold=0.6 and BinaryAccuracy has 0.5."
        " Pass compute_groups=False to the MetricCollection."
    )


def test_a_metric_of_its_own_is_silent() -> None:
    assert not findings_of("LRG406", stage(KeyView((facts("val_f1", kind="metric"),), computed=0.5)))


class Halved(RetrievalMRR):
    def update(self, preds: Tensor, target: Tensor, indexes: Tensor) -> None:
        super().update(preds / 2, target, indexes)


@pytest.mark.parametrize(
    ("leader", "member", "how", "why"),
    [
        (RetrievalMRR(), RetrievalRecall(top_k=3), None, ""),
        (RetrievalMRR(), RetrievalNormalizedDCG(), None, ""),
        (RetrievalMRR(ignore_index=-1), RetrievalRecall(ignore_index=-1), None, ""),
        (BinaryAccuracy(), BinaryF1Score(), None, ""),
        (BinaryAccuracy(), BinaryF1Score(threshold=0.6), "setting", WHY),
        (RetrievalMRR(), Halved(), "update", "Halved has an update() of its own"),
        (RetrievalMRR(), RetrievalMRR(ignore_index=-1), "setting", "RetrievalMRR has ignore_index=-1 and"),
    ],
    ids=["top-k", "another-value", "same-filter", "same-update", "threshold", "own-update", "filter"],
)
def test_what_differs_between_updates(leader: Metric, member: Metric, how: str | None, why: str) -> None:
    merged = merged_into(leader, member)
    assert (merged.how if merged else None) == how
    assert merged is None or merged.why.startswith(why)


def test_torchmetrics_does_merge_such_members() -> None:
    collection = MetricCollection({"all": RetrievalNormalizedDCG(), "some": RetrievalNormalizedDCG(ignore_index=1)})
    collection.update(torch.tensor([0.9, 0.1]), torch.tensor([2, 0]), indexes=torch.tensor([0, 0]))
    assert [[type(one).__name__ for one in group] for group in _compat.compute_groups(collection)] == [
        ["RetrievalNormalizedDCG"] * 2
    ]


def test_the_rows_of_an_update_are_counted_however_they_are_passed() -> None:
    scores = torch.zeros(2, 3)
    for args, kwargs, rows, ids in [
        ((scores, scores, scores), {}, 6, scores),
        ((), {"preds": scores}, 6, None),
        (("text",), {}, None, None),
    ]:
        given = Given(args, kwargs)
        assert (given.rows, given.ids) == (rows, ids)
