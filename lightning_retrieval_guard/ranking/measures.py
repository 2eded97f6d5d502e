"""What a retrieval metric asks for: its formula, its cut-off and how values of queries become one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import torch
import torchmetrics.retrieval as retrieval
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_precision,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from lightning_retrieval_guard import _compat

Formula = Literal[
    "reciprocal_rank",
    "average_precision",
    "precision",
    "recall",
    "fall_out",
    "hit_rate",
    "ndcg",
    "r_precision",
    "auroc",
    "curve",
    "custom",
]

_CLASSES: dict[str, Formula] = {
    "RetrievalMRR": "reciprocal_rank",
    "RetrievalMAP": "average_precision",
    "RetrievalPrecision": "precision",
    "RetrievalRecall": "recall",
    "RetrievalFallOut": "fall_out",
    "RetrievalHitRate": "hit_rate",
    "RetrievalNormalizedDCG": "ndcg",
    "RetrievalRPrecision": "r_precision",
    "RetrievalAUROC": "auroc",
}
_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "reciprocal_rank": retrieval_reciprocal_rank,
    "average_precision": retrieval_average_precision,
    "precision": retrieval_precision,
    "recall": retrieval_recall,
}


@dataclass(frozen=True)
class Measure:
    """What one metric object asks for.

    Attributes:
        formula: How one query is scored; ``"custom"`` for a ``_metric`` that torchmetrics does not define.
        top_k: The cut-off (``max_k`` of a curve), or ``None`` for none.
        adaptive_k: Whether precision is cut at the length of shorter queries.
        max_fpr: Up to which false positive rate the area under the ROC curve counts, or ``None``.
        min_precision: What turns a curve into the highest recall with this precision, or ``None`` for the curve.
        empty: What an empty query counts as: ``"neg"``, ``"pos"``, ``"skip"`` or ``"error"``.
        needs_irrelevant: Whether a query is empty when it has no irrelevant row, rather than no relevant one.
        aggregation: ``"mean"``, ``"median"``, ``"min"``, ``"max"`` or a function of values and ``dim``.
        by_score: Whether rows with a score of zero or less count like any other, as they did before torchmetrics 1.7.4.
        metric: The metric object, for queries that only its code can score.
    """

    formula: Formula
    top_k: int | None = None
    adaptive_k: bool = False
    max_fpr: float | None = None
    min_precision: float | None = None
    empty: str = "neg"
    needs_irrelevant: bool = False
    aggregation: str | Callable[..., Tensor] = "mean"
    by_score: bool = False
    metric: Metric | None = field(default=None, compare=False, repr=False)

    @property
    def columns(self) -> int:
        """The numbers in the value of one query; zero for a curve that is as long as the longest query."""
        return 2 * (self.top_k or 0) if self.formula == "curve" else 1

    @property
    def is_best_row_relevant(self) -> bool:
        """Whether it is one or zero by the best row, for a query with exactly one relevant row."""
        return self.top_k == 1 and self.formula in ("reciprocal_rank", "precision", "recall", "hit_rate")

    @property
    def needs_positive_score(self) -> bool:
        """Whether rows with a score of zero or less count as irrelevant."""
        return not self.by_score and self.formula in _FUNCTIONS and ignores_low_scores(self.formula)


def measure_of(metric: Any) -> Measure | None:
    """What a metric asks for, or ``None`` where only its ``compute()`` knows.

    Args:
        metric: Any metric. Subclasses that keep torchmetrics' ``compute`` are known; one with a ``_metric`` of its
            own is scored by that.
    """
    if _compat.is_curve(metric):
        return Measure("curve", top_k=metric.max_k, min_precision=_min_precision(metric), **_shared(metric))
    if not (isinstance(metric, Metric) and _compat.scores_by_query(metric)):
        return None
    # by the code of ``_metric``, which subclasses inherit: one that overrides it is scored by its code
    formula = _formulas().get(_compat.formula_code(metric), "custom")
    top_k = getattr(metric, "top_k", None) or getattr(metric, "k", None) or None
    if formula != "custom" and not (top_k is None or (isinstance(top_k, int) and top_k > 0)):
        # what torchmetrics makes of such a cut-off, only its code knows
        formula = "custom"
    if formula in ("custom", "r_precision"):
        top_k = None
    return Measure(formula, top_k=top_k, max_fpr=getattr(metric, "max_fpr", None), **_shared(metric))


@cache
def ignores_low_scores(formula: str) -> bool:
    """Whether the installed torchmetrics takes rows with a score of zero or less as irrelevant (1.7.4 does).

    Args:
        formula: One of the four formulas that ever did.
    """
    # tried out, so that no table of versions has to be kept
    value = _FUNCTIONS[formula](torch.tensor([0.0, -1.0]), torch.tensor([1, 0]))
    return float(value) == 0.0


def _shared(metric: Any) -> dict[str, Any]:
    return {
        "adaptive_k": bool(getattr(metric, "adaptive_k", False)),
        "empty": metric.empty_target_action,
        "needs_irrelevant": _compat.needs_irrelevant_row(metric),
        "aggregation": _compat.aggregation_of(metric),
        "metric": metric,
    }


def _min_precision(metric: Any) -> float | None:
    recall = retrieval.RetrievalRecallAtFixedPrecision
    return metric.min_precision if type(metric).compute is recall.compute else None


@cache
def _formulas() -> dict[Any, Formula]:
    """The formula of each ``_metric``; torchmetrics before 1.3 has no AUROC."""
    classes = ((getattr(retrieval, name, None), formula) for name, formula in _CLASSES.items())
    return {_compat.formula_of(metric_class): formula for metric_class, formula in classes if metric_class is not None}
