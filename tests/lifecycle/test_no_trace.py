"""Whatever way a run ends, nothing of the guard is left; while it runs, modules and guards can be copied."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import sys
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torchmetrics import Metric
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import GuardError, GuardWarning, RetrievalGuard
from tests.distributed.evaluate import guards, recorded_warnings
from tests.distributed.evaluate import make_trainer as make_ddp_trainer
from tests.distributed.harness import Pool
from tests.distributed.programs.data import Batch, rows_of

from .programs import Restarting, Right, floats, make_trainer, merged, reference, restarting_ids
from .traces import is_ours, marks_on, traces

CLASS_ATTRIBUTES = ("__init__", "__setstate__", "reset", "__call__")
MODES = pytest.mark.parametrize("mode", ["warn", "correct", "strict"])

pytestmark = pytest.mark.filterwarnings("ignore::lightning_retrieval_guard.GuardWarning")


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """The class and the warnings are the same after every test as before it."""
    before = {name: vars(Metric).get(name) for name in CLASS_ATTRIBUTES}
    filters, shown, formatted = own_filters(), warnings.showwarning, warnings.formatwarning
    yield
    assert {name: vars(Metric).get(name) for name in CLASS_ATTRIBUTES} == before
    assert not any(is_ours(value) for value in before.values())
    assert own_filters() == filters
    assert (warnings.showwarning, warnings.formatwarning) == (shown, formatted)


def own_filters() -> list[Any]:
    """The filters for warnings of the guard; libraries that are imported late add some of their own."""
    return [one for one in warnings.filters if issubclass(GuardWarning, one[2]) and one[2] is not Warning]


# --- how a run can end ------------------------------------------------------------------------------------------


class HoldsMetrics(Callback):
    """A callback with a metric and log calls of its own."""

    def __init__(self) -> None:
        self.metric = RetrievalMRR()

    def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Batch, *_: Any) -> None:
        self.log("batch", float(len(batch["query"])))


class Ends(Restarting):
    """Raises in its second step, or not at all."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.error = error
        self.plain = [RetrievalMRR()]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.seen = marks_on(self), marks_on(Metric), marks_on(self.metric), marks_on(self.plain[0])
        if batch_idx == 1 and self.error is not None:
            raise self.error


def check(trainer: Any, module: Ends) -> None:
    assert all(module.seen), "the guard was not there in the first place"
    assert traces(trainer, module) == []


@pytest.mark.parametrize("mode", ["warn", "correct"])
@pytest.mark.parametrize("method", ["validate", "test", "fit"])
def test_after_success(mode: str, method: str) -> None:
    module = Ends()
    trainer = make_trainer(HoldsMetrics(), RetrievalGuard(mode=mode), max_epochs=1)
    getattr(trainer, method)(module)
    check(trainer, module)


@MODES
def test_after_an_exception_in_a_step(mode: str) -> None:
    error = ZeroDivisionError("on purpose")
    module = Ends(error)
    trainer = make_trainer(HoldsMetrics(), RetrievalGuard(mode=mode))
    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        trainer.validate(module)
    assert caught.value is error
    forget(caught, error)
    check(trainer, module)


@MODES
def test_after_ctrl_c(mode: str) -> None:
    module = Ends(KeyboardInterrupt())
    trainer = make_trainer(HoldsMetrics(), RetrievalGuard(mode=mode))
    with contextlib.suppress(SystemExit, KeyboardInterrupt):  # Lightning before 2.6 ends the run without an error
        trainer.validate(module)
    forget(None, module.error)
    check(trainer, module)


def test_after_ctrl_c_in_fit() -> None:
    module = Ends(KeyboardInterrupt())
    trainer = make_trainer(HoldsMetrics(), RetrievalGuard(mode="correct"), max_epochs=1)
    with contextlib.suppress(SystemExit, KeyboardInterrupt):
        trainer.fit(module)
    forget(None, module.error)
    check(trainer, module)


def test_after_a_guard_error() -> None:
    module = Ends()
    trainer = make_trainer(HoldsMetrics(), RetrievalGuard(mode="strict"))
    with pytest.raises(GuardError, match="LRG301") as caught:
        trainer.validate(module)
    forget(caught, caught.value)
    check(trainer, module)


def test_after_a_warning_that_the_user_made_an_error() -> None:
    module = Ends()
    trainer = make_trainer(HoldsMetrics(), RetrievalGuard())
    with warnings.catch_warnings():
        warnings.simplefilter("error", GuardWarning)
        with pytest.raises(GuardWarning, match="LRG301") as caught:
            trainer.validate(module)
    forget(caught, caught.value)
    check(trainer, module)


def forget(caught: pytest.ExceptionInfo[BaseException] | None, error: BaseException | None) -> None:
    """A traceback keeps the frames of the guard alive, as it does those of Lightning."""
    seen = [None if caught is None else caught.value, error]
    while seen:
        one = seen.pop()
        if one is not None:
            one.__traceback__ = None
            seen += [one.__cause__, one.__context__]
            one.__cause__ = one.__context__ = None
    if caught is not None:
        caught._excinfo = None
    sys.last_value = sys.last_traceback = None  # type: ignore[assignment]


def test_the_module_works_as_before_after_an_exception() -> None:
    module = Ends(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        make_trainer(RetrievalGuard(mode="correct")).validate(module)
    module.error = None
    module.metric.reset()
    [returned] = make_trainer().validate(module, verbose=False)
    assert returned["mrr"] == merged()


def test_a_patch_by_someone_else_stays() -> None:
    """Another tool that patches the module during the run keeps its patch."""

    class Patches(Callback):
        def on_validation_start(self, trainer: Any, module: Any) -> None:
            module.__dict__["log"] = self.log_of_other

        def log_of_other(self, *args: Any, **kwargs: Any) -> None:
            pass

    other, module = Patches(), Restarting()
    make_trainer(RetrievalGuard(mode="correct"), other).validate(module, verbose=False)
    assert vars(module)["log"] == other.log_of_other


# --- several processes ------------------------------------------------------------------------------------------


def groups_and_traces(mode: str, ending: str) -> dict[str, Any]:
    """A run on this rank that succeeds, or fails on every rank; what is left of it."""
    import torch.distributed as dist

    module = Ends(ZeroDivisionError() if ending == "raises" else None)
    trainer = make_ddp_trainer(guards(mode, {}), False)
    plain = guarded = None
    with recorded_warnings():
        make_ddp_trainer([], False).validate(Right(), verbose=False)
        plain = len(dist.distributed_c10d._world.pg_map)
        error = ""
        try:
            trainer.validate(module, verbose=False)
        except Exception as raised:
            error = type(raised).__name__
            raised.__traceback__ = None  # it keeps the frames alive
        guarded = len(dist.distributed_c10d._world.pg_map)
    return {"error": error, "groups": guarded - plain, "seen": all(module.seen), "traces": traces(trainer, module)}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("mode", "ending", "error"),
    [
        ("warn", "ends", ""),
        ("correct", "ends", ""),
        ("strict", "ends", "GuardError"),
        ("warn", "raises", "ZeroDivisionError"),
        ("correct", "raises", "ZeroDivisionError"),
    ],
)
def test_process_groups_are_destroyed(pool: Pool, mode: str, ending: str, error: str) -> None:
    for outcome in pool.run(f"{__name__}:groups_and_traces", mode=mode, ending=ending):
        assert outcome.ok, str(outcome)
        assert outcome.value == {"error": error, "groups": 0, "seen": True, "traces": []}


# --- copies -----------------------------------------------------------------------------------------------------


class Copies(Callback):
    """Copies module and guard in the middle of a run, in each way."""

    def __init__(self, guard: RetrievalGuard) -> None:
        self.guard = guard
        self.modules: list[Any] = []
        self.guards: list[Any] = []

    def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int, *_: Any) -> None:
        if index == 1:
            for make in (copy.deepcopy, copy.copy, lambda thing: pickle.loads(pickle.dumps(thing))):
                self.modules.append(make(module))
                self.guards.append(make(self.guard))


@MODES
def test_copies_during_a_run(mode: str) -> None:
    guard = RetrievalGuard(mode=mode)
    copies, module = Copies(guard), Restarting()
    trainer = make_trainer(copies, guard)
    if mode == "strict":
        with pytest.raises(GuardError):
            trainer.validate(module, verbose=False)
    else:
        [returned] = trainer.validate(module, verbose=False)
        assert returned["mrr"] == (merged() if mode == "warn" else pytest.approx(reference(), abs=1e-6))
    for made in (copies.modules[0], copies.modules[2]):  # of the shallow copy the parts are the module's own
        assert not marks_on(made)
        assert not marks_on(made.metric)
        assert len(made.metric.indexes) == 2
        made.metric.reset()
        made._metric_attributes = None  # Lightning's cache, which copies do not get right without a guard either
        assert validated(made) == merged()
    for made in copies.guards:
        assert made.settings == guard.settings
        assert made._session is None


def validated(module: Any) -> float:
    [returned] = make_trainer().validate(module, verbose=False)
    return returned["mrr"]


def test_the_copy_of_a_metric_is_watched_as_well() -> None:
    """A deep copy made in the run is a metric like any other."""

    class CopiesMetric(Restarting):
        def on_validation_epoch_start(self) -> None:
            self.twin = copy.deepcopy(self.metric)

        def validation_step(self, batch: Batch, batch_idx: int) -> None:
            self.twin.update(*rows_of(batch, restarting_ids(batch)))

        def on_validation_epoch_end(self) -> None:
            self.log("mrr", self.twin.compute())

    module = CopiesMetric()
    trainer = make_trainer(RetrievalGuard(mode="correct"))
    trainer.validate(module, verbose=False)
    assert floats(trainer.callback_metrics) == {"mrr": pytest.approx(reference(), abs=1e-6)}
    assert traces(trainer, module) == []


def test_copies_after_a_run() -> None:
    guard, module = RetrievalGuard(mode="correct"), Restarting()
    make_trainer(guard).validate(module, verbose=False)
    for make in (copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))):
        assert validated(make(module)) == merged()
        again = make(guard)
        assert [finding.to_dict() for finding in again.findings] == [finding.to_dict() for finding in guard.findings]
        [returned] = make_trainer(again).validate(Restarting(), verbose=False)
        assert returned["mrr"] == pytest.approx(reference(), abs=1e-6)


# --- memory and random numbers ----------------------------------------------------------------------------------


class Ephemeral(Restarting):
    """Makes a metric in each step, and looks how many of the earlier ones still live."""

    def __init__(self, log: bool) -> None:
        super().__init__()
        self.logs = log
        self.made: list[weakref.ref[Metric]] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        gc.collect()
        self.alive = sum(made() is not None for made in self.made)
        metric = RetrievalMRR()
        metric.update(*rows_of(batch))
        value = metric.compute()
        if self.logs:
            self.log("mrr", value)
        self.made.append(weakref.ref(metric))


@MODES
def test_metrics_of_a_step_are_freed(mode: str) -> None:
    module = Ephemeral(log=False)
    make_trainer(RetrievalGuard(mode=mode)).validate(module, verbose=False)
    assert len(module.made) == 5
    assert module.alive == 0


@MODES
def test_metrics_behind_a_key_are_freed_after_the_epoch(mode: str) -> None:
    """Their rows are needed until the ranks have met."""
    module = Ephemeral(log=True)
    make_trainer(RetrievalGuard(mode=mode)).validate(module, verbose=False)
    gc.collect()
    assert [made() for made in module.made] == [None] * 5


@MODES
def test_the_random_state_is_untouched(mode: str) -> None:
    def drawn(*callbacks: Callback) -> torch.Tensor:
        torch.manual_seed(3)
        make_trainer(*callbacks, max_epochs=1).fit(Right())
        return torch.rand(4)

    assert torch.equal(drawn(RetrievalGuard(mode=mode)), drawn())
