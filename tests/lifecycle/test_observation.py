"""However a metric is held and a value logged, the guard knows the value's kind, its metric and the user's line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torchmetrics import ClasswiseWrapper, Metric, MetricCollection, MinMaxMetric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR

from lightning_retrieval_guard import GuardWarning, RetrievalGuard, Severity
from lightning_retrieval_guard.watch.keys import KeyRecord
from tests.distributed.programs.data import Batch, rows_of

from .programs import Trainable, make_trainer, merged, reference, restarting_ids

RIGHT = pytest.approx(reference(), abs=1e-6)
LOG_CALL = "# the log call"


class Program(Trainable, LightningModule):
    """Holds a metric, and feeds it with ids that restart."""

    make: Callable[[], Any] = RetrievalMRR

    def __init__(self) -> None:
        super().__init__()
        self.metric = type(self).make()

    def held(self) -> list[Any]:
        return [self.metric]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for metric in self.held():
            metric.update(*rows_of(batch, restarting_ids(batch)))


def collection() -> MetricCollection:
    return MetricCollection({"mrr": RetrievalMRR(), "hit": RetrievalHitRate(top_k=1)})


class Attribute(Program):
    """The metric is an attribute, logged as an object."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("mrr", self.metric)  # the log call


class ComputedAttribute(Program):
    """The metric is an attribute; its value is logged at the end."""

    def on_validation_epoch_end(self) -> None:
        self.log("mrr", self.metric.compute())  # the log call
        self.metric.reset()


class InModuleDict(Program):
    make = staticmethod(lambda: torch.nn.ModuleDict({"mrr": RetrievalMRR()}))

    def held(self) -> list[Any]:
        return [self.metric["mrr"]]

    def on_validation_epoch_end(self) -> None:
        for name, metric in self.metric.items():
            self.log(name, metric.compute())  # the log call


class Collected(Program):
    make = staticmethod(collection)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log_dict(self.metric)  # the log call


class CollectedValues(Program):
    """The values of a MetricCollection, logged with log_dict."""

    make = staticmethod(collection)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metric.compute())  # the log call


class InList(Program):
    """The metric is in a plain list, where Lightning does not see it."""

    make = staticmethod(lambda: [RetrievalMRR()])

    def held(self) -> list[Any]:
        return self.metric

    def on_validation_epoch_end(self) -> None:
        self.log("mrr", self.metric[0].compute())  # the log call


class LocalVariable(Program):
    """The metric is made and fed at the end, and lives in a local variable."""

    make = staticmethod(list)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.append(batch)

    def on_validation_epoch_end(self) -> None:
        metric = RetrievalMRR()
        for batch in self.metric:
            metric.update(*rows_of(batch))
        self.log("mrr", metric.compute())  # the log call


class AfterReset(Program):
    """The value is logged when the metric has forgotten its rows."""

    def on_validation_epoch_end(self) -> None:
        value = self.metric.compute()
        self.metric.reset()
        self.log("mrr", value)  # the log call


class OfCallback(Callback):
    """The metric is the callback's, and so is the log call."""

    def __init__(self) -> None:
        self.metric = RetrievalMRR()

    def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Batch, *_: Any) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch)))

    def on_validation_epoch_end(self, *_: Any) -> None:
        self.log("mrr", self.metric.compute())  # the log call


class DictOfCallback(OfCallback):
    def on_validation_epoch_end(self, *_: Any) -> None:
        self.log_dict({"mrr": self.metric.compute()})  # the log call


class ThroughTheModule(OfCallback):
    def on_validation_epoch_end(self, trainer: Any, module: LightningModule) -> None:
        module.log("mrr", self.metric.compute())  # the log call


class Silent(Program):
    def held(self) -> list[Any]:
        return []


HOLDERS = [
    Attribute,
    ComputedAttribute,
    InModuleDict,
    Collected,
    CollectedValues,
    InList,
    AfterReset,
    OfCallback,
    DictOfCallback,
    ThroughTheModule,
]


def line_of(holder: type) -> int:
    lines, first = inspect.getsourcelines(holder)
    [offset] = [offset for offset, line in enumerate(lines) if LOG_CALL in line]
    return first + offset


class Spy(Callback):
    """Reads what the guard knows of the keys when everything is logged; stands in front of the guard."""

    def __init__(self, guard: RetrievalGuard) -> None:
        self.guard = guard
        self.keys: dict[str, KeyRecord] = {}

    def on_validation_batch_end(self, *_: Any) -> None:
        self.look()

    def look(self) -> None:
        session = self.guard._session
        stage = session._listener.stage() if session is not None else None
        self.keys.update({} if stage is None else {key.call.name: key for key in stage.keys.values()})


def watched(program: LightningModule, *callbacks: Callback, mode: str = "correct") -> tuple[dict[str, Any], Any]:
    """What is shown, and what the guard knew of each key."""
    guard = RetrievalGuard(mode=mode)
    spy = Spy(guard)
    original = program.on_validation_epoch_end

    def at_end() -> None:
        original()
        spy.look()

    program.on_validation_epoch_end = at_end  # what the guard wraps is the module's own hook
    [returned] = make_trainer(spy, *callbacks, guard).validate(program, verbose=False)
    return returned, spy.keys


def run(holder: type, mode: str = "correct") -> tuple[dict[str, Any], dict[str, KeyRecord]]:
    programs = (Silent(), holder()) if issubclass(holder, Callback) else (holder(),)
    with pytest.warns() as said:
        shown = watched(*programs, mode=mode)
    assert {warning.lineno for warning in said if warning.category is GuardWarning} <= {line_of(holder)}
    return shown


@pytest.mark.parametrize("holder", HOLDERS)
def test_the_kind_the_metric_and_the_line_are_known_and_the_value_is_corrected(holder: type) -> None:
    shown, keys = run(holder)
    assert shown["mrr"] == RIGHT
    key = keys["mrr"]
    assert (key.call.path, key.call.line) == (__file__, line_of(holder))
    assert key.call.kind == ("metric" if holder in (Attribute, Collected) else "compute")
    [life] = key.lives
    assert type(life.metric) is RetrievalMRR


@pytest.mark.parametrize("holder", HOLDERS)
def test_warn_finds_it_at_the_users_line(holder: type) -> None:
    guard = RetrievalGuard()
    program, callbacks = (Silent(), [holder()]) if issubclass(holder, Callback) else (holder(), [])
    with pytest.warns(GuardWarning, match="LRG301") as said:
        [shown] = make_trainer(*callbacks, guard).validate(program, verbose=False)
    assert shown["mrr"] == merged()
    warned = [warning for warning in said if warning.category is GuardWarning and "mrr" in str(warning.message).split()]
    assert [(one.filename, one.lineno) for one in warned] == [(__file__, line_of(holder))]
    [restarting] = [
        finding for finding in guard.findings if finding.key == "mrr" and finding.severity is not Severity.NOTE
    ]
    assert (restarting.code, restarting.path, restarting.line) == ("LRG301", __file__, line_of(holder))


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_local_variable(mode: str) -> None:
    """Rows with the data set's ids: right, known, and left alone."""
    shown, keys = watched(LocalVariable(), mode=mode)
    assert shown == {"mrr": reference()}
    assert keys["mrr"].call.kind == "compute"
    assert keys["mrr"].call.line == line_of(LocalVariable)
    [life] = keys["mrr"].lives
    assert type(life.metric) is RetrievalMRR


# --- values of one batch ----------------------------------------------------------------------------------------


class Forward(Program):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("mrr", self.metric(*rows_of(batch)))  # the log call


class ComputeInStep(Program):
    """The value of a metric that lives for the step."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        metric = RetrievalMRR()
        metric.update(*rows_of(batch))
        self.log("mrr", metric.compute())  # the log call


class Halved(Program):
    """Another tensor, made from a metric's value."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("mrr", self.metric(*rows_of(batch)) / 2)  # the log call


@pytest.mark.parametrize(("program", "kind"), [(Forward, "forward"), (ComputeInStep, "compute"), (Halved, "plain")])
def test_values_of_a_step(program: type, kind: str) -> None:
    shown, keys = watched(program())
    assert keys["mrr"].call.kind == kind
    assert keys["mrr"].call.line == line_of(program)
    assert len(keys["mrr"].lives) == {"forward": 1, "compute": 5, "plain": 0}[kind]
    assert shown["mrr"] == pytest.approx(reference() / (2 if program is Halved else 1), abs=1e-6)


# --- wrappers ---------------------------------------------------------------------------------------------------


class MinMax(Program):
    """A wrapper that keeps the best and the worst value of the metric in it."""

    make = staticmethod(lambda: MinMaxMetric(RetrievalMRR()))

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metric.compute())  # the log call
        self.metric.reset()


class Classwise(Program):
    """A wrapper whose compute() returns a dict of views, one a class."""

    make = staticmethod(lambda: ClasswiseWrapper(MulticlassAccuracy(num_classes=3, average=None)))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(batch["query"] % 3, batch["query"] % 2)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metric.compute())  # the log call


@pytest.mark.parametrize(
    ("program", "names"),
    [(MinMax, {"raw", "min", "max"}), (Classwise, {f"multiclassaccuracy_{label}" for label in range(3)})],
)
def test_a_wrapper(program: type[Program], names: set[str]) -> None:
    """What is fed within the call of another metric belongs to that one, whose numbers stand."""
    shown, keys = watched(program())
    [plain] = make_trainer().validate(program(), verbose=False)
    assert shown == plain
    assert {name: key.call.kind for name, key in keys.items()} == dict.fromkeys(names, "compute")
    assert {key.call.line for key in keys.values()} == {line_of(program)}


# --- what is kept alive -----------------------------------------------------------------------------------------


def test_keys_do_not_hold_the_users_metric_by_another_name() -> None:
    """The metric behind the key is the very object that the user logged."""
    program = Attribute()
    with pytest.warns(GuardWarning):
        _, keys = watched(program)
    metric: Metric = keys["mrr"].lives[0].metric
    assert metric is program.metric
