"""Relevant rows with a score of zero or less are left out."""

import pytest
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from lightning_retrieval_guard.ranking.measures import ignores_low_scores
from tests.unit.simulated import update

from .factories import facts, findings_of, source, stage, the_finding

pytestmark = pytest.mark.skipif(
    not ignores_low_scores("recall"), reason="this torchmetrics counts rows with low scores"
)

LOW = update([0, 0], [-0.1, -0.9], [1, 0])
HIGH = update([1, 1], [0.9, -0.1], [1, 0])
OWN = facts("val_mrr", kind="metric", source="recall")


def of_ranks(*ranks: list, metric=None) -> KeyView:
    return KeyView((OWN,) * len(ranks), source(ranks, metric or RetrievalMRR()))


@pytest.mark.parametrize("key", [of_ranks([LOW, HIGH]), of_ranks([LOW], [HIGH]), of_ranks([HIGH], [LOW])])
def test_it_tells_the_share_and_the_other_value(key: KeyView) -> None:
    finding = the_finding("LRG303", stage(key))
    assert (finding.severity, finding.effect, finding.corrected) == (Severity.WARNING, None, False)
    assert finding.text() == (
        "LRG303 non-positive-scores: 'val_mrr' leaves out relevant rows with a score of zero or less, which changes the"
        " value of 1 of 2 queries (50.0%). Ranked by score alone it is 1.0000 in place of 0.5000."
        " Shift or scale the scores so that all are above zero; their order stays."
    )


def test_a_median_tells_its_share_alone() -> None:
    finding = the_finding("LRG303", stage(of_ranks([LOW, HIGH], metric=RetrievalMRR(aggregation="median"))))
    assert finding.message.endswith("1 of 2 queries (50.0%).")


@pytest.mark.parametrize(
    "key",
    [
        of_ranks([HIGH]),
        of_ranks([LOW], metric=RetrievalHitRate()),
        # the row with the low score is beyond the cut in any case
        of_ranks([update([0, 0], [0.9, -0.1], [0, 1])], metric=RetrievalMRR(top_k=1)),
        KeyView((facts(value=1.0, weight=1.0),)),
    ],
)
def test_right_programs_are_silent(key: KeyView) -> None:
    assert not findings_of("LRG303", stage(key))
