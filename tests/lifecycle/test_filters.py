"""The standard filters of `warnings` hold for `GuardWarning`, in this process and on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from lightning_retrieval_guard import GuardWarning, RetrievalGuard

from .programs import Restarting, make_trainer

SCRIPT = """
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import RetrievalGuard


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.metric = RetrievalMRR()

    def validation_step(self, batch, batch_idx):
        scores, target = batch
        self.metric.update(scores, target, indexes=torch.arange(len(scores))[:, None].expand_as(scores))
        self.log("mrr", self.metric)  # LINE


scores = torch.rand(8, 5, generator=torch.Generator().manual_seed(0))
target = torch.eye(8, 5, dtype=torch.long).roll(1, 0)
target[:, 0] = 1
loader = DataLoader(TensorDataset(scores, target), batch_size=4)
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
Trainer(accelerator="cpu", callbacks=[RetrievalGuard()], **quiet).validate(Module(), loader, verbose=False)
print("done")
"""
LINE = next(number for number, line in enumerate(SCRIPT.splitlines(), start=1) if "# LINE" in line)


def warned(**filters: Any) -> list[str]:
    """The codes of the warnings that come through a filter."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.filterwarnings(**filters)
        make_trainer(RetrievalGuard()).validate(Restarting(), verbose=False)
    return [str(one.message).split()[0] for one in seen if one.category is GuardWarning]


@pytest.mark.parametrize(
    ("filters", "codes"),
    [
        ({"action": "ignore", "category": GuardWarning}, []),
        ({"action": "ignore", "category": UserWarning}, []),
        ({"action": "ignore", "message": "LRG301"}, []),
        ({"action": "ignore", "message": "LRG203"}, ["LRG301"]),
        ({"action": "ignore", "category": GuardWarning, "module": r"tests\.lifecycle\.programs\Z"}, []),
        ({"action": "ignore", "category": GuardWarning, "module": r"programs"}, ["LRG301"]),
        ({"action": "once", "category": GuardWarning}, ["LRG301"]),
        ({"action": "module", "category": GuardWarning}, ["LRG301"]),
    ],
    ids=str,
)
def test_a_filter(filters: dict[str, Any], codes: list[str]) -> None:
    assert warned(**filters) == codes


@pytest.mark.parametrize("chosen", [{}, {"module": r"tests\.lifecycle\.programs"}, {"message": "LRG301"}], ids=str)
def test_turned_into_an_error_it_ends_the_run(chosen: dict[str, str]) -> None:
    trainer = make_trainer(RetrievalGuard())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=GuardWarning, **chosen)
        with pytest.raises(GuardWarning, match="LRG301"):
            trainer.validate(Restarting(), verbose=False)


def run_script(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("PYTHONWARNINGS", None)
    command = [sys.executable, *arguments, str(script)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


CATEGORY = "lightning_retrieval_guard.GuardWarning"


@pytest.mark.parametrize(
    "option", [f"error:LRG301:{CATEGORY}:__main__:{LINE}", pytest.param("error:LRG", marks=pytest.mark.nightly)]
)
def test_an_error_by_the_command_line_ends_a_script(tmp_path: Path, option: str) -> None:
    ended = run_script(tmp_path, "-W", option)
    assert ended.returncode == 1, ended.stderr
    assert "GuardWarning: LRG301 restarting-query-ids" in ended.stderr
    assert "done" not in ended.stdout


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ([f"error::{CATEGORY}"], None),
        ([f"e::{CATEGORY}:tests.lifecycle.programs"], None),
        ([f"error:LRG301:{CATEGORY}"], None),
        ([f"ignore::{CATEGORY}"], []),
        ([f"ignore::{CATEGORY}:tests.lifecycle"], ["LRG301"]),
        ([f"error:LRG203:{CATEGORY}"], ["LRG301"]),
        ([f"error::{CATEGORY}::1"], ["LRG301"]),
        (["error::other.Warning", f"loud::{CATEGORY}", f"error::{CATEGORY}::x", "error", ""], ["LRG301"]),
    ],
    ids=str,
)
def test_an_option_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, options: list[str], codes: list[str] | None
) -> None:
    """Python itself drops these options, because it reads them before it can import the package."""
    monkeypatch.setattr(sys, "warnoptions", options)
    trainer = make_trainer(RetrievalGuard())
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        with pytest.raises(GuardWarning, match="LRG301") if codes is None else nullcontext():
            trainer.validate(Restarting(), verbose=False)
    assert [str(one.message).split()[0] for one in seen if one.category is GuardWarning] == (codes or [])


def test_filters_of_the_program_come_before_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", [f"error::{CATEGORY}"])
    assert warned(action="ignore", category=GuardWarning) == []
