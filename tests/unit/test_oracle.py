"""The value over simulated ranks against pytrec_eval, which knows nothing of torchmetrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import pytrec_eval
import torch
from hypothesis import given, settings
from torchmetrics import Metric
from torchmetrics.retrieval import (
    RetrievalMAP,
    RetrievalMRR,
    RetrievalNormalizedDCG,
    RetrievalPrecision,
    RetrievalRecall,
)

from .simulated import outcomes
from .test_combining import Spread, spreads

MEASURES: dict[str, Metric] = {
    "recip_rank": RetrievalMRR(),
    "map": RetrievalMAP(),
    "recall_5": RetrievalRecall(top_k=5),
    "P_5": RetrievalPrecision(top_k=5),
    "ndcg": RetrievalNormalizedDCG(),
}


def oracle(measure: str, spread: Spread) -> float:
    """The mean over queries; a query without relevant documents counts 0."""
    relevant: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    document = 0
    for ids, scores, relevance in (part for rank in spread.updates() for part in rank):
        for query, score, value in zip(ids.tolist(), scores.tolist(), relevance.tolist(), strict=True):
            document += 1
            relevant.setdefault(str(query), {})[f"d{document}"] = value
            run.setdefault(str(query), {})[f"d{document}"] = score
    values: dict[str, Any] = pytrec_eval.RelevanceEvaluator(relevant, {measure}).evaluate(run)
    return float(np.mean([values[query].get(measure, 0.0) for query in run]))


@pytest.mark.parametrize("measure", MEASURES)
@settings(max_examples=20, deadline=None)
@given(spread=spreads)
def test_it_agrees_with_trec_eval(measure: str, spread: Spread) -> None:
    spread = replace(spread, signed=False)
    updates = spread.updates()
    wanted = oracle(measure, spread)
    for outcome, rank_updates in zip(outcomes(MEASURES[measure], updates), updates, strict=True):
        if rank_updates:
            assert float(torch.as_tensor(outcome.value)) == pytest.approx(wanted, abs=1e-6)
