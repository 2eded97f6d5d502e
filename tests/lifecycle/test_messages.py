"""Every part of what a run says: location, code, name, verdict, numbers and fix, wherever it is said."""

from __future__ import annotations

import linecache
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import GuardError, GuardWarning, RetrievalGuard
from lightning_retrieval_guard.findings import show_number
from lightning_retrieval_guard.watch.stage import StageRecord
from tests.distributed.programs.data import Batch

from .programs import BATCH, QUERIES, RestartingIds, make_trainer, merged, reference

FIX = "Pass ids that are unique over the epoch, such as the index in the dataset."
LINES = {
    text: number
    for number, text in enumerate(Path(__file__).read_text(encoding="utf-8").splitlines(), start=1)
    if text.startswith("        self.log(")
}


class TwoKeys(RestartingIds, LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.metric = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("first", self.metric)
        self.log("second", self.metric)


def line_of(key: str) -> int:
    [number] = [number for text, number in LINES.items() if f'"{key}"' in text]
    return number


def block(key: str, logged: str = "logged") -> list[str]:
    """The words of the fault at a key."""
    verdict = f"'{key}' got {QUERIES} queries, one for each sample, under at most {BATCH} ids that restart in each"
    return (
        f"LRG301 restarting-query-ids: {verdict} batch or on each rank, so different queries merge. {logged} one device"
        f" {key} {LOGGED} {REFERENCE} Fix: {FIX} lightning-retrieval-guard explain LRG301"
    ).split()


LOGGED, REFERENCE = show_number(merged()), show_number(reference())


@pytest.mark.parametrize(("mode", "head"), [("warn", "logged"), ("correct", "uncorrected")])
def test_a_warning_has_all_parts_and_stands_at_the_log_call(mode: Any, head: str) -> None:
    with pytest.warns(GuardWarning) as warned:
        make_trainer(RetrievalGuard(mode=mode)).validate(TwoKeys(), verbose=False)
    said = {
        (one.filename, one.lineno): str(one.message).split() for one in warned if issubclass(one.category, GuardWarning)
    }
    assert {key: said[__file__, line_of(key)] for key in ("first", "second")} == {
        key: block(key, head) for key in ("first", "second")
    }


def test_an_error_has_all_parts_of_every_finding() -> None:
    with pytest.raises(GuardError) as raised:
        make_trainer(RetrievalGuard(mode="strict")).validate(TwoKeys(), verbose=False)
    words = " ".join(str(raised.value).split())
    for key in ("first", "second"):
        assert f"{__file__}:{line_of(key)}: {' '.join(block(key))}" in words


def test_a_run_closes_with_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(GuardWarning):
        make_trainer(RetrievalGuard(mode="correct")).validate(TwoKeys(), verbose=False)
    # the metric that the program logs on its own is the third key
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("RetrievalGuard")]
    assert said == ["RetrievalGuard: 3 faults, 3 of 3 keys corrected"]


def test_the_warning_of_a_guard_that_failed_has_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(StageRecord, "start_batch", broken)
    with pytest.warns(GuardWarning) as warned:
        make_trainer(RetrievalGuard()).validate(TwoKeys(), verbose=False)
    [said] = [one for one in warned if issubclass(one.category, GuardWarning)]
    assert said.filename == __file__
    assert "make_trainer(" in linecache.getline(said.filename, said.lineno)
    assert " ".join(str(said.message).split()) == (
        "LRG901 guard-disabled: the guard failed and stepped aside (RuntimeError: out of order). Numbers from here on"
        " are not checked. Fix: Please report it with this message. lightning-retrieval-guard explain LRG901"
    )
