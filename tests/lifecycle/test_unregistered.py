"""LRG405: metrics that are no part of the module, in real runs. A CPU with an index stands for another device."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torchmetrics import MeanMetric, Metric, MetricCollection, MinMaxMetric
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR

from lightning_retrieval_guard import Finding, GuardError, GuardWarning, RetrievalGuard, Severity
from lightning_retrieval_guard.run.synchronize import Synchronizer
from tests.distributed.evaluate import guards, make_trainer, recorded_warnings
from tests.distributed.harness import Pool
from tests.distributed.programs.data import Batch, rows_of

from .programs import Trainable
from .programs import make_trainer as make_lone_trainer

ELSEWHERE = torch.device("cpu", 0)
UPDATE, ROWS, LOG_CALL = "# the update", "# the update of rows", "# the log call"


def elsewhere(metric: Metric) -> Metric:
    for part in metric.modules():
        part._device = ELSEWHERE
    return metric


class Program(Trainable, LightningModule):
    """Feeds what it holds; logs nothing."""

    def held(self) -> list[Any]:
        return []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for metric in self.held():
            if isinstance(metric, MeanMetric):
                metric.update(batch["score"])  # the update
            else:
                metric.update(*rows_of(batch))  # the update of rows


class InDict(Program):
    """A metric that is none of retrieval, in a plain dict."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = {"mean": MeanMetric()}

    def held(self) -> list[Any]:
        return [self.plain["mean"]]


class Logged(InDict):
    def on_validation_epoch_end(self) -> None:
        self.log("mean", self.plain["mean"].compute())  # the log call
        self.plain["mean"].reset()


class LoggedForward(InDict):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("mean", self.plain["mean"](batch["score"]), batch_size=len(batch["score"]))  # the log call


class FedAtEnd(Program):
    """A metric in a list, fed and logged when the epoch ends."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = [MeanMetric()]

    def held(self) -> list[Any]:
        return self.plain

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.score = batch["score"]

    def on_validation_epoch_end(self) -> None:
        self.plain[0].update(self.score)
        self.log("mean", self.plain[0].compute())  # the log call


OF_THE_FILE: list[Any] = []


@pytest.fixture(scope="module", autouse=True)
def of_the_file() -> None:
    """Made when the tests begin: what is there before is set aside, and the guard does not see it."""
    OF_THE_FILE[:] = [MeanMetric(), MinMaxMetric(RetrievalMRR())]


class OfTheFile(Program):
    def held(self) -> list[Any]:
        return OF_THE_FILE[:1]


class WrapperOfTheFile(Program):
    """A global wrapper: the metric in it is updated too."""

    def held(self) -> list[Any]:
        return OF_THE_FILE[1:]


class CollectionInList(Program):
    def __init__(self) -> None:
        super().__init__()
        self.plain = [MetricCollection({"hit": RetrievalHitRate(top_k=1), "mrr": RetrievalMRR()})]

    def held(self) -> list[Any]:
        return self.plain

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.plain[0].compute())  # the log call


class WrapperInList(CollectionInList):
    def __init__(self) -> None:
        super().__init__()
        self.plain = [MinMaxMetric(RetrievalMRR())]


class OfCallback(Callback):
    def __init__(self, metric: Metric) -> None:
        self.metric = metric

    def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Batch, *_: Any) -> None:
        self.metric.update(batch["score"])


def line_of(program: type, mark: str) -> int:
    lines, first = inspect.getsourcelines(program)
    return first + next(number for number, line in enumerate(lines) if line.rstrip().endswith(mark))


def validated(program: LightningModule, *callbacks: Callback, mode: Any = "warn") -> list[Finding]:
    guard = RetrievalGuard(mode=mode)
    with recorded_warnings():
        make_lone_trainer(*callbacks, guard).validate(program, verbose=False)
    return [finding for finding in guard.findings if finding.code not in ("LRG301", "LRG203")]


@pytest.mark.parametrize(
    ("program", "name", "where"),
    [
        (InDict, "plain['mean']", (Program, UPDATE)),
        (OfTheFile, "MeanMetric", (Program, UPDATE)),
        (WrapperOfTheFile, "MinMaxMetric", (Program, ROWS)),
        (Logged, "mean", (Logged, LOG_CALL)),
        (LoggedForward, "mean", (LoggedForward, LOG_CALL)),
        (FedAtEnd, "mean", (FedAtEnd, LOG_CALL)),
        (CollectionInList, "hit", (CollectionInList, LOG_CALL)),
        (WrapperInList, "raw", (CollectionInList, LOG_CALL)),
    ],
)
def test_it_is_noted_once_at_its_place(program: type, name: str, where: tuple[type, str]) -> None:
    [finding] = validated(program())
    assert (finding.code, finding.key, finding.severity) == ("LRG405", name, Severity.NOTE)
    assert (finding.path, finding.line) == (__file__, line_of(*where))
    assert (finding.stage, finding.count, finding.ranks) == ("validate", 1, (0,))


def test_a_collection_is_named_as_a_whole() -> None:
    [finding] = validated(CollectionInList())
    assert "MetricCollection 'plain[0]'" in finding.message


# --- what is silent ---------------------------------------------------------------------------------------------


class Registered(Program):
    """Metrics in every place that Lightning knows."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric()
        self.by_name = torch.nn.ModuleDict({"c": MetricCollection({"mrr": RetrievalMRR()})})
        self.listed = torch.nn.ModuleList([MinMaxMetric(RetrievalMRR())])

    def held(self) -> list[Any]:
        return [self.mean, self.by_name["c"], self.listed[0]]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("object", self.mean)


class ShortLived(Program):
    """Metrics that are made, or copied, where they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for metric in (MeanMetric(), self.mean.clone()):
            metric.update(batch["score"])
            self.log("mean", metric.compute(), batch_size=len(batch["score"]))

    def on_validation_epoch_end(self) -> None:
        metric = MeanMetric()
        metric.update(torch.ones(3))
        self.log("ones", metric.compute())


class Unused(Program):
    def __init__(self) -> None:
        super().__init__()
        self.plain = [MeanMetric()]


@pytest.mark.parametrize("program", [Registered, ShortLived, Unused])
def test_other_metrics_are_silent(program: type) -> None:
    assert not validated(program())


def test_a_callback_may_hold_metrics_where_the_module_is() -> None:
    assert not validated(Program(), OfCallback(MeanMetric()))


def test_an_update_outside_of_the_stage_is_silent() -> None:
    program = InDict()
    program.plain["mean"].update(torch.ones(2))
    with mock.patch.object(InDict, "held", return_value=[]):
        assert not validated(program)


# --- another device ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [InDict, Logged, LoggedForward, FedAtEnd])
def test_on_another_device_it_is_a_warning(make: Callable[[], Program]) -> None:
    program = make()
    elsewhere(program.held()[0])
    [finding] = validated(program)
    assert (finding.severity, finding.corrected) == (Severity.WARNING, False)
    assert "It is on cpu:0, the module is on cpu." in finding.message
    assert program.held()[0].device == ELSEWHERE


def test_a_callbacks_metric_on_another_device_is_a_warning() -> None:
    [finding] = validated(Program(), OfCallback(elsewhere(MeanMetric())))
    assert (finding.key, finding.severity) == ("OfCallback.metric", Severity.WARNING)
    assert finding.fix.startswith("Move it in a start hook of the callback")


def test_strict_raises() -> None:
    program = InDict()
    elsewhere(program.plain["mean"])
    with pytest.raises(GuardError, match=r"LRG405 unregistered-metric:\s+MeanMetric\s.*plain\['mean'\]"):
        validated(program, mode="strict")


@pytest.mark.parametrize("make", [InDict, Logged, LoggedForward, FedAtEnd, OfTheFile])
def test_correct_moves_it_before_its_first_update(make: Callable[[], Program]) -> None:
    """It is moved once, to the module's device, and the first update finds it there."""
    program = make()
    [metric] = program.held()
    elsewhere(metric)
    seen: list[torch.device] = []
    plain = metric.update
    metric.update = lambda value: (seen.append(metric.device), plain(value))[1]
    with mock.patch.object(MeanMetric, "to", autospec=True, side_effect=Metric.to) as moved:
        [finding] = validated(program, mode="correct")
    metric.update = plain
    [(arguments, _)] = [call for call in moved.call_args_list if call.args[0] is metric]
    assert arguments[1] == program.device
    assert set(seen) == {torch.device("cpu")}
    assert (finding.severity, finding.corrected) == (Severity.WARNING, True)
    assert "It was on cpu:0, the module is on cpu." in finding.message


def test_correct_leaves_a_metric_alone_whose_inputs_are_elsewhere() -> None:
    """Nobody but the program knows where it wants them: moving the metric would break its update."""
    program = InDict()
    metric = elsewhere(program.plain["mean"])
    away = torch.ones(3, device="meta")
    with mock.patch.object(metric, "to") as moved, mock.patch.object(MeanMetric, "_cast_and_nan_check_input") as cast:
        cast.side_effect = lambda value, weight: (torch.ones(3), torch.ones(3))
        program.validation_step = lambda *_: metric.update(away)
        [finding] = validated(program, mode="correct")
    moved.assert_not_called()
    assert (finding.severity, finding.corrected) == (Severity.WARNING, False)


def test_correct_leaves_registered_metrics_where_the_program_puts_them() -> None:
    seen: list[torch.device] = []

    class Apart(Registered):
        def on_validation_epoch_start(self) -> None:
            elsewhere(self.mean)

        def validation_step(self, batch: Batch, batch_idx: int) -> None:
            self.mean.update(batch["score"])
            seen.append(self.mean.device)

    assert not validated(Apart(), mode="correct")
    assert set(seen) == {ELSEWHERE}


def test_the_number_stays() -> None:
    """A metric that was moved counts what it counted before."""
    shown = []
    for mode in ("warn", "correct"):
        program = Logged()
        elsewhere(program.plain["mean"])
        guard = RetrievalGuard(mode=mode)
        with recorded_warnings():
            shown += make_lone_trainer(guard).validate(program, verbose=False)
    assert shown[0] == shown[1]


# --- several ranks ----------------------------------------------------------------------------------------------


def on_ranks(program: str, mode: str, apart_on: tuple[int, ...]) -> dict[str, Any]:
    """Validate on this rank; what it said, found and sent."""
    messages: list[dict[str, Any]] = []
    guard = guards(mode, {})
    trainer = make_trainer(guard, False)
    module = globals()[program]()
    if trainer.global_rank in apart_on:
        elsewhere(module.held()[0])
    meet = _meet_of(messages)
    with recorded_warnings() as warned, meet:
        trainer.validate(module, verbose=False)
    return {
        "findings": [finding.to_dict() for finding in guard[0].findings],
        "said": [one["text"] for one in warned if GuardWarning.__name__ in one["categories"]],
        "keys": sorted({key for message in messages for key in message}),
        "device": str(module.held()[0].device),
    }


def _meet_of(messages: list[dict[str, Any]]) -> Any:
    plain = Synchronizer.sync

    def sync(self: Any, label: str, message: dict[str, Any], *rest: Any) -> Any:
        messages.append(message)
        return plain(self, label, message, *rest)

    return mock.patch.object(Synchronizer, "sync", sync)


def outcomes(pool: Pool, **arguments: Any) -> list[dict[str, Any]]:
    return pool.values(f"{__name__}:on_ranks", **arguments)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_ranks_find_the_same_where_one_of_them_is_apart(pool: Pool, mode: str) -> None:
    first, second = outcomes(pool, program="Logged", mode=mode, apart_on=(1,))
    assert first["findings"] == second["findings"]
    [finding] = [finding for finding in first["findings"] if finding["code"] == "LRG405"]
    assert (finding["key"], finding["severity"], finding["ranks"]) == ("mean", "warning", [0, 1])
    assert finding["corrected"] is (mode == "correct")
    assert ["LRG405" in text for text in first["said"]] == [True]
    assert second["said"] == []
    assert second["device"] == ("cpu" if mode == "correct" else "cpu:0")


@pytest.mark.timeout(60)
def test_nothing_travels_where_nothing_is_to_tell(pool: Pool) -> None:
    assert all(
        "unregistered" not in rank["keys"] for rank in outcomes(pool, program="Registered", mode="warn", apart_on=())
    )
    assert all("unregistered" in rank["keys"] for rank in outcomes(pool, program="InDict", mode="warn", apart_on=()))
