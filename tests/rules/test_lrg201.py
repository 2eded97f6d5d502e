"""All ranks hold the same rows, and the metric combines them again."""

from dataclasses import replace

import pytest
import torch
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from tests.unit.simulated import Update

from .factories import at_end, facts, findings_of, source, stage, the_finding

PAIRS, HITS = 64, 27  # Recall@1 is 0.4219


def pairs() -> Update:
    """64 queries with their own document and three others; the own one comes first for 27 of them, else second."""
    ids = torch.arange(PAIRS).repeat_interleave(4)
    scores = torch.tensor([0.8, 0.6, 0.4, 0.2]).repeat(PAIRS) + torch.arange(4 * PAIRS) * 1e-6
    relevance = torch.zeros(PAIRS, 4, dtype=torch.int64)
    relevance[:HITS, 0] = 1
    relevance[HITS:, 1] = 1
    return ids, scores, relevance.flatten()


def gathered(ranks: int, **changed) -> SourceView:
    return source([[pairs()]] * ranks, **changed)


def metric_object(ranks: int, logged: float | None, **changed) -> KeyView:
    key_facts = facts("val_recall", kind="metric", source="recall", line=212)
    return KeyView((key_facts,) * ranks, gathered(ranks, **changed), computed=logged)


@pytest.mark.parametrize(("ranks", "logged"), [(2, 0.2109), (4, 0.1055)])
def test_recall_is_divided_by_the_number_of_ranks(ranks: int, logged: float) -> None:
    # correct mode: what torchmetrics makes of the rows is worked out
    key = replace(metric_object(ranks, None), replaced=True)
    finding = the_finding("LRG201", stage(key, corrected=frozenset({key.first.storage})))
    assert finding.severity is Severity.ERROR
    assert finding.corrected
    assert finding.effect.logged == pytest.approx(logged, abs=5e-5)
    assert finding.effect.reference == pytest.approx(HITS / PAIRS)


def test_the_message_tells_ranks_rows_numbers_and_fix() -> None:
    finding = the_finding("LRG201", stage(metric_object(2, HITS / PAIRS / 2)))
    assert finding.key == "val_recall"
    assert finding.ranks == (0, 1)
    assert finding.text() == (
        "LRG201 gathered-before-sync: 'val_recall' on 2 ranks holds the same 256 rows on every rank, and torchmetrics"
        " combines them again. Logged 0.2109, reference 0.4219 (1/2 of the reference: the number of ranks)."
        " Pass each rank's own rows, or build the metric with sync_on_compute=False."
    )


def test_classes_of_ranks_that_hold_the_same_rows_are_found() -> None:
    first, second = (tuple(column[half] for column in pairs()) for half in (slice(128), slice(128, 256)))
    key_facts = facts("val_recall", kind="metric", source="recall", line=212)
    for updates in ([[first]] * 2 + [[second]] * 2, [[first], [second]] * 2):
        finding = the_finding("LRG201", stage(KeyView((key_facts,) * 4, source(updates), computed=HITS / PAIRS / 2)))
        assert finding.severity is Severity.ERROR
        assert finding.text().startswith(
            "LRG201 gathered-before-sync: 'val_recall' on 4 ranks holds 2 sets of rows, each on 2 of them, and"
            " torchmetrics combines them again. Logged 0.2109, reference 0.4219. Pass each rank"
        )


def test_a_value_computed_in_the_step_is_found_too() -> None:
    key_facts = facts("val_recall", kind="compute", source="recall", synced=True, sync_dist=True)
    rank_facts = [facts(**{**vars(key_facts), "value": 32 * 0.2109375, "weight": 32.0})] * 2
    finding = the_finding("LRG201", stage(KeyView(tuple(rank_facts), gathered(2))))
    assert finding.text().count("Logged 0.2109, reference 0.4219 (1/2 of the reference: the number of ranks).") == 1


def test_a_metric_whose_number_is_right_by_chance_is_a_note() -> None:
    key = replace(metric_object(2, None, metric=RetrievalMRR(top_k=1)), replaced=True)
    finding = the_finding("LRG201", stage(key))
    assert finding.severity is Severity.NOTE
    assert finding.effect.logged == finding.effect.reference == pytest.approx(HITS / PAIRS)


@pytest.mark.parametrize(
    "key",
    [
        metric_object(2, 0.42, synchronises=False),
        metric_object(1, 0.42),
        KeyView((facts("val_recall", kind="forward", source="recall", value=0.42, weight=1.0),) * 2, gathered(2)),
        KeyView((at_end(0.42, "val_recall"),) * 2),
    ],
    ids=["sync-off", "one-rank", "forward", "no-source"],
)
def test_right_programs_are_silent(key: KeyView) -> None:
    assert not findings_of("LRG201", stage(key))


def test_each_rank_with_rows_of_its_own_is_silent() -> None:
    ids, scores, relevance = pairs()
    halves = [[(ids[:128], scores[:128], relevance[:128])], [(ids[128:], scores[128:], relevance[128:])]]
    key_facts = facts("val_recall", kind="metric", source="recall")
    key = KeyView((key_facts, key_facts), source(halves, RetrievalRecall(top_k=1)), computed=HITS / PAIRS)
    assert key.effect is not None
    assert key.effect.is_nil
    assert not findings_of("LRG201", stage(key))
