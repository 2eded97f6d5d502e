"""Functional retrieval metrics: a batch that is scored as one query, seen at their own check of the input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader
from torchmetrics.functional import retrieval
from torchmetrics.functional.retrieval import ndcg, retrieval_normalized_dcg, retrieval_recall

from lightning_retrieval_guard import RetrievalGuard
from tests.lifecycle.programs import make_trainer

CHECK = "_check_retrieval_functional_inputs"


class Scored(LightningModule):
    """Logs what functionals make of a batch of four queries with three documents each."""

    def val_dataloader(self) -> Any:
        return DataLoader(torch.rand(8, 3, generator=torch.Generator().manual_seed(0)), batch_size=4)

    def validation_step(self, scores: torch.Tensor, batch_idx: int) -> None:
        target = torch.eye(4, 3, dtype=torch.long)
        target[3, 0] = 1
        self.log("value", self.value(scores, target))

    def value(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return retrieval_normalized_dcg(scores, target)


class OfEachQuery(Scored):
    def value(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        rows = [retrieval_recall(one[None], relevant[None]) for one, relevant in zip(scores, target, strict=True)]
        return torch.stack([*rows, retrieval_recall(scores[:, 0], target[:, 0])]).mean()


class Ignored(Scored):
    def value(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return retrieval_normalized_dcg(scores, target)  # lrg: ignore[LRG306]


def about(guard: RetrievalGuard) -> list[Any]:
    return [finding for finding in guard.findings if finding.code == "LRG306"]


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_batch_scored_as_one_query(mode: Any) -> None:
    [plain] = make_trainer().validate(Scored(), verbose=False)
    guard = RetrievalGuard(mode)
    with pytest.warns(UserWarning, match="LRG306"):
        assert make_trainer(guard).validate(Scored(), verbose=False) == [plain]
    [finding] = about(guard)
    assert finding.message == (
        "retrieval_normalized_dcg got scores of shape (4, 3) and scored 4 queries as the 12 rows of one."
    )
    assert (finding.path, finding.hook, finding.corrected) == (__file__, "validation_step", False)


@pytest.mark.parametrize("program", [OfEachQuery, Ignored])
def test_right_and_ignored_calls_are_silent(program: type[Scored]) -> None:
    guard = RetrievalGuard("strict")
    make_trainer(guard).validate(program(), verbose=False)
    assert not about(guard)


def test_nothing_stays() -> None:
    before = vars(ndcg)[CHECK]
    make_trainer(RetrievalGuard()).validate(OfEachQuery(), verbose=False)
    assert vars(ndcg)[CHECK] is before
    names = [name for name, member in vars(retrieval).items() if callable(member)]
    assert len(names) >= 9
