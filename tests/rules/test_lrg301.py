"""Query ids restart, so that different queries merge."""

from dataclasses import replace

import pytest
import torch
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.epoch.query_ids import IdColumns
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from tests.unit.simulated import Update, update

from .factories import facts, findings_of, source, stage, the_finding

# reciprocal ranks 1, 1 and 1/2; apart they give 0.8333, with the first and the last merged 1
FIRST = update([0, 0, 1, 1], [0.9, 0.1, 0.6, 0.2], [1, 0, 1, 0])
SECOND = update([0, 0], [0.8, 0.7], [0, 1])
SAMPLES = [2, 1]


def logged(view: SourceView, computed: float | None = None) -> KeyView:
    key_facts = facts("val_mrr", kind="metric", source="recall")
    return KeyView((key_facts,) * len(view.plan.facts), view, computed=computed)


def restarting(*ranks: list[Update], **changed) -> SourceView:
    return source(list(ranks), RetrievalMRR(), **{"samples": SAMPLES, **changed})


def test_ids_that_restart_in_each_batch_merge_queries_on_one_device() -> None:
    finding = the_finding("LRG301", stage(logged(restarting([FIRST, SECOND]), 1.0)))
    assert finding.severity is Severity.ERROR
    assert finding.ranks == (0,)
    assert finding.text() == (
        "LRG301 restarting-query-ids: 'val_mrr' got 3 queries, one for each sample, under at most 2 ids that restart in"
        " each batch or on each rank, so different queries merge. Logged 1.0000, reference 0.8333."
        " Pass ids that are unique over the epoch, such as the index in the dataset."
    )


def test_ids_that_restart_on_each_rank_merge_queries() -> None:
    ranks = restarting(DATASET_IDS, [SECOND, ONE], samples=[1, 1], counted=True)
    finding = the_finding("LRG301", stage(logged(ranks, 1.0)))
    assert finding.ranks == (0, 1)
    assert (finding.effect.logged, finding.effect.reference) == (1.0, 0.625)
    assert "got 4 queries, one for each sample, under at most 2 ids that" in finding.message


def test_gathered_rows_count_each_query_once() -> None:
    finding = the_finding("LRG301", stage(logged(restarting([FIRST, SECOND], [FIRST, SECOND]))))
    assert "got 3 queries," in finding.message


def test_a_merge_without_effect_is_a_note() -> None:
    twin = update([0, 0], [0.8, 0.7], [1, 0])
    finding = the_finding("LRG301", stage(logged(restarting([FIRST, twin]), 1.0)))
    assert finding.severity is Severity.NOTE


def test_ranges_of_ids_leave_ranks_without_rows_out() -> None:
    high = [update([7, 7, 8, 8], [0.9, 0.1, 0.6, 0.2], [1, 0, 1, 0]), update([7, 7], [0.8, 0.7], [0, 1])]
    finding = the_finding("LRG301", stage(logged(restarting(high, []))))
    assert "under at most 2 ids that" in finding.message


def test_ids_that_only_may_restart_are_a_warning_without_numbers() -> None:
    other = update([0, 0, 1, 1, 1], [0.8, 0.7, 0.5, 0.4, 0.3], [0, 1, 1, 0, 0])
    view = restarting([FIRST, other], samples=[2, 2])
    finding = the_finding("LRG301", stage(logged(view, 1.0)))
    assert (finding.severity, finding.effect, finding.corrects) == (Severity.WARNING, None, None)
    assert finding.message == (
        "'val_mrr' got 4 queries, one for each sample, under at most 2 ids that come again. Different queries merge if"
        " these ids number the samples of a batch."
    )
    assert 'query_scope="global"' in finding.fix
    assert logged(view, 1.0).reference is None
    each = facts("val_mrr", kind="forward", source="recall", calls=2, value=1.5, weight=4.0)
    assert not findings_of("LRG301", stage(KeyView((each,), view)))


ONE = update([1, 1], [0.8, 0.7], [0, 1])
DATASET_IDS = [update([0, 0], [0.9, 0.1], [1, 0]), ONE]
HALVES = [update([0], [0.9], [1]), update([0], [0.8], [0])]  # one query, its documents in two batches
CORPUS = [update([0, 1], [0.9, 0.3], [1, 0]), update([0, 1], [0.8, 0.4], [0, 1])]  # one document a sample
# a question of the data set that comes again with other candidates
AGAIN = [*DATASET_IDS, SECOND]
OF_THE_DATA = IdColumns(({"qid": torch.tensor([0, 1])},))


@pytest.mark.parametrize(
    "view",
    [
        restarting(DATASET_IDS, samples=[1, 1]),
        restarting(HALVES, samples=[1, 1]),
        restarting(HALVES[:1], HALVES[1:], samples=[1]),
        restarting(CORPUS, samples=[1, 1]),
        restarting(CORPUS[:1], CORPUS[1:], samples=[1]),
        restarting(AGAIN, samples=[1] * 3),
        restarting(AGAIN, [update([1, 1], [0.6, 0.5], [1, 0])], samples=[1] * 3),
        restarting([FIRST, FIRST], samples=[2, 2]),  # identical rows: the same samples twice
        restarting([FIRST, SECOND], samples=[3, 2]),  # more samples than queries
        restarting([FIRST, SECOND], samples=[None, None]),
        restarting([FIRST, SECOND], scope="global"),
        restarting([FIRST, SECOND], columns=OF_THE_DATA),
    ],
    ids=[
        *("dataset-ids", "split-over-batches", "split-over-ranks", "corpus-over-batches", "corpus-over-ranks"),
        *("question-again", "question-again-over-ranks", "repeated-sample"),
        *("fewer-queries-than-samples", "samples-unknown", "declared-global", "of-the-data"),
    ],
)
def test_legal_programs_are_silent(view: SourceView) -> None:
    assert not findings_of("LRG301", stage(logged(view)))


def test_a_declared_scope_makes_it_certain() -> None:
    view = restarting([FIRST, SECOND], scope="batch")
    assert view.plan.ids_restart
    assert the_finding("LRG301", stage(logged(view, 1.0))).effect.reference == pytest.approx(2.5 / 3)


def test_a_declared_scope_says_nothing_of_ids_that_are_unique() -> None:
    other = update([5, 5], [0.3, 0.2], [0, 1])
    for ranks in ([[FIRST, other]], [[FIRST], [other]]):
        view = restarting(*ranks, scope="batch")
        assert view.plan.ids_restart
        assert not findings_of("LRG301", stage(logged(view)))


def test_a_value_of_each_batch_is_not_merged() -> None:
    """Each value is that of one batch on one rank: unique ids would not change it."""
    view = restarting([FIRST, SECOND])
    each = facts("val_mrr", kind="forward", source="recall", calls=2, value=1.5, weight=2.0)
    assert not findings_of("LRG301", stage(KeyView((each,), view)))
    assert findings_of("LRG301", stage(KeyView((replace(each, synced=True),), view)))
