"""Every part of what a run says: location, code, name, verdict, numbers and fix, wherever it is said."""

from __future__ import annotations

import json
import linecache
from pathlib import Path
from typing import Any

import pytest
from distributed.programs.data import Batch
from lightning.pytorch import LightningModule
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import GuardError, GuardWarning, RetrievalGuard
from lightning_retrieval_guard.findings import show_number
from lightning_retrieval_guard.watch.stage import StageRecord

from .programs import QUERIES, RestartingIds, make_trainer, merged, reference

FIX = "Pass ids that are unique over the epoch, such as the index in the dataset, or query_scope='batch'."
LINES = {
    text: number
    for number, text in enumerate(Path(__file__).read_text(encoding="utf-8").splitlines(), start=1)
    if text.startswith("        self.log(")
}


class TwoKeys(RestartingIds, LightningModule):
    """Logs the same metric with restarting ids twice."""

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


def whole(key: str, numbers: str) -> str:
    """The message at a key."""
    verdict = (
        f"'{key}' got {QUERIES} queries, one for each sample, under at most 6 ids that restart in each batch or on"
    )
    return f"LRG301 restarting-query-ids: {verdict} each rank, so different queries merge. {numbers} {FIX}"


LOGGED, REFERENCE = show_number(merged()), show_number(reference())


@pytest.mark.parametrize(
    ("mode", "numbers"),
    [
        ("warn", f"Logged {LOGGED}, reference {REFERENCE}."),
        ("correct", f"Would have logged {LOGGED}, reference {REFERENCE}."),
    ],
)
def test_a_warning_has_all_parts_and_stands_at_the_log_call(mode: Any, numbers: str) -> None:
    with pytest.warns(GuardWarning) as warned:
        make_trainer(RetrievalGuard(mode=mode)).validate(TwoKeys(), verbose=False)
    said = {(one.filename, one.lineno, str(one.message)) for one in warned if issubclass(one.category, GuardWarning)}
    assert said >= {(__file__, line_of(key), whole(key, numbers)) for key in ("first", "second")}


def test_an_error_has_all_parts_of_every_finding() -> None:
    with pytest.raises(GuardError) as raised:
        make_trainer(RetrievalGuard(mode="strict")).validate(TwoKeys(), verbose=False)
    numbers = f"Logged {LOGGED}, reference {REFERENCE}."
    lines = str(raised.value).splitlines()
    for key in ("first", "second"):
        assert f"{__file__}:{line_of(key)}: {whole(key, numbers)}" in lines


def test_the_table_has_all_parts(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(GuardWarning):
        make_trainer(RetrievalGuard(mode="correct")).validate(TwoKeys(), verbose=False)
    table = capfd.readouterr().err.partition("RetrievalGuard: findings of validate\n")[2]
    for key in ("first", "second"):
        [row] = [line for line in table.splitlines() if line.startswith(key)]
        place = f"{Path(__file__).name}:{line_of(key)}"
        assert row.split() == [key, "LRG301", "error,", "corrected", LOGGED, REFERENCE, place]


def test_the_reports_have_all_parts(tmp_path: Path) -> None:
    for name in ("report.json", "report.html"):
        with pytest.warns(GuardWarning):
            make_trainer(RetrievalGuard(report=tmp_path / name)).validate(TwoKeys(), verbose=False)
    read = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    [found] = [one for one in read["findings"] if (one["key"], one["code"]) == ("second", "LRG301")]
    assert found | {"message": ""} == {
        "code": "LRG301",
        "rule": "restarting-query-ids",
        "severity": "error",
        "key": "second",
        "stage": "validate",
        "hook": "validation_step",
        "path": __file__,
        "line": line_of("second"),
        "message": "",
        "fix": FIX,
        "ranks": [0],
        "count": 1,
        "corrected": False,
        "effect": {"logged": pytest.approx(merged()), "reference": pytest.approx(reference())},
    }
    assert whole("second", "").startswith(f"LRG301 restarting-query-ids: {found['message']}")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for part in (found["message"], FIX, linecache.getline(__file__, found["line"]).strip()):
        assert part.replace("'", "&#x27;").replace('"', "&quot;") in page
    assert f"Logged {LOGGED}, reference {REFERENCE}." in page
    assert f"{__file__}:{found['line']}</code>" in page


def test_the_warning_of_a_guard_that_failed_has_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(StageRecord, "start_batch", broken)
    with pytest.warns(GuardWarning) as warned:
        make_trainer(RetrievalGuard()).validate(TwoKeys(), verbose=False)
    [said] = [one for one in warned if issubclass(one.category, GuardWarning)]
    assert said.filename == __file__
    assert "make_trainer(" in linecache.getline(said.filename, said.lineno)
    assert str(said.message) == (
        "LRG901 guard-disabled: the guard failed and stepped aside (RuntimeError: out of order). Numbers from here on"
        " are not checked. Please report it with this message."
    )
