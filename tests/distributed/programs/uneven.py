"""LRG205: ranks update a metric unequally often, or one of them never."""

from __future__ import annotations

from typing import Any, ClassVar

from torch.utils.data import DataLoader, Dataset, Subset

from .base import ComputedAtEnd, ObjectLogged, QueryProgram
from .data import Batch, queries, rows_of


class UnevenLoader(QueryProgram):
    """An own split of the data: rank 0 has more batches than the others."""

    trainer_options: ClassVar[dict[str, Any]] = {"use_distributed_sampler": False}
    count = 9

    def val_dataloader(self) -> DataLoader[Any]:
        others = self.count // 4
        first = self.count - others * (self.trainer.world_size - 1)
        start = first + others * (self.global_rank - 1)
        indexes = range(first) if self.global_rank == 0 else range(start, start + others)
        return DataLoader(Subset(self.dataset(), indexes), batch_size=2)


class UnevenObject(UnevenLoader, ObjectLogged):
    """The metric logged as an object."""


class UnevenCompute(UnevenLoader, ComputedAtEnd):
    """compute() logged at the end of the epoch."""


class Conditional(QueryProgram):
    """Leaves out queries without a relevant row, and the update where nothing is left."""

    count = 24
    bare: ClassVar[slice] = slice(0, 12)

    def dataset(self) -> Dataset[Any]:
        data = queries(self.count, empty=False)
        bare = data.columns["query"][self.bare]
        data.columns["target"][bare[bare % 6 > 0]] = 0
        return data

    def update(self, batch: Batch) -> None:
        has_hit = (batch["target"] * batch["mask"]).any(1)
        if has_hit.any():
            for metric in self.metrics.values():
                metric.update(*rows_of({name: column[has_hit] for name, column in batch.items()}))


class ConditionalObject(Conditional, ObjectLogged):
    """The first batch has queries with relevant rows on rank 0 alone."""


class NoneObject(Conditional, ObjectLogged):
    """Only rank 0 has queries with relevant rows; the metric is logged as an object."""

    bare = slice(0, 24)


class NoneCompute(Conditional, ComputedAtEnd):
    """Only rank 0 has queries with relevant rows; compute() is logged at the end of the epoch."""

    bare = slice(0, 24)
