"""What is given wrongly gets a clear error, in time; what the user's code raises passes through untouched."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import GuardError, RetrievalGuard
from lightning_retrieval_guard.settings import TIMEOUT_VARIABLE

from .programs import Restarting, Right, make_trainer, merged
from .traces import marks_on, owners_of

MODES = pytest.mark.parametrize("mode", ["warn", "correct", "strict"])


class Batches(Callback):
    """Counts the batches that were begun; stands in front of the guard."""

    def __init__(self) -> None:
        self.begun = 0

    def on_validation_batch_start(self, *_: Any) -> None:
        self.begun += 1


def refused(guard: RetrievalGuard, error: type[Exception], match: str) -> int:
    """The number of batches that were begun before the guard refused; nothing of it is left."""
    batches, module = Batches(), Restarting()
    trainer = make_trainer(batches, guard)
    with pytest.raises(error, match=match):
        trainer.validate(module, verbose=False)
    assert [mark for owner in owners_of(trainer, module) if owner is not guard for mark in marks_on(owner)] == []
    [returned] = make_trainer().validate(Restarting(), verbose=False)
    assert returned == {"mrr": merged()}
    return batches.begun


# --- the report's path, found at set-up -------------------------------------------------------------------------


def test_a_report_that_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "report.json"
    folder.mkdir()
    assert refused(RetrievalGuard(report=folder), ValueError, "is a folder") == 0


# --- batch_size_fn ----------------------------------------------------------------------------------------------


def raises(batch: Any) -> int:
    return batch["no such key"]


@MODES
@pytest.mark.parametrize(
    ("function", "match"),
    [
        (raises, r"batch_size_fn 'raises' raised KeyError: 'no such key'.*must return the number of samples"),
        (lambda batch: len(batch["query"]) / 1, r"batch_size_fn '.*<lambda>' returned 7.0 \(float\).*as an int"),
    ],
    ids=["raises", "float"],
)
def test_a_bad_batch_size_fn(mode: Any, function: Callable[[Any], Any], match: str) -> None:
    """It is the user's error, not the guard's: the run ends, in every mode, in its first batch."""
    assert refused(RetrievalGuard(mode=mode, batch_size_fn=function), GuardError, match) == 1


# --- the time-out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["soon", "0", "-3", "", "nan", "inf"])
def test_a_bad_time_out(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, value)
    assert refused(RetrievalGuard(), GuardError, f"{TIMEOUT_VARIABLE}='{value}' must be a number of seconds") == 0


@pytest.mark.parametrize("value", ["3", "0.5", " 300 "])
def test_a_good_time_out(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, value)
    make_trainer(RetrievalGuard()).validate(Right(), verbose=False)


# --- errors of the user's code ----------------------------------------------------------------------------------


class BadUpdate(Right):
    """Calls something of its metric with arguments it refuses."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self.call = call

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        if batch_idx == 1:
            getattr(self.metric, self.call)(torch.rand(3), torch.zeros(3).long(), indexes=None)  # the user's line


class Unlucky(RetrievalMRR):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def compute(self) -> Any:
        raise self.error


class BadCompute(Right):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.metric = Unlucky(error)

    def on_validation_epoch_end(self) -> None:
        self.metric.compute()  # the user's line

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.metric.update(batch["score"], batch["target"], indexes=batch["query"][:, None].expand_as(batch["score"]))


def raised_by(module: Any, *callbacks: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011  the same error as without a guard, whichever it is
        make_trainer(*callbacks).validate(module, verbose=False)
    return caught.value


def users_lines(error: BaseException) -> list[str]:
    lines = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__)]
    return [line for line in lines if "# the user's line" in line]


@MODES
@pytest.mark.parametrize("call", ["update", "forward", "__call__"])
def test_an_update_that_raises(mode: Any, call: str) -> None:
    guard = RetrievalGuard(mode=mode)
    plain, guarded = raised_by(BadUpdate(call)), raised_by(BadUpdate(call), guard)
    assert type(guarded) is type(plain) is ValueError
    assert str(guarded) == str(plain) == "Argument `indexes` cannot be None"
    assert (guarded.__cause__, guarded.__context__) == (plain.__cause__, plain.__context__)
    assert len(users_lines(guarded)) == 1
    assert not guard.findings


@MODES
def test_a_compute_that_raises(mode: Any) -> None:
    error = ZeroDivisionError("on purpose")
    guarded = raised_by(BadCompute(error), RetrievalGuard(mode=mode))
    assert guarded is error
    assert len(users_lines(guarded)) == 1


@MODES
def test_an_update_that_raises_and_is_caught(mode: Any) -> None:
    """The program goes on, and so does the guard."""

    class Catches(BadUpdate):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            try:
                super().validation_step(batch, batch_idx)
            except ValueError:
                self.caught = True

    module, plain = Catches("__call__"), Catches("__call__")
    guard = RetrievalGuard(mode=mode)
    shown = make_trainer(guard).validate(module, verbose=False)
    assert shown == make_trainer().validate(plain, verbose=False)
    assert module.caught
    assert not guard.findings
