"""The 12 metrics that most benches use."""

from __future__ import annotations

from typing import Any

from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall
from torchmetrics.retrieval.base import RetrievalMetric

CUTS = (1, 5, 10)
KINDS: dict[str, type[RetrievalMetric]] = {
    "mrr": RetrievalMRR,
    "recall": RetrievalRecall,
    "ndcg": RetrievalNormalizedDCG,
    "map": RetrievalMAP,
}


def twelve(**options: Any) -> dict[str, RetrievalMetric]:
    """MRR, Recall, nDCG and MAP, each at 1, 5 and 10; the options are those of any metric."""
    return {f"{name}@{cut}": kind(top_k=cut, **options) for name, kind in KINDS.items() for cut in CUTS}


def collection(**options: Any) -> MetricCollection:
    return MetricCollection(dict(twelve(**options)))
