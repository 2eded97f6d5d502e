"""What every program shares: its data, its loaders, and the same code for validation and test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .data import Batch, queries, rows_of
from .grids import FEW, GRID, grid_of


class Program(LightningModule):
    """One way of logging. The batch over all ranks is always the same; each rank has its part of it."""

    trainer_options: ClassVar[dict[str, Any]] = {}
    global_batch: ClassVar[int] = 12

    def __init__(self, devices: int) -> None:
        super().__init__()
        self.nominal = self.global_batch // devices

    def dataset(self) -> Dataset[Any]:
        """The samples of one epoch."""
        raise NotImplementedError

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.dataset(), batch_size=self.nominal)

    def test_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def on_test_epoch_end(self) -> None:
        self.on_validation_epoch_end()


class QueryProgram(Program):
    """Whole queries as samples, with ids of the data set, and a grid of metrics."""

    names: ClassVar[str] = GRID
    metric_options: ClassVar[dict[str, Any]] = {}
    count: ClassVar[int] = 18
    empty: ClassVar[bool] = True

    def __init__(self, devices: int) -> None:
        super().__init__(devices)
        self.metrics = grid_of(self.names, **self.metric_options)

    def dataset(self) -> Dataset[Any]:
        return queries(self.count, self.empty)

    def rows(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What the metrics are given of a batch."""
        return rows_of(batch)

    def update(self, batch: Batch) -> None:
        rows = self.rows(batch)
        for metric in self.metrics.values():
            metric.update(*rows)


class ObjectLogged(QueryProgram):
    """Right on any number of ranks: the metric is updated and logged as an object in every step."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update(batch)
        for name, metric in self.metrics.items():
            self.log(name, metric, prog_bar=True)


class ComputedAtEnd(QueryProgram):
    """Right on any number of ranks: compute() synchronises, and is logged at the end of the epoch."""

    names = FEW

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update(batch)

    def on_validation_epoch_end(self) -> None:
        for name, metric in self.metrics.items():
            self.log(name, metric.compute(), prog_bar=True)
            metric.reset()


Factory = Callable[[int], Program]


@dataclass(frozen=True)
class Entry:
    """A program in the matrix, and what is to be seen of it.

    Attributes:
        codes: by world size, the rules that must be found above note; nothing above note elsewhere.
        right: the right form of the program, the source of the reference; the program itself by default.
        notes: rules that must be found as notes.
        asks: only its metrics themselves can combine ranks, which they do in correct mode; in warn mode no effect
            is told on several ranks.
        advice: codes that are found above note on several ranks too, although they change no number there.
    """

    factory: Factory
    codes: Mapping[int, frozenset[str]] = field(default_factory=dict)
    right: Factory | None = None
    worlds: tuple[int, ...] = (1, 2, 3)
    notes: frozenset[str] = frozenset()
    asks: bool = False
    advice: frozenset[str] = frozenset()

    @property
    def reference(self) -> Factory:
        return self.right or self.factory

    def expected(self, world_size: int) -> frozenset[str]:
        return self.codes.get(world_size, frozenset())


def wrong(factory: Factory, code: str, on: tuple[int, ...] = (2, 3), **options: Any) -> Entry:
    """An entry for a program in which `code` is to be found on the given world sizes."""
    codes = {world_size: frozenset(code.split()) for world_size in on}
    return Entry(factory, codes | options.pop("also", {}), **options)
