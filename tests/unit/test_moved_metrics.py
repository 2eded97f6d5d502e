"""A metric that is where it is told to move stays as it is, and one that is not, moves."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torchmetrics import CatMetric, MeanMetric, Metric, MinMaxMetric
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy
from torchmetrics.regression import PearsonCorrCoef

from lightning_retrieval_guard import _compat

HERE, ELSEWHERE = torch.device("cpu"), torch.device("meta")


class MovesMore(MeanMetric):
    """Moves something that torchmetrics does not know of."""

    def _apply(self, fn: Any, *args: Any) -> Any:
        return super()._apply(fn, *args)


class WithModule(MeanMetric):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(2, 2)


def doubled(metric: Metric) -> Metric:
    metric.set_dtype(torch.double)
    return metric


def moved(metric: Metric, *names: str) -> Metric:
    for name in names:
        setattr(metric, name, torch.ones(1, device=ELSEWHERE))
    return metric


STAYS = [BinaryAUROC(thresholds=5), MulticlassAccuracy(3), MeanMetric(), PearsonCorrCoef()]
MOVES = {
    "list": CatMetric(),
    "lists": BinaryAUROC(),
    "network": WithModule(),
    "its own way": MovesMore(),
    "other metrics": MinMaxMetric(MeanMetric()),
    "state": moved(MeanMetric(), "mean_value"),
    "buffer": moved(BinaryAUROC(thresholds=5), "thresholds"),
    "value": moved(MeanMetric(), "_computed"),
    "value of a batch": moved(MeanMetric(), "_forward_cache"),
}

if hasattr(Metric, "dtype"):  # from torchmetrics 1.3 on, a move sets it anew
    MOVES["dtype"] = doubled(MeanMetric())


def contents(metric: Metric) -> dict[str, Any]:
    """Each attribute, tensors by identity."""
    return {name: id(value) if isinstance(value, torch.Tensor) else repr(value) for name, value in vars(metric).items()}


@pytest.mark.parametrize("metric", STAYS, ids=lambda metric: type(metric).__name__)
@pytest.mark.parametrize("is_computed", [False, True])
def test_to_would_change_nothing(metric: Metric, is_computed: bool) -> None:
    metric = copy.deepcopy(metric)
    if is_computed:
        metric.update(*[torch.tensor([0.0, 1.0, 1.0])] * (1 if isinstance(metric, MeanMetric) else 2))
        metric.compute()
    before = contents(metric)
    assert _compat.stays_in_place(metric, HERE)
    assert contents(metric.to(HERE)) == before


@pytest.mark.parametrize("metric", MOVES.values(), ids=MOVES)
def test_torchmetrics_moves_what_a_glance_does_not_show(metric: Metric) -> None:
    assert not _compat.stays_in_place(metric, HERE)


@pytest.mark.parametrize("metric", STAYS, ids=lambda metric: type(metric).__name__)
def test_a_metric_of_another_device_moves(metric: Metric) -> None:
    assert not _compat.stays_in_place(metric, ELSEWHERE)
