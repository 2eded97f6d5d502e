"""The order of rows with equal scores decides values."""

import pytest
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from tests.unit.simulated import update

from .factories import facts, findings_of, source, stage, the_finding

TIED = update([0, 0], [0.5, 0.5], [1, 0])
CLEAR = update([1, 1], [0.9, 0.1], [1, 0])
OWN = facts("val_mrr", kind="metric", source="recall")


def of_ranks(*ranks: list, metric=None) -> KeyView:
    return KeyView((OWN,) * len(ranks), source(ranks, metric or RetrievalMRR()))


@pytest.mark.parametrize("key", [of_ranks([TIED, CLEAR]), of_ranks([TIED], [CLEAR]), of_ranks([CLEAR], [TIED])])
def test_it_tells_the_share(key: KeyView) -> None:
    finding = the_finding("LRG304", stage(key))
    assert (finding.severity, finding.effect, finding.corrected) == (Severity.WARNING, None, False)
    assert finding.text() == (
        "LRG304 tied-scores: 'val_mrr' depends on the order of rows with equal scores, relevant and not, in"
        " 1 of 2 queries (50.0%). Score in float32, and break ties on purpose."
    )


def test_a_tie_at_the_cut_of_a_hit_rate() -> None:
    tied = update([0, 0, 0], [0.9, 0.5, 0.5], [0, 1, 0])
    assert the_finding("LRG304", stage(of_ranks([tied], metric=RetrievalHitRate(top_k=2)))).ranks == (0,)


def test_a_few_are_a_note() -> None:
    clear = [update([number, number], [0.9, 0.1], [1, 0]) for number in range(2, 1003)]
    assert the_finding("LRG304", stage(of_ranks([TIED, *clear]))).severity is Severity.NOTE
    assert the_finding("LRG304", stage(of_ranks([TIED, *clear[:500]]))).severity is Severity.WARNING


@pytest.mark.parametrize(
    "key",
    [
        of_ranks([CLEAR]),
        of_ranks([TIED], metric=RetrievalNormalizedDCG()),  # it averages ties
        of_ranks([update([0, 0], [0.5, 0.5], [1, 1])]),
        # a hit above the tie decides already
        of_ranks([update([0, 0, 0], [0.9, 0.5, 0.5], [1, 1, 0])], metric=RetrievalHitRate(top_k=2)),
        KeyView((facts(value=1.0, weight=1.0),)),
    ],
)
def test_right_programs_are_silent(key: KeyView) -> None:
    assert not findings_of("LRG304", stage(key))
