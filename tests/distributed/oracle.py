"""Retrieval metrics in plain numpy, from their definitions: the outside oracle of the references.

Scores are taken to be distinct and positive. As torchmetrics defines them, precision@k divides by k even
where the list is shorter, and MAP@k divides by the relevant rows within the cut.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Ranked = NDArray[np.float64]  # relevance of one query's rows, best score first

AGGREGATIONS: dict[str, Callable[[Ranked], float]] = {
    "mean": np.mean,
    "median": lambda values: float(np.sort(values)[(len(values) - 1) // 2]),  # torch takes the lower one
    "min": np.min,
    "max": np.max,
}


def mrr(ranked: Ranked, cut: int) -> float:
    hits = np.flatnonzero(ranked[:cut])
    return 1.0 / (hits[0] + 1) if len(hits) else 0.0


def recall(ranked: Ranked, cut: int) -> float:
    return ranked[:cut].sum() / ranked.sum()


def precision(ranked: Ranked, cut: int) -> float:
    return ranked[:cut].sum() / cut


def average_precision(ranked: Ranked, cut: int) -> float:
    hits = np.flatnonzero(ranked[:cut])
    return float(np.mean([(i + 1) / (hit + 1) for i, hit in enumerate(hits)])) if len(hits) else 0.0


def ndcg(ranked: Ranked, cut: int) -> float:
    discount = 1.0 / np.log2(np.arange(len(ranked)) + 2)
    ideal = np.sort(ranked)[::-1]
    return (ranked * discount)[:cut].sum() / (ideal * discount)[:cut].sum()


def hit(ranked: Ranked, cut: int) -> float:
    return float(ranked[:cut].any())


def fallout(ranked: Ranked, cut: int) -> float:
    return recall(1 - ranked, cut)


def rprecision(ranked: Ranked, cut: int) -> float:
    return ranked[: int(ranked.sum())].mean()


def auroc(ranked: Ranked, cut: int) -> float:
    """The share of (relevant, other) pairs in the right order."""
    top = ranked[:cut]
    others_below = np.cumsum((1 - top)[::-1])[::-1]
    pairs = top.sum() * (1 - top).sum()
    return (top * others_below).sum() / pairs if pairs else 0.0


MEASURES = {function.__name__: function for function in (mrr, recall, precision, ndcg, hit, fallout, auroc)}
MEASURES |= {"map": average_precision, "rprecision": rprecision}


def expected(name: str, score: Ranked, target: Ranked, query: NDArray[np.int64]) -> float:
    """The value of the metric that `grids.named(name)` builds, over rows of shape (rows,)."""
    kind, *parts = name.split("_")
    cut = next((int(part) for part in parts if part.isdigit()), None)
    aggregation = next((part for part in parts if part in AGGREGATIONS), "mean")
    action = next((part for part in parts if part in ("neg", "pos", "skip", "error")), None)
    action = action or ("pos" if kind == "fallout" else "neg")
    values = []
    for one in np.unique(query):
        ranked = target[query == one][np.argsort(-score[query == one])]
        wanted = 1 - ranked if kind == "fallout" else ranked
        if wanted.any():
            values.append(MEASURES[kind](ranked, cut or len(ranked)))
        elif action != "skip":
            values.append({"pos": 1.0, "neg": 0.0}[action])
    return float(AGGREGATIONS[aggregation](np.array(values)))
