"""Metrics by the name they are logged under: every class, cut, action for empty queries and aggregation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from torch.nn import ModuleDict
from torchmetrics import retrieval
from torchmetrics.retrieval import (
    RetrievalFallOut,
    RetrievalHitRate,
    RetrievalMAP,
    RetrievalMRR,
    RetrievalNormalizedDCG,
    RetrievalPrecision,
    RetrievalRecall,
    RetrievalRPrecision,
)
from torchmetrics.retrieval.base import RetrievalMetric

from ..installed import HAS_AGGREGATION, HAS_AUROC

CUT_CLASSES: dict[str, Callable[..., RetrievalMetric]] = {
    "mrr": RetrievalMRR,
    "recall": RetrievalRecall,
    "precision": RetrievalPrecision,
    "map": RetrievalMAP,
    "ndcg": RetrievalNormalizedDCG,
    "hit": RetrievalHitRate,
    "fallout": RetrievalFallOut,
}
if HAS_AUROC:
    CUT_CLASSES["auroc"] = retrieval.RetrievalAUROC
CUTS = (None, 1, 5)
ACTIONS = ("neg", "pos", "skip")  # "error" stands in `error_grid`: it needs data without empty queries
AGGREGATIONS = ("mean", "median", "min", "max")


def named(name: str, **options: Any) -> RetrievalMetric:
    """The metric a name describes: class, then cut, action and aggregation, each optional, joined by "_"."""
    kind, *parts = name.split("_")
    for part in parts:
        if part.isdigit():
            options["top_k"] = int(part)
        elif part in AGGREGATIONS:
            options["aggregation"] = part
        else:
            options["empty_target_action"] = part
    return RetrievalRPrecision(**options) if kind == "rprecision" else CUT_CLASSES[kind](**options)


def grid_of(names: str, **options: Any) -> ModuleDict:
    """Metrics for a list of names separated by spaces, without those that the installed version does not know."""
    return ModuleDict({name: named(name, **options) for name in names.split() if is_known(name)})


def is_known(name: str) -> bool:
    kind, *parts = name.split("_")
    return kind in (*CUT_CLASSES, "rprecision") and (HAS_AGGREGATION or not set(parts) & set(AGGREGATIONS))


# Means over queries in which every query counts: a batch's value is worth as much as the batch has queries.
# `every_name` has all classes; these are what differs in how values of batches and ranks are put together.
MEANS = "mrr recall_1 recall_5_pos ndcg_5 fallout_5 rprecision auroc"
OTHERS = "mrr_5_median precision_max map_5_skip ndcg_skip_min"
ERRORS = "recall_1_error fallout_5_error ndcg_error_min"

GRID = f"{MEANS} {OTHERS}"
FEW = "recall_1 map_5_skip mrr_5_median ndcg_skip_min"
ERROR_GRID = f"{GRID} {ERRORS}"


def every_name() -> str:
    """Every class with every cut and every aggregation; the actions take turns."""
    kinds = [f"{kind}_{cut}" if cut else kind for kind in CUT_CLASSES for cut in CUTS] + ["rprecision"]
    actions = itertools.cycle(ACTIONS)
    endings = [f"_{aggregation}" for aggregation in AGGREGATIONS] if HAS_AGGREGATION else [""]
    return " ".join(f"{kind}_{next(actions)}{ending}" for kind, ending in itertools.product(kinds, endings))
