from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.retrieval as retrieval
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.retrieval.base import RetrievalMetric

from lightning_retrieval_guard import ranking
from lightning_retrieval_guard.ranking import Measure, aggregate, measure_of
from lightning_retrieval_guard.ranking import rows as rows_module
from lightning_retrieval_guard.ranking.formulas import depends_on_rounding
from lightning_retrieval_guard.ranking.score import EmptyQueryError, Scores

Rows = tuple[Tensor, Tensor, Tensor]
NAN = float("nan")
CUTS = [None, 1, 3, 10, 500]
CUT_CLASSES = ["MRR", "MAP", "Precision", "Recall", "FallOut", "HitRate", "NormalizedDCG", "AUROC"]
HAS_AUROC = hasattr(retrieval, "RetrievalAUROC")
HAS_AGGREGATION = hasattr(retrieval.RetrievalMRR(), "aggregation")

needs_auroc = pytest.mark.skipif(not HAS_AUROC, reason="this torchmetrics has no RetrievalAUROC")
needs_aggregation = pytest.mark.skipif(not HAS_AGGREGATION, reason="this torchmetrics has no aggregation")


def score(measures: list[Measure], query: Tensor, preds: Tensor, target: Tensor) -> tuple[Tensor, list[Scores]]:
    return ranking.score(measures, ranking.Rows(query, preds, target))


def build(name: str, **arguments: Any) -> Any:
    return getattr(retrieval, f"Retrieval{name}")(**arguments)


def all_metrics(top_k: int | None, **shared: Any) -> list[Any]:
    metrics = [build(name, top_k=top_k, **shared) for name in CUT_CLASSES if name != "AUROC" or HAS_AUROC]
    metrics += [build("Precision", top_k=top_k, adaptive_k=True, **shared), build("RPrecision", **shared)]
    if HAS_AUROC:
        metrics += [build("AUROC", top_k=top_k, max_fpr=max_fpr, **shared) for max_fpr in (0.1, 0.5, 1.0)]
    metrics += [build("PrecisionRecallCurve", max_k=top_k, adaptive_k=adapts, **shared) for adapts in (False, True)]
    metrics += [build("RecallAtFixedPrecision", max_k=top_k, min_precision=least, **shared) for least in (0.0, 0.3)]
    return metrics


def random_rows(
    rows: int, ids: int, *, seed: int = 0, scores: str = "normal", graded: str = "", relevant: float = 0.2
) -> Rows:
    """Shuffled rows; the ids are negative and positive and far from complete."""
    random = torch.Generator().manual_seed(seed)
    query = torch.randint(-ids, ids, (rows,), generator=random) * 3
    preds = torch.randn(rows, generator=random)
    if scores == "ties":
        preds = (4 * preds).round() / 4
    elif scores == "uniform":
        preds = torch.rand(rows, generator=random)
    elif scores == "saturated":
        preds = 30 * preds
    elif scores in ("float16", "bfloat16"):
        preds = preds.sigmoid().to(getattr(torch, scores)).float()
    target = (torch.rand(rows, generator=random) < relevant).long()
    if graded == "int":
        target = torch.randint(-1, 5, (rows,), generator=random)
    elif graded == "float":
        target = torch.randn(rows, generator=random)
    return query, preds, target


def tensors(value: Any) -> list[Tensor]:
    parts = value if isinstance(value, tuple) else (value,)
    return [torch.as_tensor(part, dtype=torch.float64) for part in parts]


def torchmetrics_value(metric: Any, rows: Rows) -> Any:
    query, preds, target = rows
    metric.reset()
    metric.update(preds, target, indexes=query)
    return metric.compute()


def check(metrics: list[Any], rows: Rows, *, alone: bool = True, theirs: Rows | None = None) -> None:
    """Ours equal torchmetrics' for all metrics at once, and for each alone."""
    measures = [measure_for(metric) for metric in metrics]
    together = score(measures, *rows)[1]
    for metric, measure, values in zip(metrics, measures, together, strict=True):
        expected = tensors(torchmetrics_value(metric, theirs or rows))
        for scores in [values, *(score([measure], *rows)[1] if alone else [])]:
            numbers = tensors(aggregate(measure, scores.values))
            for value, right in zip(numbers, expected, strict=True):
                torch.testing.assert_close(
                    value, right, atol=1e-6, rtol=1e-6, equal_nan=True, msg=lambda text, m=metric: f"{m} {text}"
                )


def measure_for(metric: Any) -> Measure:
    measure = measure_of(metric)
    assert measure is not None
    return measure


@pytest.mark.parametrize(
    ("scores", "top_k"),
    [
        pytest.param(
            scores, top_k, marks=() if top_k in (None, 3) or scores in ("uniform", "ties") else pytest.mark.nightly
        )
        for scores in ("normal", "ties", "uniform", "saturated", "bfloat16", "float16")
        for top_k in CUTS
    ],
)
def test_equals_torchmetrics(scores: str, top_k: int | None) -> None:
    check(all_metrics(top_k), random_rows(1000, 25, scores=scores, seed=1))
    check(all_metrics(top_k), random_rows(1500, 3, scores=scores, seed=2))


@pytest.mark.parametrize("top_k", CUTS)
@pytest.mark.parametrize("scores", ["normal", "ties", "bfloat16"])
@pytest.mark.parametrize("relevant", ["diagonal", "few", "many"])
def test_lists_of_one_length(relevant: str, scores: str, top_k: int | None) -> None:
    _, preds, target = random_rows(40 * 50, 25, scores=scores, seed=3, relevant=0.6 if relevant == "many" else 0.03)
    query = torch.randperm(50).repeat_interleave(40)
    if relevant == "diagonal":
        target = (torch.arange(2000) % 40 == torch.arange(2000) // 40 % 40).long()
    metrics = [metric for metric in all_metrics(top_k) if measure_for(metric).formula != "auroc"]
    check(metrics, (query, preds, target))


@pytest.mark.parametrize("scores", ["normal", "ties"])
@pytest.mark.parametrize(
    ("top_k", "grouped"), [(None, "shuffled"), (3, "shuffled"), (3, "equal"), (None, "ascending"), (3, "ascending")]
)
def test_many_rows_in_several_blocks(
    monkeypatch: pytest.MonkeyPatch, top_k: int | None, grouped: str, scores: str
) -> None:
    monkeypatch.setattr(rows_module, "_BLOCK", 2000)
    # so many rows that torch.sort() is stable, as the order of ties asks for
    query, preds, target = random_rows(33_000, 10, scores=scores)
    if grouped == "equal":
        query = torch.randperm(22).repeat_interleave(1500)
    elif grouped == "ascending":
        query = query.sort().values
    check(all_metrics(top_k), (query, preds, target), alone=False)


@pytest.mark.parametrize("top_k", CUTS)
@pytest.mark.parametrize("scores", ["normal", "ties"])
def test_equal_lengths(scores: str, top_k: int | None) -> None:
    _, preds, target = random_rows(1200, 1, scores=scores)
    check(all_metrics(top_k), (torch.randperm(60).repeat_interleave(20), preds, target))


@pytest.mark.parametrize("action", ["neg", "pos", "skip"])
@pytest.mark.parametrize("relevant", [0.0, 0.1, 0.9, 1.0])
def test_empty_queries(action: str, relevant: float) -> None:
    for top_k in (None, 3):
        check(all_metrics(top_k, empty_target_action=action), random_rows(300, 40, relevant=relevant))


@pytest.mark.parametrize("relevant", [0.0, 1.0])
def test_empty_query_as_an_error(relevant: float) -> None:
    rows = random_rows(30, 2, relevant=relevant)
    for metric in all_metrics(3, empty_target_action="error"):
        measure = measure_for(metric)
        if measure.needs_irrelevant == (relevant == 1.0):
            with pytest.raises(ValueError, match="compute") as theirs:
                torchmetrics_value(metric, rows)
            with pytest.raises(EmptyQueryError) as ours:
                score([measure], *rows)
            assert str(ours.value) == str(theirs.value)
        else:
            check([metric], rows)


def middle(values: Tensor, dim: int | None = None) -> Tensor:
    return (values.amax(dim) + values.amin(dim)) / 2 if dim is not None else (values.max() + values.min()) / 2


@needs_aggregation
@pytest.mark.parametrize("aggregation", ["mean", "median", "min", "max", middle])
@pytest.mark.parametrize("action", ["pos", "skip"])
def test_aggregations(aggregation: str | Callable[..., Tensor], action: str) -> None:
    metrics = all_metrics(3, aggregation=aggregation, empty_target_action=action)
    check(metrics, random_rows(400, 30))
    check(metrics, random_rows(400, 30, scores="ties"))


def test_no_scored_query() -> None:
    metrics = all_metrics(4, empty_target_action="skip")
    check(metrics, random_rows(50, 5, relevant=0.0))
    check([build("FallOut", empty_target_action="skip")], random_rows(50, 5, relevant=1.0))


@pytest.mark.parametrize("graded", ["int", "float"])
@pytest.mark.parametrize("scores", ["normal", "ties"])
@pytest.mark.parametrize("top_k", CUTS)
def test_graded_gain(graded: str, scores: str, top_k: int | None) -> None:
    rows = random_rows(1500, 60, graded=graded, scores=scores)
    check([build("NormalizedDCG", top_k=top_k, empty_target_action="pos")], rows)
    check([build("NormalizedDCG", top_k=top_k)], (rows[0], rows[1], rows[2].abs()))


def test_gains_that_cancel() -> None:
    random = torch.Generator().manual_seed(0)
    third = torch.tensor([0.1, 0.2, -0.3])[torch.randint(0, 3, (600,), generator=random)]
    rows = random_rows(600, 60)
    check([build("NormalizedDCG", top_k=top_k, empty_target_action="pos") for top_k in (None, 2)], (*rows[:2], third))


def test_a_small_sum_is_not_an_empty_query() -> None:
    query, preds = torch.tensor([0, 0, 1, 1]), torch.tensor([0.1, 0.9, 0.9, 0.1])
    for action in ("pos", "skip"):
        metric = build("NormalizedDCG", empty_target_action=action)
        check([metric], (query, preds, torch.tensor([1.0, -0.99999, 1.0, -1.0])))


@pytest.mark.parametrize("offset", [0, -(2**63), 2**63 - 100])
def test_any_ids(offset: int) -> None:
    query, preds, target = random_rows(300, 10)
    # torchmetrics before 1.6 counts up to the largest id, so it gets small ones
    small = (query.unique(return_inverse=True)[1], preds, target)
    check(all_metrics(3), ((query - query.min()) // 3 + offset, preds, target), theirs=small)
    check(all_metrics(3), (query * 2**40, preds, target), theirs=small)


def test_single_rows() -> None:
    check(all_metrics(None), (torch.tensor([5]), torch.tensor([0.3]), torch.tensor([1])))
    check(all_metrics(2), (torch.randperm(40), torch.randn(40), torch.randint(0, 2, (40,))))


def test_float_targets() -> None:
    rows = random_rows(300, 20)
    metrics = [metric for metric in all_metrics(3) if measure_for(metric).formula != "r_precision"]
    check(metrics, (*rows[:2], rows[2].float()))
    check(metrics, (*rows[:2], rows[2] * torch.rand(300)))


@pytest.mark.parametrize("top_k", [None, 3])
def test_scores_that_are_no_number(top_k: int | None) -> None:
    query, preds, target = random_rows(600, 40)
    preds[::17] = NAN
    preds[5::23] = float("inf")
    preds[7::29] = -float("inf")
    # A query counts as logits or not; a score that is no number makes it so.
    check([metric for metric in all_metrics(top_k) if measure_for(metric).formula != "auroc"], (query, preds, target))
    check([build("AUROC", top_k=top_k)] if HAS_AUROC else [], (query, preds, target))


class OwnFormula(RetrievalMetric):
    def _metric(self, preds: Tensor, target: Tensor) -> Tensor:
        return (preds * target).sum() / len(preds)


class OwnFallOut(retrieval.RetrievalFallOut):
    def _metric(self, preds: Tensor, target: Tensor) -> Tensor:
        return preds[0]


@pytest.mark.parametrize("action", ["neg", "pos", "skip"])
def test_own_formulas(action: str) -> None:
    metrics = [OwnFormula(empty_target_action=action), OwnFallOut(empty_target_action=action)]
    check([*metrics, build("MRR", top_k=2)], random_rows(200, 20, scores="ties"))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-2, 4), st.integers(0, 1)), min_size=1, max_size=60),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from(["neg", "pos", "skip"]),
)
@settings(max_examples=25, deadline=None)
def test_small_lists_with_many_ties(rows: list[tuple[int, int, int]], top_k: int | None, action: str) -> None:
    query, preds, target = (torch.tensor(column) for column in zip(*rows, strict=True))
    check(all_metrics(top_k, empty_target_action=action), (query, preds / 4, target), alone=False)


@pytest.mark.parametrize("action", ["pos", "neg", "skip"])
def test_a_sum_that_is_zero_in_single_precision_only(action: str) -> None:
    orders = torch.tensor([[0.1, 0.2, -0.3], [-0.3, 0.1, 0.2], [0.2, -0.3, 0.1], [0.3, 0.5, -0.8]])
    query, preds = torch.arange(4).repeat_interleave(3), torch.rand(12)
    check([build("NormalizedDCG", empty_target_action=action)], (query, preds, orders.view(-1)))


# --- other sources of truth -----------------------------------------------------------------------------------


def test_graded_gain_equals_trec_eval() -> None:
    evaluator = pytest.importorskip("pytrec_eval")
    query, preds, target = random_rows(2000, 30)
    target = torch.randint(0, 4, (2000,))
    qrels: dict[str, dict[str, int]] = {}
    runs: dict[str, dict[str, float]] = {}
    for row, number in enumerate(query.tolist()):
        qrels.setdefault(str(number), {})[str(row)] = int(target[row])
        runs.setdefault(str(number), {})[str(row)] = float(preds[row])
    expected = evaluator.RelevanceEvaluator(qrels, {"ndcg_cut.5"}).evaluate(runs)
    ids, (scores,) = score([Measure("ndcg", top_k=5, metric=build("NormalizedDCG", top_k=5))], query, preds, target)
    for number, value in zip(ids[scores.position].tolist(), scores.values.tolist(), strict=True):
        assert value == pytest.approx(expected[str(number)]["ndcg_cut_5"], abs=1e-6)


def test_scores_that_only_double_precision_tells_apart() -> None:
    random = np.random.default_rng(0)
    preds = 0.5 + 1e-12 * random.permutation(400).reshape(8, 50)
    target = random.random((8, 50)) < 0.2
    target[:, 0] = True
    ranked = np.take_along_axis(target, np.argsort(-preds, axis=1), axis=1)
    ranks = np.arange(1, 51)
    measures = [Measure("reciprocal_rank"), Measure("average_precision"), Measure("recall", top_k=5), Measure("ndcg")]
    gains = (ranked / np.log2(ranks + 1)).sum(1)
    ideal = (-np.sort(-target.astype(float)) / np.log2(ranks + 1)).sum(1)
    expected = [
        1 / (ranked.argmax(1) + 1),
        (ranked * ranked.cumsum(1) / ranks).sum(1) / ranked.sum(1),
        ranked[:, :5].sum(1) / ranked.sum(1),
        gains / ideal,
    ]
    query = torch.arange(8).repeat_interleave(50)
    mixed = torch.randperm(400)
    for order in (torch.arange(400), mixed):
        _, all_scores = score(
            measures, query[order], torch.tensor(preds).view(-1)[order], torch.tensor(target).view(-1)[order].long()
        )
        for scores, values in zip(all_scores, expected, strict=True):
            np.testing.assert_allclose(scores.values.numpy(), values, atol=1e-12)


def test_values_have_the_precision_of_the_scores() -> None:
    query, preds, target = random_rows(300, 20, scores="float16")
    _, (scores,) = score([Measure("recall", top_k=3)], query, preds.half(), target)
    assert torch.equal(scores.values, scores.values.half().double())


# --- ties and curves --------------------------------------------------------------------------------------------


def test_ties_that_decide_are_counted() -> None:
    query = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    preds = torch.tensor([0.5, 0.5, 0.1, 0.9, 0.5, 0.5, 0.9, 0.5, 0.5])
    target = torch.tensor([1, 0, 0, 1, 1, 0, 0, 1, 1])
    measures = [Measure("reciprocal_rank"), Measure("recall", top_k=1), Measure("recall", top_k=2), Measure("ndcg")]
    assert [scores.decided_by_ties for scores in score(measures, query, preds, target)[1]] == [1, 1, 1, 0]


@pytest.mark.skipif(not Measure("recall").needs_positive_score, reason="this torchmetrics counts rows with low scores")
def test_ties_among_low_scores_decide_nothing() -> None:
    query, preds, target = torch.tensor([0, 0, 0]), torch.tensor([0.9, 0.0, 0.0]), torch.tensor([0, 1, 0])
    measures = [Measure("recall", top_k=2), Measure("hit_rate", top_k=2)]
    assert [scores.decided_by_ties for scores in score(measures, query, preds, target)[1]] == [0, 1]


def test_no_rows() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    ids, (scores,) = score([Measure("recall")], none, none.float(), none)
    assert ids.numel() == scores.values.numel() == scores.position.numel() == 0


def test_a_hit_before_a_tie_decides_the_hit_rate() -> None:
    query, preds = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0.9, 0.5, 0.5, 0.9, 0.5, 0.5])
    target = torch.tensor([1, 1, 0, 0, 1, 0])
    assert score([Measure("hit_rate", top_k=2)], query, preds, target)[1][0].decided_by_ties == 1


def test_sigmoids_that_may_round_to_the_same_number() -> None:
    query, preds = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([2.0 + 1e-6, 2.0, 2.1, 2.0, 0.5 + 1e-6, 0.5])
    relevant = torch.tensor([True, False] * 3)
    assert depends_on_rounding(query, preds, relevant, 3).tolist() == [True, False, False]
    assert not depends_on_rounding(query, preds, torch.ones_like(relevant), 3).any()


@pytest.mark.parametrize("rows", [300, 40_000])
def test_values_stand_in_the_order_of_the_ids_whatever_the_order_of_the_queries(rows: int) -> None:
    query = torch.randperm(rows // 10).repeat_interleave(10)
    target = (query % 3 == 0).long()  # whole queries: the value tells the id
    ids, (scores,) = score([Measure("hit_rate")], query, torch.rand(rows), target)
    assert torch.equal(ids, torch.arange(rows // 10))
    assert torch.equal(scores.position, ids)
    assert torch.equal(scores.values, (ids % 3 == 0).double())


def test_r_precision_refuses_float_relevance() -> None:
    metric = build("RPrecision")
    with pytest.raises(TypeError, match="index"):
        score([measure_for(metric)], torch.tensor([0, 0]), torch.tensor([0.1, 0.2]), torch.tensor([1.0, 0.0]))


class GetsRelevance(RetrievalMetric):
    def _metric(self, preds: Tensor, target: Tensor) -> Tensor:
        return torch.tensor(float(target.dtype == torch.float32) + 2 * float(target.dtype == torch.int64))


@pytest.mark.parametrize(("target", "value"), [([1.0, 0.0], 1.0), ([1, 0], 2.0), ([True, False], 2.0)])
def test_a_formula_of_its_own_gets_relevance_in_torchmetrics_dtype(target: list[float], value: float) -> None:
    metric = GetsRelevance()
    [scores] = score([measure_for(metric)], torch.tensor([0, 0]), torch.tensor([0.1, 0.2]), torch.tensor(target))[1]
    assert scores.values.tolist() == [value]


def test_curve_without_cut_off_is_as_long_as_the_longest_query() -> None:
    rows = random_rows(200, 4)
    longest = int(rows[0].unique(return_counts=True)[1].max())
    scores = score([Measure("curve")], *rows)[1][0]
    assert scores.values.shape[1:] == (2, longest)
    wide = score([replace(Measure("curve"), top_k=longest)], *rows)[1][0]
    assert torch.equal(scores.values, wide.values)
