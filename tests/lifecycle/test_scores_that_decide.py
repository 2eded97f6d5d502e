"""LRG303 and LRG304: low scores and ties decide values; the guard tells of it, and changes nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torchmetrics.functional.retrieval import retrieval_recall, retrieval_reciprocal_rank
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalRecall

from lightning_retrieval_guard import GuardError, RetrievalGuard
from lightning_retrieval_guard.ranking.measures import ignores_low_scores
from tests.distributed.harness import Pool
from tests.distributed.programs.data import Batch, rows_of
from tests.distributed.ranks import TARGET, on_ranks

from .alone import alone
from .programs import QUERIES, Trainable, batches

pytestmark = pytest.mark.timeout(90)
needs_low = pytest.mark.skipif(not ignores_low_scores("recall"), reason="this torchmetrics counts rows with low scores")

SHIFTS = {"low": -0.5, "high": 1.0}


class Scored(Trainable, LightningModule):
    """Logs metrics over scores that were moved, or rounded so that they tie."""

    def __init__(self, scores: str) -> None:
        super().__init__()
        self.scores = scores
        self.metrics = torch.nn.ModuleDict(
            {"mrr": RetrievalMRR(), "recall": RetrievalRecall(top_k=2), "hit": RetrievalHitRate(top_k=2)}
        )

    def rows(self, batch: Batch) -> Any:
        scores, target, ids = rows_of(batch)
        if self.scores == "tied":
            return (scores * 4).round() / 4 + 1, target, ids
        return scores + SHIFTS[self.scores], target, ids

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        rows = self.rows(batch)
        for name, metric in self.metrics.items():
            metric.update(*rows)
            self.log(name, metric)


def by_query(scores: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Scores and relevance of every query."""
    split: list[tuple[torch.Tensor, torch.Tensor]] = []
    for batch in batches():
        preds, target, ids = Scored(scores).rows(batch)
        split += [(preds[ids == one], target[ids == one]) for one in ids.unique()]
    return split


def validated(scores: str, *guard: RetrievalGuard) -> dict[str, float]:
    return alone(Scored(scores), *guard).numbers


def findings_by_key(guard: RetrievalGuard) -> dict[str, Any]:
    return {f"{finding.code} {finding.key}": finding for finding in guard.findings}


@needs_low
@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_low_scores(mode: Any) -> None:
    guard = RetrievalGuard(mode)
    assert validated("low", guard) == pytest.approx(validated("low"), abs=1e-6)
    assert set(findings_by_key(guard)) == {"LRG303 mrr", "LRG303 recall"}
    plain = torch.stack([retrieval_reciprocal_rank(*query) for query in by_query("low")])
    moved = torch.stack([retrieval_reciprocal_rank(*query) for query in by_query("high")])
    assert len(plain) == QUERIES
    count = int((plain != moved).sum())
    finding = findings_by_key(guard)["LRG303 mrr"]
    assert (finding.severity, finding.effect, finding.corrected) == ("warning", None, False)
    assert finding.message == (
        "'mrr' leaves out relevant rows with a score of zero or less, which changes the value of"
        f" {count} of 30 queries ({count / 30:.1%}). Ranked by score alone it is {float(moved.mean()):.4f} in place of"
        f" {float(plain.mean()):.4f}."
    )


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_ties(mode: Any) -> None:
    guard = RetrievalGuard(mode)
    assert validated("tied", guard) == validated("tied")
    assert set(findings_by_key(guard)) == {"LRG304 mrr", "LRG304 recall", "LRG304 hit"}

    def can_differ(preds: torch.Tensor, target: torch.Tensor) -> bool:
        """Whether the recall differs when relevant rows come first among equal scores, and when they come last."""
        ends = [preds + sign * 1e-3 * target for sign in (1, -1)]
        return len({float(retrieval_recall(scores, target, top_k=2)) for scores in ends}) > 1

    count = sum(can_differ(*query) for query in by_query("tied"))
    finding = findings_by_key(guard)["LRG304 recall"]
    assert count
    assert (finding.severity, finding.effect) == ("warning", None)
    assert finding.message == (
        f"'recall' depends on the order of rows with equal scores, relevant and not, in {count} of 30 queries"
        f" ({count / 30:.1%})."
    )


def test_scores_above_zero_without_ties_are_right() -> None:
    for mode in ("warn", "correct", "strict"):
        guard = RetrievalGuard(mode)  # type: ignore[arg-type]
        validated("high", guard)
        assert not guard.findings


@pytest.mark.parametrize(("scores", "code"), [pytest.param("low", "LRG303", marks=needs_low), ("tied", "LRG304")])
def test_strict_raises(scores: str, code: str) -> None:
    with pytest.raises(GuardError, match=code):
        validated(scores, RetrievalGuard("strict"))


def messages(pool: Pool, scores: str, mode: str) -> list[list[str]]:
    """The findings of every rank."""
    shown = on_ranks(pool, partial(Scored, scores), mode)
    return [[f"{finding.code} {finding.message}" for finding in rank.findings] for rank in shown]


@needs_low
def test_two_ranks_count_all_queries_where_values_travel(pool: Pool) -> None:
    alone = RetrievalGuard("correct")
    validated("low", alone)
    sentences = [f"{finding.code} {finding.message}" for finding in alone.findings]
    assert messages(pool, "low", "correct") == [sentences, sentences]
    warned = messages(pool, "low", "warn")[0]
    assert [text.partition(" ")[0] for text in warned] == ["LRG303", "LRG303"]
    assert "of 15 queries on this rank" in warned[0]
    assert "Ranked by score alone" not in warned[0]


def test_two_ranks_raise_together(pool: Pool) -> None:
    outcomes = pool.run(TARGET, program=partial(Scored, "tied"), mode="strict")
    assert {outcome.status for outcome in outcomes} == {"raised"}
    assert len({outcome.error for outcome in outcomes}) == 1
    assert "LRG304" in outcomes[0].error


class Gathered(Scored):
    """Hands the rows of both ranks to the metrics, in the order of the ranks or its own rows first."""

    def __init__(self, own_first: bool) -> None:
        super().__init__("tied")
        self.own_first = own_first
        self.kept: list[Any] = []

    def rows(self, batch: Batch) -> Any:
        ranks: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(ranks, super().rows(batch))  # the lists of a batch are not of one length
        turned = self.own_first and self.global_rank
        self.kept.append([torch.cat(parts) for parts in zip(*(ranks[::-1] if turned else ranks), strict=True)])
        return self.kept[-1]

    def on_validation_end(self) -> None:
        single = RetrievalMRR(sync_on_compute=False)
        for rows in self.kept:
            single.update(*rows)
        self.of_rows = float(single.compute())


@pytest.mark.parametrize("own_first", [False, True])
def test_ties_of_gathered_rows(pool: Pool, own_first: bool) -> None:
    """All ranks show the number of the first rank's rows, in whatever order another has them."""
    (plain, _), (first, second) = (
        on_ranks(pool, partial(Gathered, own_first), mode, keeps=["of_rows"]) for mode in ("none", "correct")
    )
    assert first.numbers == second.numbers
    assert first.numbers["mrr"] == pytest.approx(first.kept["of_rows"], abs=1e-6)
    assert first.numbers["mrr"] != pytest.approx(plain.numbers["mrr"], abs=1e-6)
    effects = [finding.effect for finding in first.findings if finding.code == "LRG201"]
    if own_first:  # how torchmetrics would have ranked the ties is not known to a rank, and is not told
        assert first.kept != second.kept
        assert effects == [None] * 3
    else:
        assert [effect and effect.logged for effect in effects] == pytest.approx([*plain.numbers.values()], abs=2e-6)
