"""Every kind of run shows the corrected number in every place, and leaves the others as they were."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import GuardWarning, RetrievalGuard
from tests.distributed.evaluate import Recorder
from tests.distributed.programs.data import Batch, rows_of

from .programs import QUERIES, Restarting, Right, board, floats, loader, make_trainer, merged, reference, restarting_ids

SAID = pytest.warns(GuardWarning, match="LRG301")


def correct() -> RetrievalGuard:
    return RetrievalGuard(mode="correct")


@pytest.mark.parametrize("method", ["validate", "test"])
def test_the_returned_value_and_callback_metrics(method: str) -> None:
    plain = make_trainer()
    assert getattr(plain, method)(Restarting(), verbose=False) == [{"mrr": merged()}]
    trainer = make_trainer(correct())
    with SAID:
        [returned] = getattr(trainer, method)(Restarting(), verbose=False)
    assert returned == floats(trainer.callback_metrics) == {"mrr": pytest.approx(reference(), abs=1e-6)}


@pytest.mark.parametrize("inference_mode", [True, False])
def test_inference_mode(inference_mode: bool) -> None:
    trainer = make_trainer(correct(), inference_mode=inference_mode)
    with SAID:
        trainer.validate(Restarting(), verbose=False)
    assert floats(trainer.callback_metrics) == {"mrr": pytest.approx(reference(), abs=1e-6)}


class Epochs(Callback):
    def __init__(self) -> None:
        self.shown: list[tuple[bool, float]] = []

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self.shown.append((trainer.sanity_checking, float(trainer.callback_metrics["mrr"])))


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"check_val_every_n_epoch": 2}], ids=str)
def test_fit_with_sanity_check_and_epochs(options: dict[str, Any]) -> None:
    epochs = Epochs()
    trainer = make_trainer(epochs, correct(), max_epochs=2, num_sanity_val_steps=2, **options)
    with SAID:
        trainer.fit(Restarting())
    [(sanity, two_batches), *validations] = epochs.shown
    assert sanity
    assert two_batches == pytest.approx(reference(first=2), abs=1e-6)
    expected = (False, pytest.approx(reference(), abs=1e-6))
    assert validations == [expected] * (2 // options.get("check_val_every_n_epoch", 1))
    assert trainer.global_step == (6 if "accumulate_grad_batches" in options else 10)


class StepAndEpoch(Restarting):
    """`on_step=True`: the value of the batch is right, that of the epoch is not."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric(*rows_of(batch, restarting_ids(batch)))
        self.log("mrr", self.metric, on_step=True, on_epoch=True)


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_step_values_stay_and_the_epoch_value_is_corrected(mode: str) -> None:
    plain, guarded = Recorder(), Recorder()
    make_trainer(logger=plain).validate(StepAndEpoch(), verbose=False)
    with SAID:
        make_trainer(RetrievalGuard(mode=mode), logger=guarded).validate(StepAndEpoch(), verbose=False)
    assert steps(guarded) == steps(plain)
    assert len(steps(plain)) == 5
    assert epoch(plain) == merged()
    assert epoch(guarded) == (merged() if mode == "warn" else pytest.approx(reference(), abs=1e-6))


def steps(recorder: Recorder) -> list[float]:
    return [metrics["mrr_step"] for metrics, _ in recorder.received if "mrr_step" in metrics]


def epoch(recorder: Recorder) -> float:
    [number] = [metrics["mrr_epoch"] for metrics, _ in recorder.received if "mrr_epoch" in metrics]
    return number


class TwoLoaders(Restarting):
    def __init__(self) -> None:
        super().__init__()
        self.metrics = torch.nn.ModuleList([RetrievalMRR(), RetrievalMRR()])

    def val_dataloader(self) -> Any:
        return [loader(), loader(size=9, count=24)]

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        metric = self.metrics[dataloader_idx]
        metric.update(*rows_of(batch, restarting_ids(batch)))
        self.log("mrr", metric)


def test_several_dataloaders() -> None:
    trainer = make_trainer(correct())
    with SAID:
        returned = trainer.validate(TwoLoaders(), verbose=False)
    expected = {"mrr/dataloader_idx_0": reference(), "mrr/dataloader_idx_1": reference(9, 24)}
    assert returned == [{key: pytest.approx(number, abs=1e-6)} for key, number in expected.items()]
    assert expected["mrr/dataloader_idx_0"] != expected["mrr/dataloader_idx_1"]


class Bar(TQDMProgressBar):
    """Keeps what it would show."""

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.shown = self.get_metrics(trainer, pl_module)
        super().on_validation_end(trainer, pl_module)


def test_the_progress_bar() -> None:
    bar = Bar()
    trainer = make_trainer(correct(), bar, enable_progress_bar=True)
    with SAID:
        trainer.validate(Restarting(), verbose=False)
    assert bar.shown == {"mrr": pytest.approx(reference(), abs=1e-6)}
    assert floats(trainer.progress_bar_metrics) == bar.shown


def test_the_files_of_loggers(tmp_path: Path) -> None:
    tables = CSVLogger(tmp_path, name="csv")
    boards = TensorBoardLogger(tmp_path, name="board")
    with SAID:
        make_trainer(correct(), logger=[tables, boards]).validate(Restarting(), verbose=False)
    rows = csv.DictReader((Path(tables.log_dir) / "metrics.csv").read_text().splitlines())
    [row] = [row for row in rows if row["mrr"]]
    assert float(row["mrr"]) == pytest.approx(reference(), abs=1e-6)
    [event] = board(boards.log_dir).Scalars("mrr")
    assert event.value == pytest.approx(reference(), abs=1e-6)


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
def test_a_right_program_is_left_alone(mode: str) -> None:
    guard = RetrievalGuard(mode=mode)
    [plain] = make_trainer().validate(Right(), verbose=False)
    assert make_trainer(guard).validate(Right(), verbose=False) == [plain]
    assert plain == {"mrr": reference()}
    assert not guard.findings


def test_the_numbers_differ() -> None:
    """Else nothing here would show anything."""
    assert abs(merged() - reference()) > 5e-4
    assert QUERIES % 12
