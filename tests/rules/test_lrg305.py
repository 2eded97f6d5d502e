"""Queries are ranked against the samples of their own rank only."""

from typing import Any

import pytest
import torch
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from tests.unit.simulated import Update, update

from .factories import facts, findings_of, source, stage, the_finding

# two samples on each rank, each against both
FIRST = update([0, 0, 1, 1], [0.9, 0.1, 0.4, 0.6], [1, 0, 0, 1])
SECOND = update([2, 2, 3, 3], [0.8, 0.2, 0.7, 0.3], [1, 0, 0, 1])
THREE = update([2, 2, 2, 3, 3, 3, 4, 4, 4], [0.8, 0.2, 0.1] * 3, [1, 0, 0, 0, 1, 0, 0, 0, 1])
BLOCK = torch.eye(4, dtype=torch.long)
PAIRS = torch.arange(4).repeat_interleave(4), torch.linspace(0.1, 0.9, 16), BLOCK.flatten()
OTHERS = PAIRS[0], PAIRS[1].flip(0), PAIRS[2]


def logged(*ranks: list[Update], **options: Any) -> KeyView:
    view = source(list(ranks), RetrievalMRR(), **{"samples": [2], "in_steps": False, **options})
    key_facts = facts("val_mrr", kind="metric", source="recall")
    return KeyView((key_facts,) * len(ranks), view, computed=0.9)


def test_as_many_candidates_as_the_rank_saw_samples() -> None:
    key = logged([FIRST], [SECOND])
    finding = the_finding("LRG305", stage(key))
    assert (finding.severity, finding.effect, finding.corrects) == (Severity.WARNING, None, None)
    assert finding.text() == (
        "LRG305 candidates-of-one-shard: 'val_mrr' ranks each query against at most 2 candidates, those of its own"
        " rank, of 4 on all ranks. On one device each query has all of them."
        " Gather the candidates of all ranks before you score, or evaluate on one device."
    )
    assert key.reference is None


def test_in_a_step_it_is_a_note_that_says_what_the_pool_was() -> None:
    pairs = logged([PAIRS, OTHERS], [OTHERS, PAIRS], samples=[4, 4], in_steps=True)
    finding = the_finding("LRG305", stage(pairs))
    assert finding.severity is Severity.NOTE
    assert finding.message == "'val_mrr' ranks each query against at most 4 samples, those of its batch."


@pytest.mark.parametrize(
    "key",
    [
        logged([FIRST]),
        logged([FIRST], [SECOND], samples=[3]),
        logged([FIRST], [THREE]),
        logged([FIRST], [FIRST]),
        logged([FIRST], [update([0, 0, 1, 1], [0.3, 0.2, 0.8, 0.5], [0, 1, 1, 0])]),
        logged([FIRST], [SECOND], in_steps=True),
    ],
    ids=["one-device", "other-candidates", "one-rank-only", "gathered", "of-all-ranks", "corpus-in-steps"],
)
def test_other_pools_are_silent(key: KeyView) -> None:
    assert not findings_of("LRG305", stage(key))


def test_lists_may_be_as_long_as_a_sanity_check_by_chance() -> None:
    assert not findings_of("LRG305", stage(logged([FIRST], [SECOND]), stage="sanity_check"))
