"""What fed a metric was seen, never guessed: compute groups, metrics in metrics, tensors that are written to again.

On one device and with ids of the data set plain numbers are right, so that every mode must leave them as they are.
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import Metric, MetricCollection, MetricTracker
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalMRR, RetrievalRecall
from torchmetrics.wrappers import MinMaxMetric, Running

from lightning_retrieval_guard import RetrievalGuard
from tests.distributed.programs.data import Batch, rows_of

from .programs import Trainable, floats, make_trainer

pytestmark = pytest.mark.timeout(90)
MODES = ["warn", "correct", "strict"]
EPOCHS = 2


class Program(Trainable, LightningModule):
    """Trains and validates over the same batches."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[dict[str, float]] = []

    def moved(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Other scores in each epoch, and in training."""
        scores, target, ids = rows_of(batch)
        return scores * (1.3 + self.current_epoch + self.training) % 1 + 0.01, target, ids

    def on_validation_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.epochs.append(floats(self.trainer.callback_metrics))


def members() -> dict[str, Metric]:
    return {"mrr": RetrievalMRR(), "map": RetrievalMAP(), "hit": RetrievalHitRate(top_k=1)}


class TwoCollections(Program):
    """One for each stage, fed as often and as much as the other."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.train_metrics = self.make("train_", **options)
        self.val_metrics = self.make("val_", **options)

    def make(self, prefix: str, **options: Any) -> MetricCollection:
        return MetricCollection(members(), prefix=prefix, **options)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        scores, target, ids = self.moved(batch)
        self.train_metrics.update(scores, target, indexes=ids)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores, target, ids = self.moved(batch)
        self.val_metrics.update(scores, target, indexes=ids)

    def on_train_epoch_end(self) -> None:
        self.show(self.train_metrics)

    def on_validation_epoch_end(self) -> None:
        self.show(self.val_metrics)

    def show(self, metrics: MetricCollection) -> None:
        self.log_dict(metrics.compute())
        metrics.reset()


class Objects(TwoCollections):
    """Lightning computes and resets."""

    def show(self, metrics: MetricCollection) -> None:
        self.log_dict(metrics)


class OneByOne(TwoCollections):
    def show(self, metrics: MetricCollection) -> None:
        for name, metric in metrics.items():
            self.log(name, metric.compute())
        metrics.reset()


class Cloned(TwoCollections):
    def make(self, prefix: str, **options: Any) -> MetricCollection:
        return MetricCollection(members(), **options).clone(prefix=prefix)


class Copied(TwoCollections):
    def make(self, prefix: str, **options: Any) -> MetricCollection:
        return deepcopy(MetricCollection(members(), prefix=prefix, **options))


class Nested(TwoCollections):
    def make(self, prefix: str, **options: Any) -> MetricCollection:
        inner = MetricCollection({"map": RetrievalMAP(), "hit": RetrievalHitRate(top_k=1)}, prefix="in_", **options)
        return MetricCollection({"mrr": RetrievalMRR(), "inner": inner}, prefix=prefix, **options)


class Forwarded(TwoCollections):
    """The groups form with `update()` alone."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores, target, ids = self.moved(batch)
        self.val_metrics(scores, target, indexes=ids)


class Tracked(Program):
    """A tracker copies its collection in each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = MetricTracker(MetricCollection(members()), maximize=[True] * 3)

    def on_validation_epoch_start(self) -> None:
        self.tracker.increment()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores, target, ids = self.moved(batch)
        self.tracker.update(scores, target, indexes=ids)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.tracker.compute())
        best = self.tracker.best_metric()
        self.log_dict({f"best_{name}": value for name, value in best.items()})


def fit(program: LightningModule, *guard: RetrievalGuard) -> list[dict[str, float]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_trainer(*guard, max_epochs=EPOCHS, num_sanity_val_steps=0).fit(program)
    epochs: list[dict[str, float]] = program.epochs
    assert len(epochs) == EPOCHS
    return epochs


def same(one: list[dict[str, float]], other: list[dict[str, float]]) -> bool:
    return one == [pytest.approx(epoch, abs=1e-6) for epoch in other]


def stays_silent(make: Any, mode: str) -> None:
    guard = RetrievalGuard(mode)
    assert same(fit(make(), guard), fit(make()))
    assert [finding for finding in guard.findings if finding.severity != "note"] == []


GROUPS: list[Any] = [True, False, [["mrr", "map"], ["hit"]]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("groups", GROUPS, ids=["found", "none", "given"])
@pytest.mark.parametrize("kind", [TwoCollections, Objects, OneByOne])
def test_two_collections_of_equal_shape(kind: type[TwoCollections], groups: Any, mode: str) -> None:
    stays_silent(lambda: kind(compute_groups=groups), mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [Cloned, Copied, Nested, Forwarded, Tracked])
def test_other_collections(kind: type[Program], mode: str) -> None:
    stays_silent(kind, mode)


# --- updates of their own -------------------------------------------------------------------------------------------


class Sharp(RetrievalMRR):
    def update(self, preds: Tensor, target: Tensor, indexes: Tensor) -> None:
        super().update(preds**3 % 0.7 + 0.01, target, indexes)


class Reversed(RetrievalMRR):
    def update(self, preds: Tensor, target: Tensor, indexes: Tensor) -> None:
        super().update(1.02 - preds, target, indexes)


class Validates(Program):
    """Makes metrics, feeds them in each batch, and shows them at the end."""

    def __init__(self, **metrics: Metric) -> None:
        super().__init__()
        self.metrics = torch.nn.ModuleDict(metrics)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        rows = self.moved(batch)
        for metric in self.metrics.values():
            metric.update(*rows)

    def on_validation_epoch_end(self) -> None:
        for name, metric in self.metrics.items():
            self.log(name, metric.compute())
            metric.reset()


@pytest.mark.parametrize("mode", MODES)
def test_metrics_that_make_other_rows_of_the_same_tensors(mode: str) -> None:
    stays_silent(lambda: Validates(sharp=Sharp(), reversed=Reversed(), plain=RetrievalMRR()), mode)


class Buffered(Validates):
    """Writes each batch into the same tensor, which torchmetrics keeps and so counts as it is at the end."""

    def __init__(self, **metrics: Metric) -> None:
        super().__init__(**metrics)
        self.buffer = torch.empty(0)

    def moved(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        scores, target, ids = super().moved(batch)
        if self.buffer.numel() < scores.numel():
            self.buffer = torch.empty(2 * scores.numel())
        held = self.buffer[: scores.numel()]
        held.copy_(scores.flatten())
        return held.view_as(scores), target, ids


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_buffer_that_is_written_to_again(mode: str) -> None:
    def make() -> Buffered:
        return Buffered(mrr=RetrievalMRR(), recall=RetrievalRecall(top_k=2))

    assert same(fit(make(), RetrievalGuard(mode)), fit(make()))


class BufferedInStep(Buffered):
    """The same, with a metric for each batch: the value stands for what was in the buffer then."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        metric = RetrievalMRR()
        metric.update(*self.moved(batch))
        self.log("mrr", metric.compute(), batch_size=len(batch["query"]))

    def on_validation_epoch_end(self) -> None:
        pass


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_buffer_that_is_written_to_in_each_step(mode: str) -> None:
    guard = RetrievalGuard(mode)
    assert same(fit(BufferedInStep(), guard), fit(BufferedInStep()))
    assert not [finding for finding in guard.findings if finding.severity != "note"]


# --- metrics in metrics ---------------------------------------------------------------------------------------------


class Ensemble(Metric):
    """Owns two metrics, and starts them anew for each batch that it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = RetrievalMRR(), RetrievalRecall(top_k=1)

    def update(self, preds: Tensor, target: Tensor, indexes: Tensor) -> None:
        self.first.update(preds, target, indexes)
        self.second.update(preds, target, indexes)

    def compute(self) -> Tensor:
        return self.first.compute() + self.second.compute()

    def forward(self, *rows: Tensor) -> Tensor:
        self.reset()
        self.update(*rows)
        return self.compute()

    def reset(self) -> None:
        super().reset()
        self.first.reset()
        self.second.reset()


def named(name: str, value: Any) -> dict[str, Tensor]:
    """The numbers in the value of a metric."""
    return {f"{name}_{part}": entry for part, entry in value.items()} if isinstance(value, dict) else {name: value}


class InSteps(Validates):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        rows = self.moved(batch)
        for name, metric in self.metrics.items():
            self.log_dict(named(name, metric(*rows)), batch_size=len(batch["query"]))

    def on_validation_epoch_end(self) -> None:
        pass


def wrapped() -> dict[str, Metric]:
    return {"ensemble": Ensemble(), "minmax": MinMaxMetric(RetrievalMRR())}


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_what_a_metric_does_with_others_is_its_own(mode: str) -> None:
    def make() -> InSteps:
        return InSteps(running=Running(RetrievalMRR(), window=2), **wrapped())

    assert same(fit(make(), RetrievalGuard(mode)), fit(make()))


class AtEnd(Validates):
    def on_validation_epoch_end(self) -> None:
        for name, metric in self.metrics.items():
            self.log_dict(named(name, metric.compute()))


@pytest.mark.parametrize("mode", MODES)
def test_wrappers_at_the_end_of_the_epoch(mode: str) -> None:
    assert same(fit(AtEnd(**wrapped()), RetrievalGuard(mode)), fit(AtEnd(**wrapped())))


@pytest.mark.parametrize("mode", MODES)
def test_a_composition_shows_the_composition_of_its_parts(mode: str) -> None:
    def make() -> Validates:
        return Validates(both=0.5 * RetrievalMRR() + 0.5 * RetrievalRecall(top_k=1))

    stays_silent(make, mode)
