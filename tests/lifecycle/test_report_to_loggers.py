"""`report_to_loggers=True`: each logger that can keep files has the report after the run, however that ended."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lightning_retrieval_guard import GuardError, GuardWarning, RetrievalGuard

from .programs import Restarting, board, make_trainer

VERDICT = "1 fault, 1 of 1 key wrong"


def attached(logger: Any, mode: Any = "warn", **options: Any) -> list[str]:
    """Validate with a logger; the guard's warnings other than that of the fault."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GuardWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        guard = RetrievalGuard(mode, report_to_loggers=True)
        make_trainer(guard, logger=logger, **options).validate(Restarting(), verbose=False)
    said = [str(one.message) for one in caught if issubclass(one.category, GuardWarning)]
    return [" ".join(text.split()) for text in said if not text.startswith("LRG301")]


def board_texts(folder: str) -> list[str]:
    events = board(folder).Tensors("guard/report/text_summary")
    return [event.tensor_proto.string_val[0].decode() for event in events]


def test_tensorboard_has_it_as_text(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    assert attached(logger) == []
    [text] = board_texts(logger.log_dir)
    lines = text.splitlines()
    assert lines[0] == f"    {VERDICT}"
    assert any("programs.py:" in line and "LRG301 restarting-query-ids" in line for line in lines)
    assert "    lightning-retrieval-guard explain LRG301" in [line.replace("      ", "    ") for line in lines]
    assert all(line.startswith("    ") for line in lines)


def test_a_strict_run_that_is_stopped_leaves_it_once(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    with pytest.raises(GuardError, match="LRG301"):
        attached(logger, "strict")
    assert len(board_texts(logger.log_dir)) == 1


def test_weights_and_biases_has_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    try:
        assert attached(WandbLogger(save_dir=tmp_path, offline=True)) == []
    finally:
        wandb.finish()
    [page] = tmp_path.glob("wandb/offline-run-*/files/media/html/guard/report*.html")
    assert f"<h1>{VERDICT}</h1>" in page.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:DeprecationWarning")
def test_mlflow_has_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer releases ask for a database otherwise
    assert attached(MLFlowLogger(save_dir=str(tmp_path))) == []
    [page] = tmp_path.glob("*/*/artifacts/guard/report.html")
    assert f"<h1>{VERDICT}</h1>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (CSVLogger, "CSVLogger keeps no files; TensorBoardLogger, WandbLogger, MLFlowLogger do."),
        (lambda _: False, "the trainer has none."),
    ],
    ids=["CSVLogger", "none"],
)
def test_where_nothing_can_keep_it_that_is_said(tmp_path: Path, make: Any, why: str) -> None:
    [said] = attached(make(tmp_path))
    assert said == f"RetrievalGuard: a logger has not got the report: {why} The run goes on."


def test_a_logger_that_fails_costs_the_report_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left")

    logger = TensorBoardLogger(tmp_path)
    monkeypatch.setattr(logger.experiment, "add_text", full)
    [said] = attached(logger)
    why = "TensorBoardLogger did not take it (OSError: no space left)."
    assert said == f"RetrievalGuard: a logger has not got the report: {why} The run goes on."


def test_a_fast_run_has_no_loggers_and_says_nothing() -> None:
    assert attached(False, fast_dev_run=2) == []
