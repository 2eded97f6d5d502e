"""Whether each query has one relevant row that nothing else ties with."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalPrecision, RetrievalRecall

from lightning_retrieval_guard.epoch.combine import score_update
from lightning_retrieval_guard.epoch.row_facts import RowFacts, gather_facts
from lightning_retrieval_guard.epoch.row_table import build_table
from lightning_retrieval_guard.run.epoch_rows import SharedRows

from .simulated import Update, update

FIRST = update([5, 5, 3, 3], [0.9, 0.1, 0.7, 0.8], [1, 0, 1, 0])
SECOND = update([4, 4, 6, 6], [0.3, 0.2, 0.4, 0.5], [0, 1, 1, 0])
WIDE = update([2**62, 2**62, -(2**62)], [0.9, 0.1, 0.7], [1, 0, 1])


def one_answer(*lives: list[Update], seek: bool = True) -> bool:
    states = [([u[0] for u in life], [u[1] for u in life], [u[2] for u in life]) for life in lives]
    table = build_table(states)
    facts, _ = gather_facts(table, (), 1, seek_answer=seek)
    return facts.one_answer


def test_one_relevant_row_a_query() -> None:
    assert one_answer([FIRST])
    assert one_answer([FIRST, SECOND])
    assert one_answer([FIRST], [FIRST, SECOND])  # ids of another life are other queries
    assert one_answer([WIDE], [FIRST])


def test_it_is_only_looked_for_where_it_is_asked() -> None:
    assert not one_answer([FIRST], seek=False)
    assert "one_answer" not in RowFacts().to_payload()


@pytest.mark.parametrize(
    "more",
    [
        update([5], [0.5], [1]),
        update([7, 7], [0.5, 0.4], [0, 0]),
        update([5], [0.9], [0]),
        update([7, 7], [0.0, -1.0], [1, 0]),
        update([7, 7], [float("nan"), 0.5], [1, 0]),
        update([7, 7], [0.5, 0.4], [2, 0]),
        update([7, 7], [0.5, 0.4], [1, -1]),
    ],
    ids=["second-relevant", "nothing-relevant", "tie", "score-of-zero", "no-number", "graded", "negative"],
)
def test_one_other_query_is_enough(more: Update) -> None:
    assert not one_answer([FIRST, more])
    assert not one_answer([FIRST], [more, FIRST])


def test_equal_scores_of_other_rows_do_not_matter() -> None:
    assert one_answer([FIRST, update([7, 7, 7], [0.5, 0.1, 0.1], [1, 0, 0])])
    assert one_answer([FIRST, update([7, 7], [0.9, 0.1], [1, 0])])


def test_rows_that_are_gone_tell_nothing() -> None:
    many = update([1] * 9, [0.9 - 0.1 * row for row in range(9)], [1] + [0] * 8)
    scored = score_update(many, RetrievalRecall(top_k=1))
    table = build_table([tuple([column[:0]] for column in many)], {0: scored})
    assert one_answer([many])
    assert not gather_facts(table, (), 1, seek_answer=True)[0].one_answer


@pytest.mark.parametrize(
    ("metrics", "compares"),
    [
        ([RetrievalRecall(top_k=1), RetrievalMRR(top_k=1)], True),
        ([RetrievalHitRate(top_k=1), RetrievalPrecision(top_k=1), RetrievalMRR()], True),
        ([RetrievalRecall(top_k=1), RetrievalRecall(top_k=1)], False),
        ([RetrievalRecall(top_k=1), RetrievalMRR()], False),
        ([RetrievalRecall(top_k=1), RetrievalMRR(top_k=2)], False),
        ([], False),
    ],
)
def test_it_is_asked_where_metrics_can_be_compared(metrics: list[torch.nn.Module], compares: bool) -> None:
    rows = SharedRows(None, lambda *_, **__: (RowFacts(), None))
    rows.metrics.extend(metrics)
    assert rows.compares_best is compares
