from __future__ import annotations

import pytest
import torch
import torchmetrics
import torchmetrics.retrieval as retrieval
from torch import Tensor
from torchmetrics.retrieval.base import RetrievalMetric

from lightning_retrieval_guard.ranking.measures import Measure, ignores_low_scores, measure_of


class OwnFormula(RetrievalMetric):
    def _metric(self, preds: Tensor, target: Tensor) -> Tensor:
        return preds.max()


class OwnFallOut(retrieval.RetrievalFallOut):
    def _metric(self, preds: Tensor, target: Tensor) -> Tensor:
        return preds.max()


class OwnCompute(retrieval.RetrievalMRR):
    def compute(self) -> Tensor:
        return torch.tensor(3.0)


class OwnCurve(retrieval.RetrievalPrecisionRecallCurve):
    def compute(self) -> Tensor:
        return torch.tensor(3.0)


class OwnName(retrieval.RetrievalMRR):
    """A subclass that changes nothing that counts."""


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("RetrievalMRR", "reciprocal_rank"),
        ("RetrievalMAP", "average_precision"),
        ("RetrievalPrecision", "precision"),
        ("RetrievalRecall", "recall"),
        ("RetrievalFallOut", "fall_out"),
        ("RetrievalHitRate", "hit_rate"),
        ("RetrievalNormalizedDCG", "ndcg"),
        ("RetrievalAUROC", "auroc"),
    ],
)
@pytest.mark.parametrize("top_k", [None, 7])
def test_formula_and_cut_off_of_every_class(name: str, formula: str, top_k: int | None) -> None:
    if not hasattr(retrieval, name):
        pytest.skip("this torchmetrics has no such class")
    metric = getattr(retrieval, name)(top_k=top_k, empty_target_action="skip")
    measure = measure_of(metric)
    assert measure == Measure(formula, top_k=top_k, empty="skip", needs_irrelevant=formula == "fall_out")
    assert measure is not None
    assert measure.metric is metric


def test_r_precision_has_no_cut_off() -> None:
    assert measure_of(retrieval.RetrievalRPrecision()) == Measure("r_precision")


def test_precision_keeps_its_adaptive_cut_off() -> None:
    measure = measure_of(retrieval.RetrievalPrecision(top_k=3, adaptive_k=True))
    assert measure == Measure("precision", top_k=3, adaptive_k=True)


def test_curves() -> None:
    curve = measure_of(retrieval.RetrievalPrecisionRecallCurve(max_k=4, adaptive_k=True))
    assert curve == Measure("curve", top_k=4, adaptive_k=True)
    fixed = measure_of(retrieval.RetrievalRecallAtFixedPrecision(min_precision=0.5, max_k=4))
    assert fixed == Measure("curve", top_k=4, min_precision=0.5)


def test_subclass_with_the_same_code_has_the_same_formula() -> None:
    assert measure_of(OwnName(top_k=2)) == Measure("reciprocal_rank", top_k=2)


@pytest.mark.parametrize("build", [OwnFormula, OwnFallOut])
def test_formula_code(build: type) -> None:
    measure = measure_of(build(empty_target_action="neg"))
    assert measure == Measure("custom", needs_irrelevant=build is OwnFallOut)


def test_formula_put_on_the_object() -> None:
    metric = retrieval.RetrievalMRR()
    metric._metric = lambda preds, target: preds.max()
    measure = measure_of(metric)
    assert measure is not None
    assert measure.formula == "custom"


@pytest.mark.parametrize("build", [OwnCompute, OwnCurve, torchmetrics.MeanMetric])
def test_own_compute_is_unknown(build: type) -> None:
    assert measure_of(build()) is None


def test_no_metric_is_unknown() -> None:
    assert measure_of(3.0) is None


@pytest.mark.parametrize("build", [retrieval.RetrievalMRR, retrieval.RetrievalMAP])
def test_cut_off_that_slipped_through_is_left_to_the_metric(build: type) -> None:
    measure = measure_of(build(top_k=-2))
    assert measure is not None
    assert measure.formula == "custom"


def test_low_scores_follow_the_installed_version() -> None:
    metric = retrieval.RetrievalRecall()
    metric.update(torch.tensor([0.0, -1.0]), torch.tensor([1, 0]), indexes=torch.tensor([0, 0]))
    assert ignores_low_scores("recall") == (float(metric.compute()) == 0.0)
    assert Measure("recall").needs_positive_score == ignores_low_scores("recall")
    assert not Measure("hit_rate").needs_positive_score
