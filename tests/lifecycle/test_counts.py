"""The run's loggers get the number of findings of each code, once a stage and epoch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torchmetrics.retrieval import RetrievalMRR
from typing_extensions import override

from lightning_retrieval_guard import GuardWarning, RetrievalGuard
from tests.distributed.evaluate import Recorder
from tests.distributed.harness import Pool
from tests.distributed.programs.data import Batch, rows_of

from .programs import Restarting, Right, board, in_words, make_trainer, merged, restarting_ids

SAID = pytest.warns(GuardWarning, match="LRG301")
TWO = {"guard/LRG301": 2.0, "guard/errors": 2.0, "guard/warnings": 0.0}
NONE = {"guard/errors": 0.0, "guard/warnings": 0.0}
Call = tuple[dict[str, float], int | None]


class TwoKeys(Restarting):
    def __init__(self) -> None:
        super().__init__()
        self.other = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in (("mrr", self.metric), ("other", self.other)):
            metric.update(*rows_of(batch, restarting_ids(batch)))
            self.log(name, metric)


def counts(recorder: Recorder) -> list[Call]:
    return [(metrics, step) for metrics, step in recorder.received if any("guard/" in key for key in metrics)]


def programs_own(recorder: Recorder) -> list[Call]:
    return [call for call in recorder.received if call not in counts(recorder)]


def test_the_files_of_loggers(tmp_path: Path) -> None:
    tables, boards = CSVLogger(tmp_path, name="csv"), TensorBoardLogger(tmp_path, name="board")
    trainer = make_trainer(RetrievalGuard(), logger=[tables, boards], max_epochs=2, num_sanity_val_steps=1)
    with SAID:
        trainer.fit(TwoKeys())
    with (Path(tables.log_dir) / "metrics.csv").open() as file:
        rows = [(int(row["step"]), row["guard/LRG301"]) for row in csv.DictReader(file) if row["guard/LRG301"]]
    assert [(step, float(count)) for step, count in rows] == [(5, 2.0), (10, 2.0)]
    events = board(boards.log_dir).Scalars("guard/LRG301")
    assert [(event.step, event.value) for event in events] == [(5, 2.0), (10, 2.0)]
    assert [key for key in trainer.callback_metrics if "guard" in key] == []
    assert [key for key in trainer.logged_metrics if "guard" in key] == []


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_every_logger_gets_one_call_an_epoch(mode: Any) -> None:
    loggers = [Recorder(), Recorder()]
    trainer = make_trainer(RetrievalGuard(mode=mode), logger=loggers, max_epochs=2)
    with SAID:
        trainer.fit(TwoKeys())
        trainer.validate(TwoKeys(), verbose=False)
    for logger in loggers:
        assert counts(logger) == [(TWO, step) for step in (5, 10, 10)]


class Trained(Right):
    """Wrong in the training only."""

    def __init__(self) -> None:
        super().__init__()
        self.trained = RetrievalMRR()

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        self.trained.update(*rows_of(batch, restarting_ids(batch)))
        self.log("train/mrr", self.trained, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)


def test_the_training_epoch_has_counts_of_its_own() -> None:
    recorder = Recorder()
    with SAID:
        make_trainer(RetrievalGuard(), logger=recorder, max_epochs=1).fit(Trained())
    assert counts(recorder) == [(NONE, 5), ({"guard/LRG301": 1.0, "guard/errors": 1.0, "guard/warnings": 0.0}, 5)]


def test_stages_that_end_at_one_step_are_counted_together() -> None:
    class Both(Trained):
        def validation_step(self, batch: Batch, batch_idx: int) -> None:
            self.metric.update(*rows_of(batch, restarting_ids(batch)))
            self.log("mrr", self.metric)

    recorder = Recorder()
    with SAID:
        make_trainer(RetrievalGuard(), logger=recorder, max_epochs=1).fit(Both())
    assert [(call["guard/errors"], step) for call, step in counts(recorder)] == [(1.0, 5), (2.0, 5)]


def test_an_epoch_without_findings_logs_zeros() -> None:
    recorder = Recorder()
    make_trainer(RetrievalGuard(), logger=recorder, max_epochs=2).fit(Right())
    assert counts(recorder) == [(NONE, 5), (NONE, 10)]


def test_the_sanity_check_logs_nothing() -> None:
    class NoValidation(Restarting):
        def on_train_start(self) -> None:
            self.trainer.limit_val_batches = 0

    recorder, guard = Recorder(), RetrievalGuard()
    with SAID:
        make_trainer(guard, logger=recorder, max_epochs=1, num_sanity_val_steps=2).fit(NoValidation())
    assert [(finding.code, finding.stage) for finding in guard.findings] == [("LRG301", "sanity_check")]
    assert counts(recorder) == []


def test_it_can_be_switched_off() -> None:
    plain, switched_off, recorder = Recorder(), Recorder(), Recorder()
    make_trainer(logger=plain).validate(TwoKeys(), verbose=False)
    with SAID:
        make_trainer(RetrievalGuard(log_findings=False), logger=switched_off).validate(TwoKeys(), verbose=False)
        make_trainer(RetrievalGuard(), logger=recorder).validate(TwoKeys(), verbose=False)
    assert switched_off.received == plain.received
    assert programs_own(recorder) == plain.received
    assert len(counts(recorder)) == 1


@pytest.mark.parametrize("logger", [False, []], ids=str)
def test_runs_without_a_logger(logger: Any) -> None:
    guard = RetrievalGuard()
    with SAID:
        make_trainer(guard, logger=logger).validate(TwoKeys(), verbose=False)
    assert {finding.code for finding in guard.findings} == {"LRG301"}


def test_a_fast_run_logs_nothing() -> None:
    recorder, guard = Recorder(), RetrievalGuard()
    with SAID:
        make_trainer(guard, logger=recorder, fast_dev_run=2).fit(TwoKeys())
    assert {finding.code for finding in guard.findings} == {"LRG301"}
    assert recorder.received == []


class Full(Recorder):
    """Its disk is full where the guard logs."""

    @override
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if any("guard/" in key for key in metrics):
            raise OSError("no space left")
        super().log_metrics(metrics, step)


def test_a_logger_that_fails_costs_the_guard_not_the_run() -> None:
    recorder, guard = Full(), RetrievalGuard()
    with pytest.warns(GuardWarning, match=in_words("OSError: no space left")), SAID:
        [returned] = make_trainer(guard, logger=recorder).validate(TwoKeys(), verbose=False)
    assert returned == {"mrr": merged(), "other": merged()}
    assert recorder.received


def count_on_two(switched_on: bool) -> dict[str, Any]:
    """Two epochs on this rank; every rank has a logger that would take what it gets."""
    from tests.distributed.evaluate import make_trainer as make_ddp_trainer
    from tests.distributed.evaluate import recorded_warnings

    recorder, guard = Recorder(), RetrievalGuard(log_findings=switched_on)
    trainer = make_ddp_trainer([guard], recorder, max_epochs=2)
    with recorded_warnings():
        trainer.fit(TwoKeys())
    return {"counts": counts(recorder), "codes": sorted({finding.code for finding in guard.findings})}


@pytest.mark.timeout(90)
def test_rank_zero_alone_logs(pool: Pool) -> None:
    first, second = pool.values(f"{__name__}:count_on_two", switched_on=True)
    assert first["codes"] == second["codes"] == ["LRG301"]
    assert first["counts"] == [(TWO, 3), (TWO, 6)]
    assert second["counts"] == []
