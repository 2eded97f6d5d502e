"""One program over several runs: saved and resumed, fitted again, averaged, copied, and patched by others."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from torchmetrics import Metric
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import RetrievalGuard
from tests.distributed.programs.data import Batch, rows_of

from .programs import Restarting, floats, make_trainer, merged, reference, restarting_ids
from .traces import traces

MODES = pytest.mark.parametrize("mode", ["warn", "correct"])


@pytest.fixture(autouse=True)
def quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Stopped(Exception):
    """The run is cut off."""


class Trains(Restarting):
    """Logs a metric of the training too; both metrics merge queries of different batches."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.trained = RetrievalMRR()
        self.stop_at = stop_at
        self.fed: list[Batch] = []

    def on_train_epoch_start(self) -> None:
        self.fed.clear()

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        if self.global_step == self.stop_at:
            raise Stopped
        self.fed.append(batch)
        self.trained.update(*rows_of(batch, restarting_ids(batch)))
        self.log("train/mrr", self.trained, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}

    def numbers(self, mode: str | None, sizes_known: bool = True) -> dict[str, Any]:
        """What must be shown for the batches that the last epoch was fed with.

        Where an epoch was resumed, the size of its last batch is not certain, so that nothing shows that ids restart.
        """
        metric = RetrievalMRR()
        for number, batch in enumerate(self.fed):
            ids = restarting_ids(batch) + (100 * number if mode == "correct" and sizes_known else 0)
            metric.update(*rows_of(batch, ids))
        right = reference() if mode == "correct" else merged()
        return {"mrr": pytest.approx(right, abs=1e-6), "train/mrr": pytest.approx(float(metric.compute()), abs=1e-6)}


def guards(mode: str | None) -> list[RetrievalGuard]:
    return [] if mode is None else [RetrievalGuard(mode=mode)]  # type: ignore[arg-type]


# --- saved and resumed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [2, 5, 7], ids=["in the first epoch", "between epochs", "in the second epoch"])
@pytest.mark.parametrize("mode", [None, "warn", "correct"])
def test_saved_and_resumed(tmp_path: Path, mode: str | None, step: int) -> None:
    """Five batches are an epoch. Another process would have another guard, module and trainer."""
    saves = ModelCheckpoint(tmp_path, every_n_train_steps=step, save_top_k=-1, filename="{step}")
    cut, on = {"max_epochs": 2, "enable_checkpointing": True}, {"max_epochs": 2}
    with pytest.raises(Stopped):
        make_trainer(saves, *guards(mode), **cut).fit(Trains(stop_at=step + 1))
    [saved] = tmp_path.glob(f"step={step}.ckpt")
    guard, module = guards(mode), Trains()
    trainer = make_trainer(*guard, **on)
    trainer.fit(module, ckpt_path=saved)
    assert trainer.global_step > step
    assert floats(trainer.callback_metrics) == module.numbers(mode, sizes_known=step <= 5)
    assert {(finding.code, finding.corrected) for one in guard for finding in one.findings} == (
        {("LRG301", mode == "correct")} if guard else set()
    )
    assert traces(trainer, module) == []


def test_the_checkpoint_holds_nothing_of_the_guard(tmp_path: Path) -> None:
    trainer = make_trainer(RetrievalGuard("correct"), max_epochs=1)
    trainer.fit(Trains())
    trainer.save_checkpoint(tmp_path / "with.ckpt")
    plain = make_trainer(max_epochs=1)
    plain.fit(Trains())
    plain.save_checkpoint(tmp_path / "without.ckpt")
    with_guard, without_guard = (
        torch.load(tmp_path / name, weights_only=False) for name in ("with.ckpt", "without.ckpt")
    )
    assert with_guard["callbacks"] == without_guard["callbacks"]
    assert with_guard["state_dict"].keys() == without_guard["state_dict"].keys()


# --- several runs -----------------------------------------------------------------------------------------------------


@MODES
def test_one_trainer_fits_validates_fits_on_and_tests(mode: str) -> None:
    [guard], module = guards(mode), Trains()
    trainer = make_trainer(guard, max_epochs=1)
    trainer.fit(module)
    shown = module.numbers(mode)["mrr"]
    assert floats(trainer.callback_metrics) == module.numbers(mode)
    assert trainer.validate(module, verbose=False) == [{"mrr": shown}]
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module)
    assert trainer.current_epoch == 3
    assert floats(trainer.callback_metrics) == module.numbers(mode)
    assert trainer.test(module, verbose=False) == [{"mrr": shown}]
    assert traces(trainer, module) == []


class ValidatesInside(Callback):
    """Another trainer validates the module while it is fitted, as a user's callback would on a second data set."""

    def __init__(self, *inner: RetrievalGuard) -> None:
        self.inner = inner
        self.shown: list[float] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        other = copy.deepcopy(pl_module)
        other._metric_attributes = None  # Lightning's cache, which copies do not get right without a guard either
        [returned] = make_trainer(*self.inner).validate(other, verbose=False)
        self.shown.append(returned["mrr"])


@MODES
@pytest.mark.parametrize("inner", [None, "warn", "correct"])
def test_a_validation_inside_of_a_fit(mode: str, inner: str | None) -> None:
    module, validates = Trains(), ValidatesInside(*guards(inner))
    trainer = make_trainer(validates, *guards(mode), max_epochs=2)
    trainer.fit(module)
    assert floats(trainer.callback_metrics) == module.numbers(mode)
    assert validates.shown == [module.numbers(inner)["mrr"]] * 2
    assert traces(trainer, module) == []


@MODES
def test_stochastic_weight_averaging_copies_the_module(mode: str) -> None:
    averages, module = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1), Trains()
    trainer = make_trainer(averages, *guards(mode), max_epochs=3)
    trainer.fit(module)
    assert averages._average_model is not None
    assert floats(trainer.callback_metrics) == module.numbers(mode)
    assert traces(trainer, module) == []
    assert traces(trainer, averages._average_model) == []


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}


class CopiesTrainer(Callback):
    """Copies the trainer while it runs; a generator, which the loop has then, cannot be pickled."""

    def on_fit_start(self, trainer: Any, pl_module: LightningModule) -> None:
        self.made = copy.deepcopy(trainer)


@MODES
@pytest.mark.parametrize("way", COPIES)
def test_the_copy_of_a_trainer_has_a_guard_of_its_own(mode: str, way: str) -> None:
    module = Trains()
    trainer = make_trainer(*guards(mode), max_epochs=1)
    before = COPIES[way](trainer)
    trainer.fit(module)
    for one in (before, COPIES[way](trainer)):
        assert one.callbacks[0] is not trainer.callbacks[0]
        another = Trains()
        assert one.validate(another, verbose=False) == [{"mrr": module.numbers(mode)["mrr"]}]
        assert traces(one, another) == []


def test_a_trainer_that_is_copied_in_its_run() -> None:
    module, copies = Trains(), CopiesTrainer()
    trainer = make_trainer(copies, *guards("correct"), max_epochs=1)
    trainer.fit(module)
    assert floats(trainer.callback_metrics) == module.numbers("correct")
    assert traces(trainer, module) == []
    assert traces(copies.made, module) == []


# --- patches of others ------------------------------------------------------------------------------------------------


class LaysPatches(Callback):
    """Patches what the guard patches, with the tool that tests use for it, in the middle of the guard's time."""

    def __init__(self) -> None:
        self.calls: set[str] = set()
        self.patches: list[Any] = []

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        places = [
            (LightningModule, "log"),
            (Metric, "reset"),
            (pl_module.metric, "update"),
            (pl_module.metric, "compute"),
            (pl_module, "on_validation_epoch_end"),
        ]
        for owner, name in places:
            patch = mock.patch.object(owner, name, self.wrapped(name, getattr(owner, name)))
            patch.start()
            self.patches.append(patch)

    def wrapped(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.add(name)
            return original(*args, **kwargs)

        return call

    def take_off(self) -> None:
        for patch in self.patches:
            patch.stop()


class TakesOff(Callback):
    def __init__(self, lays: LaysPatches) -> None:
        self.lays = lays

    def on_validation_end(self, *_: Any) -> None:
        self.lays.take_off()


@MODES
@pytest.mark.parametrize("when", ["in the run", "after the run"])
def test_patches_of_others_over_those_of_the_guard(mode: str, when: str) -> None:
    lays, module = LaysPatches(), Restarting()
    before = [dict(vars(owner)) for owner in (LightningModule, Metric)]
    trainer = make_trainer(*guards(mode), lays, *([TakesOff(lays)] if when == "in the run" else []))
    [returned] = trainer.validate(module, verbose=False)
    assert returned["mrr"] == (pytest.approx(reference(), abs=1e-6) if mode == "correct" else merged())
    assert lays.calls >= {"log", "update", "on_validation_epoch_end"}
    if when == "after the run":
        lays.take_off()
        [returned] = make_trainer().validate(module, verbose=False)  # what came back goes at its first call
        assert returned["mrr"] == merged()
        trainer = None
    assert traces(trainer or make_trainer(), module) == []
    assert [dict(vars(owner)) for owner in (LightningModule, Metric)] == before
