"""The time of one `log` call in a validation step, with and without a guard in warn mode, on one process."""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import RetrievalGuard

KINDS = ("tensor", "float", "Metric object")
# The first calls fill caches, of Lightning and of the guard, once a run.
WARM_UP = 20


@dataclass(frozen=True)
class Cost:
    """Seconds for one log call; the ratio is the median over rounds, with the quartiles beside it."""

    without: float
    with_warn: float
    ratio: float
    middle_half: tuple[float, float]


class Logs(LightningModule):
    """Logs one value a step and takes the time of the call alone."""

    def __init__(self, kind: str, steps: int) -> None:
        super().__init__()
        self.kind = kind
        self.steps = steps
        self.metric = RetrievalMRR()
        self.seconds: list[float] = []

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.arange(8 * self.steps), batch_size=8)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        value = self.value(batch)
        begun = time.perf_counter()
        self.log("value", value)
        self.seconds.append(time.perf_counter() - begun)

    def value(self, batch: Tensor) -> Any:
        if self.kind == "tensor":
            return batch.float().mean()
        if self.kind == "float":
            return float(len(batch))
        self.metric.update(torch.rand(len(batch)), batch % 8 == 0, indexes=batch // 8)
        return self.metric


def measure(kind: str, rounds: int, steps: int) -> Cost:
    """Time runs without and with a guard by turns, so that both see the same machine."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    run(kind, steps, guarded=False)
    pairs = [(run(kind, steps, guarded=False), run(kind, steps, guarded=True)) for _ in range(rounds)]
    without, with_warn = zip(*pairs, strict=True)
    ratios = [guarded / plain for plain, guarded in pairs]
    return Cost(
        statistics.median(without), statistics.median(with_warn), statistics.median(ratios), middle_half(ratios)
    )


def middle_half(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def run(kind: str, steps: int, guarded: bool) -> float:
    """The median of the calls of one validation."""
    module = Logs(kind, steps)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[RetrievalGuard()] if guarded else [],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a loader without workers is what is wanted here
        trainer.validate(module, verbose=False)
    return statistics.median(module.seconds[WARM_UP:])
