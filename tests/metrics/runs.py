"""A rank evaluates many metrics in one run: logged as objects where the value is a number, else computed at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from tests.distributed.evaluate import Recorder, guards, make_trainer, recorded_warnings
from tests.distributed.harness import Pool

from .catalogue import alone, catalogue, numbers

BATCH = 3
LAYOUTS = ("even", "uneven", "empty", "skipped", "padded")


class Numbers(Dataset[int]):
    """The numbers of samples."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        if index >= self.count:
            raise IndexError(index)
        return index


class Stream(IterableDataset[int]):
    """The same without a known length, so that a rank without a sample runs its loop all the same."""

    def __init__(self, samples: list[int]) -> None:
        self.samples = samples

    def __iter__(self) -> Any:
        return iter(self.samples)


def shares(layout: str, world_size: int) -> list[list[int]]:
    """The samples of each rank."""
    if layout == "even":
        size = 2 * BATCH
        return [list(range(rank * size, (rank + 1) * size)) for rank in range(world_size)]
    if layout == "uneven":  # 2, 1, 1, 1 batches and a last one that is short
        sizes = [2 * BATCH, *[BATCH] * (world_size - 2), BATCH - 1]
    elif layout == "padded":
        count = 2 * BATCH * world_size - 1
        return [list(range(rank, count, world_size)) for rank in range(world_size)]
    else:
        sizes = [2 * BATCH, *[BATCH] * (world_size - 2), 0]
    starts = [sum(sizes[:rank]) for rank in range(world_size)]
    return [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]


def batches_of(layout: str, world_size: int) -> list[list[int]]:
    """All samples as one device sees them."""
    every = sorted(sample for share in shares(layout, world_size) for sample in share)
    return [every[start : start + BATCH] for start in range(0, len(every), BATCH)]


class Many(LightningModule):
    """Holds metrics under their class names."""

    def __init__(self, names: list[str], scalars: list[str], layout: str) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # else a rank without a batch raises
        self.entries = {name: entry for name, entry in catalogue().items() if name in names}
        self.metrics = torch.nn.ModuleDict({name: entry.build() for name, entry in self.entries.items()})
        self.scalars = scalars
        self.layout = layout
        self.values: dict[str, list[float]] = {}

    def val_dataloader(self) -> DataLoader[Any]:
        if self.layout == "padded":
            return DataLoader(Numbers(2 * BATCH * self.trainer.world_size - 1), batch_size=BATCH)
        own = shares(self.layout, self.trainer.world_size)[self.global_rank]
        if self.layout == "empty":
            return DataLoader(Stream(own), batch_size=BATCH)
        return DataLoader(Subset(Numbers(1000), own), batch_size=BATCH)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            args, kwargs = self.entries[name].feed(batch)
            metric.update(*args, **kwargs)
            if name in self.scalars:
                self.log(name, metric)

    def on_validation_epoch_end(self) -> None:
        for name, metric in self.metrics.items():
            if name not in self.scalars:
                self.values[name] = numbers(metric.compute())


def run(names: list[str], scalars: list[str], layout: str, mode: str) -> dict[str, Any]:
    """The values on this rank, and the metrics that the guard names."""
    module = Many(names, scalars, layout)
    options = {} if layout == "padded" else {"use_distributed_sampler": False}
    guard = guards(mode, {"log_findings": False})
    trainer = make_trainer(guard, Recorder(), **options)
    with recorded_warnings():
        trainer.validate(module, verbose=False)
    values = module.values | {name: [float(value)] for name, value in trainer.callback_metrics.items()}
    named = {finding.key.removeprefix("metrics.") for own in guard for finding in own.findings}
    return {"values": values, "named": sorted(named)}


def verdicts(pool: Pool, names: Sequence[str], layout: str, mode: str, timeout: float) -> dict[str, str]:
    """For each class whether the ranks show the number of one process: right, named or wrong.

    Raises:
        AssertionError: A rank failed.
    """
    entries = {name: entry for name, entry in catalogue().items() if name in names}
    wanted = {name: alone(entry, batches_of(layout, pool.world_size)) for name, entry in entries.items()}
    scalars = [name for name, value in wanted.items() if len(value) == 1]
    outcomes = pool.run(
        f"{__name__}:run", case=layout, timeout=timeout, names=[*names], scalars=scalars, layout=layout, mode=mode
    )
    assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
    shown = [outcome.value for outcome in outcomes]
    lacks_values = {pool.world_size - 1} if layout in ("empty", "skipped") else set()
    found = {}
    for name, value in wanted.items():
        own = [one["values"].get(name) for rank, one in enumerate(shown) if rank not in lacks_values]
        is_right = all(one is not None and is_same(name, one, value) for one in own)
        found[name] = "right" if is_right else "named" if name in shown[0]["named"] else "wrong"
    return found


def is_same(name: str, one: list[float], other: list[float]) -> bool:
    """Whether two values agree; CatMetric keeps the order of arrival, which is another one on several ranks."""
    if name == "CatMetric":
        one, other = sorted(one), sorted(other)
    return len(one) == len(other) and one == pytest.approx(other, rel=1e-4, abs=1e-5, nan_ok=True)
