"""The peak of memory at the end of an epoch, above the rows that the metric holds, in bytes a row.

What counts is the resident memory of a fresh process. Linux keeps its high-water mark, which is put back to the
present value once the rows are there; a first small run has loaded all code by then.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from bench import ways
from bench.declare import Bench, Figure, Line, NotMeasured, Result, Scale, attempted
from bench.epochs import evaluate
from bench.metrics import collection
from bench.rows import Rows, equal, unequal

PROCESS = Path("/proc/self")
UPDATES = 50
PARTS = 4  # of a step, so that what a step needs for a moment is small beside what would be kept


@dataclass
class Peak:
    """Bytes above what was there at the beginning."""

    size: int = 0


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the highest resident memory of this process."""
    peak = Peak()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept by the C library is no part of the rows
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError as error:
        raise NotMeasured("the high-water mark of memory cannot be put back on this system") from error
    before = _status("VmRSS")
    yield peak
    peak.size = _status("VmHWM") - before


def _status(name: str) -> int:
    """A line of the process's status, in bytes."""
    [line] = [line for line in (PROCESS / "status").read_text().splitlines() if line.startswith(name + ":")]
    return int(line.split()[1]) * 1024


def makers() -> dict[str, Callable[[int], Rows]]:
    return {"unequal": unequal, "equal": equal}


def scoring_peak(make: str, rows: int, name: str) -> float:
    """Bytes a row while the 12 metrics are computed from three tensors, or while keys of the rows are sorted."""
    torch.set_num_threads(1)
    way = {"ours": ways.ours, "floor": ways.key_sort}[name]
    way(makers()[make](10_000))()
    held = makers()[make](rows)
    call = way(held)
    with peak_memory() as peak:
        call()
    return peak.size / len(held)


def epoch_peak(make: str, rows: int, mode: str) -> float:
    """Bytes a row from the end of the last step to the end of the epoch; ``mode`` as the guard's, or "plain"."""
    torch.set_num_threads(1)
    _epoch(makers()[make](10_000), mode)
    held = makers()[make](rows)
    return _epoch(held, mode) / len(held)


def _epoch(rows: Rows, mode: str) -> int:
    """Bytes at the peak of one epoch's end."""
    with contextlib.ExitStack() as stack:
        watch = Watch(stack)
        evaluate(Sliced(rows), mode, watch)
    return watch.peak.size


class Sliced(LightningModule):
    """Updates 12 metrics with slices of rows that are there already, and logs the collection when the epoch ends."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.rows = rows
        self.metrics = collection()

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(cast(Any, torch.arange(UPDATES)), batch_size=1)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        rows = self.rows
        query, preds, target = (torch.chunk(part, UPDATES)[batch_idx] for part in (rows.query, rows.preds, rows.target))
        self.metrics.update(preds, target, indexes=query)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metrics.compute())
        self.metrics.reset()


def at_update_peak(rows: int) -> float:
    """Bytes a row over a whole epoch in which metrics are made in each step, for queries that are whole there."""
    torch.set_num_threads(1)
    for size in (10_000, rows):
        held = equal(size)
        with contextlib.ExitStack() as stack:
            watch = WholeEpoch(stack)
            evaluate(MadeInSteps(held), "correct", watch)
    return watch.peak.size / len(held)


class MadeInSteps(Sliced):
    """Makes 12 metrics in each step and logs their values, as the program of torchmetrics issue 2852 does."""

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        for part in range(PARTS):
            query, preds, target = self.part(batch_idx * PARTS + part)
            for name, metric in collection().items():
                metric.update(preds, target, indexes=query)
                self.log(f"{name}/{part}", metric.compute(), batch_size=1)

    def on_validation_epoch_end(self) -> None:
        """Nothing is left to log."""

    def part(self, number: int) -> tuple[Tensor, ...]:
        """Rows of whole queries, in an even share."""
        columns = (self.rows.query, self.rows.preds, self.rows.target)
        return tuple(torch.chunk(column, UPDATES * PARTS)[number] for column in columns)


class Watch(Callback):
    """The last callback: measures from the end of the last step on."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.peak = Peak()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx + 1 == UPDATES:
            self.peak = self.stack.enter_context(peak_memory())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stack.close()


class WholeEpoch(Watch):
    """Measures from the start of the epoch on."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.peak = self.stack.enter_context(peak_memory())

    def on_validation_batch_end(self, *_: Any) -> None:
        """The steps count too."""


def in_fresh_process(function: Callable[..., float], *arguments: object) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def run(scale: Scale) -> Result:
    most, fewer = scale.pick(10**7, 10**6), scale.pick(10**6, 10**5)
    wanted: dict[str, tuple[Any, ...]] = {
        "plain": (epoch_peak, "unequal", fewer, "plain"),
        "floor": (scoring_peak, "unequal", most, "floor"),
        "score-unequal": (scoring_peak, "unequal", most, "ours"),
        "score-equal": (scoring_peak, "equal", most, "ours"),
        "epoch-unequal": (epoch_peak, "unequal", most, "correct"),
        "epoch-equal": (epoch_peak, "equal", most, "correct"),
        "at-update": (at_update_peak, most),
    }
    figures: dict[str, Figure] = {}
    notes: dict[str, str] = {}
    for name, (function, *arguments) in wanted.items():
        size = attempted(in_fresh_process, function, *arguments)
        if isinstance(size, NotMeasured):
            notes[name] = str(size)
        else:
            figures[name] = Figure(size)
    return Result(figures, notes=notes)


WHAT = "peak memory above the rows"
LINES = {
    "epoch-unequal": Line(f"{WHAT}: epoch end, unequal lengths", None, "B a row"),
    "epoch-equal": Line(f"{WHAT}: epoch end, equal lengths", None, "B a row"),
    "at-update": Line(f"{WHAT}: whole epoch, whole queries scored at the update", None, "B a row"),
    "score-unequal": Line(f"{WHAT}: scoring alone, unequal lengths", None, "B a row"),
    "score-equal": Line(f"{WHAT}: scoring alone, equal lengths", None, "B a row"),
    "floor": Line(f"{WHAT}: one sort of int64 keys", None, "B a row"),
    "plain": Line(f"{WHAT}: epoch end of the plain collection", None, "B a row"),
}
BENCH = Bench("memory", LINES, run)
