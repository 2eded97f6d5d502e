"""Modules and callbacks with a `log` of their own, which hands the value on to Lightning's."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import Finding, RetrievalGuard
from tests.distributed.programs.data import Batch, rows_of

from .alone import alone
from .programs import Trainable, merged, reference, restarting_ids


class Prefixed(Trainable, LightningModule):
    """Puts a prefix before every key; its ids restart in each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = RetrievalMRR()

    def log(self, name: str, value: Any, **options: Any) -> None:
        super().log(f"val/{name}", value, **options)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch)))
        self.log("mrr", self.metric)


class PrefixedDict(Prefixed):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch)))
        self.log_dict({"mrr": self.metric})


class Silent(Prefixed):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch)))


class Logs(Callback):
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.log("mrr", pl_module.metric.compute())
        pl_module.metric.reset()


WAYS = {"log": (Prefixed, None), "log_dict": (PrefixedDict, None), "callback": (Silent, Logs)}


def validate(way: str, mode: str) -> tuple[dict[str, float], list[Finding]]:
    program, callback = WAYS[way]
    guard = RetrievalGuard(mode=mode)  # type: ignore[arg-type]
    shown = alone(program(), guard, *([callback()] if callback else []))
    return shown.numbers, shown.findings


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("mode", "number"), [("warn", merged()), ("correct", reference())])
def test_the_key_that_lightning_gets_is_judged_and_corrected(way: str, mode: str, number: float) -> None:
    numbers, findings = validate(way, mode)
    assert numbers == {"val/mrr": pytest.approx(number, abs=1e-6)}
    assert {(finding.code, finding.key) for finding in findings} == {("LRG301", "val/mrr")}


@pytest.mark.parametrize("way", WAYS)
def test_the_line_is_the_one_that_calls_it(way: str) -> None:
    [finding] = validate(way, "warn")[1]
    program, callback = WAYS[way]
    lines, start = inspect.getsourcelines(callback or program)
    call = next(number for number, line in enumerate(lines, start) if "self.log" in line and "super" not in line)
    assert (finding.path, finding.line) == (__file__, call)


def test_the_class_is_as_it_was() -> None:
    before = vars(LightningModule)["log"]
    validate("log", "warn")
    assert vars(LightningModule)["log"] is before
