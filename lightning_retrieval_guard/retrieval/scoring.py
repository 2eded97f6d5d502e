"""Scoring queries with the metric's own definition, so that torchmetrics stays the specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard import _compat


class EmptyQueryError(ValueError):
    """A query is empty and the metric was told to raise; the text is torchmetrics' own."""


def score_queries(metric: Metric, preds: Tensor, target: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Score queries whose rows stand one after the other.

    Args:
        metric: A torchmetrics retrieval metric that defines ``_metric``.
        preds: Scores of shape ``(rows,)``.
        target: Relevance of shape ``(rows,)``.
        sizes: The number of rows of each query.

    Returns:
        The values, float64 on the CPU of shape ``(scored,)``, and the positions of the queries they belong to,
        int64 of the same shape. Queries that ``empty_target_action="skip"`` leaves out are missing in both.

    Raises:
        EmptyQueryError: A query is empty and ``empty_target_action`` is ``"error"``.
    """
    empty_value = _value_of_empty(metric)
    values: list[Tensor] = []
    positions: list[int] = []
    groups = zip(torch.split(preds, sizes), torch.split(target, sizes), _are_empty(metric, target, sizes), strict=True)
    for position, (scores, relevance, is_empty) in enumerate(groups):
        value = empty_value() if is_empty else _compat.query_value(metric, scores, relevance)
        if value is not None:
            # torchmetrics casts every value to the dtype of the scores before it aggregates
            values.append(value.to(preds))
            positions.append(position)
    scored = torch.stack(values).double().cpu() if values else torch.zeros(0, dtype=torch.float64)
    return scored, torch.tensor(positions, dtype=torch.int64)


def _are_empty(metric: Metric, target: Tensor, sizes: list[int]) -> list[bool]:
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.int64)).to(target.device)
    counted = 1 - target if _compat.needs_irrelevant_row(metric) else target
    sums = torch.zeros(len(sizes), dtype=counted.dtype, device=target.device).index_add_(0, owner, counted)
    return (sums == 0).tolist()


def _value_of_empty(metric: Any) -> Callable[[], Tensor | None]:
    action = metric.empty_target_action
    if action == "error":
        wanted = "negative" if _compat.needs_irrelevant_row(metric) else "positive"
        message = f"`compute` method was provided with a query with no {wanted} target."

        def fail() -> Tensor | None:
            raise EmptyQueryError(message)

        return fail
    value = {"pos": torch.tensor(1.0), "neg": torch.tensor(0.0)}.get(action)
    return lambda: value


def aggregate_lives(metric: Metric, values: Tensor, lives: Tensor) -> float:
    """One number from the values of queries of one or more metric lives.

    A mean is the mean over all queries. Any other aggregation is taken within each life, and these are averaged by
    their numbers of queries.

    Args:
        metric: Says how to aggregate.
        values: Values of the queries, float64 of shape ``(queries,)``.
        lives: The life each value belongs to, int64 of the same shape.
    """
    aggregation = _compat.aggregation_of(metric)
    if not values.numel():
        return 0.0
    if aggregation == "mean":
        return float(values.mean())
    total = 0.0
    for life in lives.unique():
        own = values[lives == life]
        total += float(_compat.aggregate(own, aggregation)) * own.numel()
    return total / values.numel()
