"""Modules and functions that `torch.compile` traces: the guard sees what it can, and becomes part of no graph."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch._dynamo.utils import counters
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import Finding, RetrievalGuard, Severity
from tests.distributed.programs.data import Batch, rows_of

from .programs import Restarting, Trainable, floats, make_trainer, merged, reference, restarting_ids

MODES = pytest.mark.parametrize("mode", ["warn", "correct"])


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def run(method: str, compiled: Any, mode: str | None) -> tuple[dict[str, float], list[Finding]]:
    """The numbers and findings of a run, with or without a guard."""
    torch._dynamo.reset()
    guards = [] if mode is None else [RetrievalGuard(mode=mode)]  # type: ignore[arg-type]
    trainer = make_trainer(*guards, max_epochs=2, num_sanity_val_steps=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(trainer, method)(compiled)
    return floats(trainer.callback_metrics), [finding for guard in guards for finding in guard.findings]


class Forward(Restarting):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("mrr", self.metric(*rows_of(batch, restarting_ids(batch))), batch_size=len(batch["query"]))


class MadeInStep(Restarting):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        metric = RetrievalMRR()
        metric.update(*rows_of(batch))
        self.log("mrr", metric.compute(), batch_size=len(batch["query"]))


@MODES
@pytest.mark.parametrize(("method", "backend"), [("validate", "eager"), ("fit", "aot_eager")])
def test_a_compiled_module(method: str, backend: str, mode: str) -> None:
    numbers, findings = run(method, torch.compile(Restarting(), backend=backend), mode)
    assert numbers == {"mrr": merged() if mode == "warn" else pytest.approx(reference(), abs=1e-6)}
    assert [(finding.code, finding.path) for finding in findings] == [("LRG301", findings[0].path)]
    assert findings[0].path.endswith("programs.py")
    assert counters["stats"]["unique_graphs"] > 0, "nothing was compiled"


@pytest.mark.parametrize("program", [Forward, MadeInStep])
def test_values_of_a_step(program: type[Restarting]) -> None:
    numbers, findings = run("validate", torch.compile(program(), backend="eager"), "correct")
    assert numbers == {"mrr": pytest.approx(reference(), abs=1e-6)}
    assert {finding.severity for finding in findings} <= {Severity.NOTE}, findings


def test_the_guard_is_not_traced() -> None:
    """Of the frames that are compiled none is the guard's, and its scoring is in no graph."""
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.extend(str(node.stack_trace) for node in graph.graph.nodes)
        return graph.forward

    run("validate", torch.compile(Forward(), backend=keep), "correct")
    assert any("validation_step" in trace for trace in graphs)
    assert not [trace for trace in graphs if "lightning_retrieval_guard/ranking" in trace]


class InGraph(Trainable, LightningModule):
    """Its step is one graph, with a metric in it; Lightning's `log` can be in none."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric(nan_strategy="disable")
        self.net = torch.nn.Linear(1, 1)
        torch.nn.init.ones_(self.net.weight)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.net(batch["score"][..., None])
        self.mean.update(scores)

    def on_validation_epoch_end(self) -> None:
        self.log("mean_metric", self.mean.compute())
        self.mean.reset()


@MODES
def test_a_step_that_must_be_one_graph(mode: str) -> None:
    module = InGraph()
    plain, _ = run("validate", torch.compile(module, backend="eager", fullgraph=True), None)
    twin = InGraph()
    twin.load_state_dict(module.state_dict())
    numbers, findings = run("validate", torch.compile(twin, backend="eager", fullgraph=True), mode)
    assert numbers == plain
    assert plain.keys() == {"mean_metric"}
    assert not findings


class Helper(Restarting):
    """A function that must be one graph updates a metric; the module is not compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric(nan_strategy="disable")
        self.add = torch.compile(self._add, backend="eager", fullgraph=True)

    def _add(self, scores: Tensor) -> Tensor:
        self.mean.update(scores)
        return scores * 2

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.add(batch["score"])

    def on_validation_epoch_end(self) -> None:
        self.log("mean", self.mean.compute())


@MODES
def test_a_function_that_must_be_one_graph(mode: str) -> None:
    plain, _ = run("validate", Helper(), None)
    numbers, findings = run("validate", Helper(), mode)
    assert numbers == {"mean": plain["mean"], "mrr": plain["mrr"] if mode == "warn" else pytest.approx(reference())}
    assert [finding.code for finding in findings] == ["LRG301"]


class SeenInPart(Trainable, LightningModule):
    """A metric without rows is updated in compiled code, and then once outside of it; it is never reset."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = BinaryAccuracy()
        self.add = torch.compile(self.metric.update, backend="eager")
        self.shown: list[float] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.add(batch["score"].sigmoid(), batch["target"])

    def on_validation_epoch_end(self) -> None:
        self.metric.update(torch.ones(8), torch.zeros(8, dtype=torch.long))
        self.shown.append(float(self.metric.compute()))


@MODES
def test_what_the_guard_has_not_seen_it_does_not_drop(mode: str) -> None:
    plain, guarded = SeenInPart(), SeenInPart()
    for module, guard in ((plain, None), (guarded, mode)):
        run("fit", module, guard)
    assert guarded.shown == plain.shown
    assert len(plain.shown) == 2
