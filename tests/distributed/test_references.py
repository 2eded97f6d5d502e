"""The references of the matrix, checked by measures written in numpy and by trec_eval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from . import oracle
from .harness import Pool
from .programs import data

TARGET = f"{__package__}.evaluate:evaluate"
Rows = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def arrays(score: Any, target: Any, query: Any) -> Rows:
    return score.numpy().astype(float), target.numpy().astype(float), query.numpy()


def query_rows(count: int, empty: bool) -> Rows:
    return arrays(*data.rows_of(data.queries(count, empty).columns))


def corpus_rows() -> Rows:
    score, target = data.corpus(18, 5).columns.values()
    query = np.broadcast_to(np.arange(5), score.shape)
    return score.numpy().ravel().astype(float), target.numpy().ravel().astype(float), query.ravel()


ROWS = {
    "object": lambda: query_rows(18, True),
    "object-every": lambda: query_rows(12, True),
    "object-error": lambda: query_rows(18, False),
    "split-rows": lambda: arrays(*data.rows(216).columns.values()),
    "corpus": corpus_rows,
}


@pytest.mark.parametrize("name", ROWS)
def test_one_process_shows_what_numpy_computes(pools: Mapping[int, Pool], name: str) -> None:
    [alone] = pools[1].run(TARGET, program=name)
    assert alone.ok, str(alone)
    shown = alone.value["callback_metrics"]
    rows = ROWS[name]()
    assert shown == pytest.approx({key: oracle.expected(key, *rows) for key in shown}, abs=1e-6)


@pytest.mark.parametrize("name", ["object-error", "split-rows", "corpus"])
def test_numpy_computes_what_trec_eval_computes(name: str) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    names = {
        "recip_rank": "mrr",
        "recall_1": "recall_1",
        "recall_5": "recall_5",
        "P_1": "precision_1",
        "P_5": "precision_5",
        "map": "map",
        "ndcg": "ndcg",
        "ndcg_cut_5": "ndcg_5",
        "success_1": "hit_1",
        "success_5": "hit_5",
        "Rprec": "rprecision",
    }
    score, target, query = ROWS[name]()
    runs: dict[str, dict[str, float]] = {}
    judged: dict[str, dict[str, int]] = {}
    for row, (one, number, relevance) in enumerate(zip(query, score, target, strict=True)):
        runs.setdefault(str(one), {})[str(row)] = number
        judged.setdefault(str(one), {})[str(row)] = int(relevance)
    measures = {"recip_rank", "recall.1,5", "P.1,5", "map", "ndcg", "ndcg_cut.5", "success.1,5", "Rprec"}
    evaluated = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(runs)
    for theirs, ours in names.items():
        mean = np.mean([values[theirs] for values in evaluated.values()])
        assert oracle.expected(ours, score, target, query) == pytest.approx(mean, abs=1e-6)


def test_scores_are_distinct_and_positive() -> None:
    for name in ROWS:
        score, _, _ = ROWS[name]()
        assert len(np.unique(score)) == len(score)
        assert score.min() > 0
