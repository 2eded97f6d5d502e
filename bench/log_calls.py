"""The time of one `log` call in a validation step, with and without a guard, on one process."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from bench.declare import Bench, Figure, Line, Result, Scale, at_most
from bench.epochs import evaluate
from bench.turns import medians, ratio


@dataclass(frozen=True)
class Case:
    """Log calls of one kind of value.

    Attributes:
        value: "tensor", "float" or "object".
        mode: The guard's.
        steps: Steps of a run, one log call each.
        last: The calls that count, at the end of the run.
        rounds: Runs with and without a guard, by turns.
    """

    value: str
    mode: str
    steps: int
    last: int
    rounds: int


class Logs(LightningModule):
    """Logs one value a step and takes the time of the call alone."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.metric = RetrievalMRR()
        self.seconds: list[float] = []

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(cast(Any, torch.arange(8 * self.case.steps)), batch_size=8)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        value = self.value(batch)
        begun = time.perf_counter()
        self.log("value", value)
        self.seconds.append(time.perf_counter() - begun)

    def value(self, batch: Tensor) -> Any:
        if self.case.value == "tensor":
            return batch.float().mean()
        if self.case.value == "float":
            return float(len(batch))
        self.metric.update(torch.rand(len(batch)), batch % 8 == 0, indexes=batch // 8)
        return self.metric


def call_seconds(case: Case, mode: str) -> float:
    """The median of the last calls of one validation."""
    module = Logs(case)
    evaluate(module, mode, Callback())
    return statistics.median(module.seconds[-case.last :])


def compare(case: Case) -> tuple[Figure, dict[str, float]]:
    """Guarded over plain, and the seconds of both."""
    torch.set_num_threads(1)
    call_seconds(Case(case.value, case.mode, 50, 20, 1), case.mode)
    seconds: dict[str, list[float]] = {"plain": [], case.mode: []}
    for _ in range(case.rounds):
        for mode, taken in seconds.items():
            taken.append(call_seconds(case, mode))
    return ratio(seconds[case.mode], seconds["plain"]), medians(seconds)


def cases(scale: Scale) -> dict[str, Case]:
    few = scale.pick(400, 150)
    rounds = scale.pick(15, 3)
    return {
        "tensor": Case("tensor", "warn", few, few - 20, rounds),
        "float": Case("float", "warn", few, few - 20, rounds),
        "object": Case("object", "warn", few, few - 20, rounds),
        "object-2000": Case("object", "correct", scale.pick(2000, 300), 50, scale.pick(5, 1)),
    }


def run(scale: Scale) -> Result:
    compared = {name: compare(case) for name, case in cases(scale).items()}
    figures = {name: figure for name, (figure, _) in compared.items()}
    return Result(figures, {"seconds": {name: seconds for name, (_, seconds) in compared.items()}})


LINES = {
    "tensor": Line("log call of a tensor, warn / plain", at_most(1.05)),
    "float": Line("log call of a float, warn / plain"),
    "object": Line("log call of a Metric object, 400 updates, warn / plain"),
    "object-2000": Line("log call of a Metric object, after 2,000 updates, correct / plain", at_most(0.2)),
}
BENCH = Bench("log-calls", LINES, run)
