"""What correct mode repairs has a finding: a metric that one rank computes alone, a `dist_sync_fn` that keeps rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR
from torchmetrics.utilities.distributed import gather_all_tensors

from .harness import Pool
from .programs.data import Batch, queries, rows_of
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(60)
QUERIES = 12


class Program(LightningModule):
    alone = False

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.metric = RetrievalMRR(**options)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(queries(QUERIES, empty=False), batch_size=3)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch))

    def on_validation_epoch_end(self) -> None:
        if not self.alone or self.trainer.is_global_zero:
            self.log("mrr", self.metric.compute(), rank_zero_only=self.alone)


class ComputesAlone(Program):
    alone = True


def keep(tensor: Tensor, group: Any = None) -> list[Tensor]:
    return [tensor]


def shown(pool: Pool, program: Callable[[], Program], mode: str) -> list[tuple[float | None, list[Any]]]:
    """The number of every rank, and what is found."""
    ranks = on_ranks(pool, program, mode)
    return [(one.numbers.get("mrr"), [(own.code, own.line, own.corrected) for own in one.findings]) for one in ranks]


Keeps = partial(Program, dist_sync_fn=keep)


def reference() -> float:
    metric = RetrievalMRR()
    metric.update(*rows_of(queries(QUERIES, empty=False).columns))
    return float(metric.compute())


LINE = Program.on_validation_epoch_end.__code__.co_firstlineno + 2


def test_a_metric_that_rank_zero_computes_alone(pools: Mapping[int, Pool]) -> None:
    found = [("LRG204", LINE, True)]
    assert shown(pools[2], ComputesAlone, "correct") == [(pytest.approx(reference()), found), (None, found)]


def test_rows_that_the_programs_own_function_keeps(pools: Mapping[int, Pool]) -> None:
    (number, found), (other, _) = shown(pools[2], Keeps, "warn")
    assert found == [("LRG203", LINE, False)]
    assert number != pytest.approx(other)
    right = (pytest.approx(reference()), [("LRG203", LINE, True)])
    assert shown(pools[2], Keeps, "correct") == [right, right]


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
def test_rows_that_the_programs_own_function_gathers(pools: Mapping[int, Pool], mode: str) -> None:
    gathers = partial(Program, dist_sync_fn=gather_all_tensors)
    assert shown(pools[2], gathers, mode) == [(pytest.approx(reference()), [])] * 2
