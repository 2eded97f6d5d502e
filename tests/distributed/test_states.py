"""Metrics that keep states: ranks that were fed unequally give the number of one device, and keep what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision, BinaryF1Score
from torchmetrics.regression import PearsonCorrCoef

from lightning_retrieval_guard import RetrievalGuard

from .counting import Step, counted_collectives
from .evaluate import Recorder, guards, make_trainer, recorded_warnings
from .harness import Pool

pytestmark = pytest.mark.timeout(120)

COUNT = 12
SCORES = torch.rand(COUNT, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0])
SHARES = {"even": (6, 6), "uneven": (8, 4), "empty": (12, 0)}


class MeanOfUpdates(Metric):
    """Keeps the mean over its updates, and a product."""

    mean: Tensor
    product: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("mean", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="mean")
        self.add_state("product", torch.ones(1), dist_reduce_fx=lambda stack: stack.prod(0))

    def update(self, scores: Tensor) -> None:
        count = self.update_count
        self.mean = (self.mean * (count - 1) + scores.double().mean()) / count
        self.product = self.product * scores.prod()

    def compute(self) -> Tensor:
        return self.mean + 1e6 * self.product[0]


class OwnMerge(Metric):
    """Says itself how states are merged, and keeps a list of plain things."""

    best: Tensor
    seen: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("best", torch.zeros(2), dist_reduce_fx=None)
        self.add_state("seen", [], dist_reduce_fx=None)

    def update(self, scores: Tensor) -> None:
        self.seen.append((tuple(scores.shape), (scores[:1], b"bytes")))
        self.best = torch.cat([self.best, scores]).topk(2).values

    def merge_state(self, incoming_state: Any) -> None:
        self.best = torch.cat([self.best, incoming_state["best"]]).topk(2).values
        self.seen = self.seen + incoming_state["seen"]

    def _apply(self, fn: Any, *_: Any) -> Any:
        return self  # torch cannot move tuples

    def compute(self) -> Tensor:
        return self.best.sum() + sum(shape[0] for shape, _ in self.seen)


class Holding(Metric):
    things: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("things", [], dist_reduce_fx=None)

    def update(self, scores: Tensor) -> None:
        self.things.append({1: scores})

    def compute(self) -> Tensor:
        return torch.tensor(float(len(self.things)))


class Fed(LightningModule):
    """Feeds all of them in the step; a rank without a batch skips the loop."""

    def __init__(self, share: str, bare: bool = False) -> None:
        super().__init__()
        self.share, self.bare = share, bare
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.own, self.merge, self.auroc, self.sum = MeanOfUpdates(), OwnMerge(), BinaryAUROC(), MeanMetric()
        self.pearson, self.left, self.right = PearsonCorrCoef(), BinaryAUROC(), BinaryAveragePrecision()
        self.both = self.left + self.right
        self.group = MetricCollection([BinaryAUROC(), BinaryAveragePrecision(), BinaryF1Score()])
        self.values: dict[str, float] = {}
        self.is_kept = True

    def val_dataloader(self) -> Any:
        if self.trainer.world_size == 1:
            return DataLoader(Subset(range(COUNT), range(COUNT)), batch_size=2)
        first, second = SHARES[self.share]
        indexes = range(first) if self.global_rank == 0 else range(first, first + second)
        return DataLoader(Subset(range(COUNT), indexes), batch_size=2)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        if self.bare:
            return
        scores, labels = SCORES[batch], LABELS[batch]
        self.own.update(scores)
        self.merge.update(scores)
        self.pearson.update(scores, labels.float())
        for metric in (self.auroc, self.left, self.right, self.group):
            metric.update(scores, labels)
        self.sum.update(scores)
        self.log_dict({"own": self.own, "auroc": self.auroc, "sum": self.sum, "pearson": self.pearson})
        self.log("both", self.both)

    def on_validation_epoch_end(self) -> None:
        if self.bare:
            return
        # torchmetrics itself puts copies in the place of the states that it has combined
        metrics = {"merge": self.merge} | (dict(self.group.items(copy_state=False)) if self.share == "empty" else {})
        held = {name: _held(metric) for name, metric in metrics.items()}
        values = {"merge": self.merge.compute(), **self.group.compute()}
        self.is_kept = all(_is_same(held[name], _held(metric)) for name, metric in metrics.items())
        self.values = {name: float(value) for name, value in values.items()}
        self.merge.reset()


def _held(metric: Metric) -> dict[str, Any]:
    return {name: getattr(metric, name) for name in metric._defaults} | {"count": metric._update_count}


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[name] is other[name] for name in one)


def run(share: str, mode: str, bare: bool = False) -> dict[str, Any]:
    """What this rank shows."""
    module, recorder, step = Fed(share, bare), Recorder(), Step()
    guard = guards(mode, {})
    trainer = make_trainer(step.around(*guard), recorder, use_distributed_sampler=False)
    with recorded_warnings() as warned, counted_collectives(step) as collectives:
        trainer.validate(module, verbose=False)
    return {
        "values": {**module.values, **{name: float(value) for name, value in trainer.callback_metrics.items()}},
        "found": sorted((one.code, one.key, one.corrected) for each in guard for one in each.findings),
        "said": [one["text"] for one in warned if "before the ``update``" in one["text"]],
        "collectives": collectives.counts["total"],
        "is_kept": module.is_kept,
        "states": sum(value.numel() for value in module.auroc.preds),
    }


@pytest.fixture(scope="module")
def reference(pools: Mapping[int, Pool]) -> dict[str, float]:
    """The values on one device, without a guard."""
    [shown] = pools[1].values(f"{__name__}:run", share="even", mode="none")
    assert len(shown["values"]) == 9
    return shown["values"]


@pytest.mark.parametrize("share", ["uneven", "empty"])
def test_uneven_ranks_show_the_numbers_of_one_device(
    pools: Mapping[int, Pool], reference: dict[str, float], share: str
) -> None:
    shown = pools[2].values(f"{__name__}:run", share=share, mode="correct")
    assert shown[0]["values"] == pytest.approx(reference, rel=1e-6)
    assert all(one["is_kept"] and not one["said"] for one in shown)
    if share == "uneven":
        assert shown[1]["values"] == shown[0]["values"]
        wanted = {("LRG205", name, True) for name in ("own", "merge")}
    else:
        objects = {"own", "auroc", "sum", "pearson", "both"}
        members = {f"group.{name}" for name in ("BinaryAUROC", "BinaryAveragePrecision", "BinaryF1Score")}
        wanted = {("LRG205", name, True) for name in objects | members | {"merge"}}
    assert set(shown[0]["found"]) == wanted


def test_even_ranks_are_left_to_torchmetrics(pools: Mapping[int, Pool]) -> None:
    plain = pools[2].values(f"{__name__}:run", share="even", mode="none")
    for mode, more in (("warn", 3), ("correct", 3)):
        shown = pools[2].values(f"{__name__}:run", share="even", mode=mode)
        for one, other in zip(plain, shown, strict=True):
            assert one["values"] == other["values"]
            assert not other["found"]
            assert one["collectives"] < other["collectives"] <= one["collectives"] + more


def test_all_of_them_take_two_more_collectives(pools: Mapping[int, Pool]) -> None:
    bare = pools[2].values(f"{__name__}:run", share="empty", mode="correct", bare=True)
    fed = pools[2].values(f"{__name__}:run", share="empty", mode="correct")
    assert [one["collectives"] for one in fed] == [one["collectives"] + 2 for one in bare]


@pytest.mark.parametrize("share", ["uneven", "empty"])
def test_strict_raises_on_every_rank_before_anything_hangs(pools: Mapping[int, Pool], share: str) -> None:
    outcomes = pools[2].run(f"{__name__}:run", share=share, mode="strict")
    assert [outcome.status for outcome in outcomes] == ["raised"] * 2
    for outcome in outcomes:
        error = " ".join(outcome.error.split())  # lines break by the length of the path
        assert "LRG205 uneven-updates" in error
        assert "BinaryAUROC" in error or "MeanOfUpdates 'own' was updated 4, 2 times" in error


class Unmergeable(LightningModule):
    """Has a metric whose states cannot travel, which nothing computes, and one that can."""

    def __init__(self) -> None:
        super().__init__()
        self.holding, self.auroc = Holding(), OwnMerge()

    def val_dataloader(self) -> Any:
        indexes = range(2) if self.global_rank == 0 else range(2, 6)
        return DataLoader(Subset(range(COUNT), indexes), batch_size=2)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.holding.update(SCORES[batch])
        self.auroc.update(SCORES[batch])

    def on_validation_epoch_end(self) -> None:
        self.log("auroc", self.auroc.compute())
        self.auroc.reset()
        self.holding.reset()


def run_unmergeable(max_held_mb: float) -> list[tuple[str, str, bool]]:
    """What is found."""
    guard = RetrievalGuard(mode="correct", max_held_mb=max_held_mb)
    trainer = make_trainer([guard], Recorder(), use_distributed_sampler=False)
    with recorded_warnings():
        trainer.validate(Unmergeable(), verbose=False)
    return [(finding.key, finding.message.partition("Its states")[2], finding.corrected) for finding in guard.findings]


def test_what_cannot_be_merged_is_named(pools: Mapping[int, Pool]) -> None:
    for findings in pools[2].values(f"{__name__}:run_unmergeable", max_held_mb=256):
        assert (
            "holding",
            " cannot be merged: it holds a thing of type dict, which cannot be sent to other ranks.",
            False,
        ) in findings
        assert ("auroc", "", True) in findings


def test_modules_do_not_count_as_states() -> None:
    class WithNetwork(Holding):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Linear(2, 2)

    from lightning_retrieval_guard import _compat

    assert list(_compat.metrics_in(WithNetwork())) == [""]
