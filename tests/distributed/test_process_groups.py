"""A metric with a process group of its own combines the ranks of that group alone, as torchmetrics does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from .harness import Pool
from .programs.data import Batch, queries, rows, rows_of
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(90)

GROUPS = ([0, 1], [2])


class Grouped(LightningModule):
    """Ranks zero and one share their rows, rank two keeps its own."""

    def __init__(self, split: bool) -> None:
        super().__init__()
        self.mrr, self.recall, self.everyone = RetrievalMRR(), RetrievalRecall(top_k=2), RetrievalMRR()
        self.split = split

    def setup(self, stage: str) -> None:
        made = [dist.new_group(ranks) for ranks in GROUPS]
        group_of_rank = next(group for group, ranks in zip(made, GROUPS, strict=True) if self.global_rank in ranks)
        self.mrr.process_group = self.recall.process_group = group_of_rank

    def val_dataloader(self) -> Any:
        return DataLoader(rows(24) if self.split else queries(12, empty=False), batch_size=2)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        fed = (batch["score"], batch["target"], batch["query"]) if self.split else rows_of(batch)
        for name, metric in (("mrr", self.mrr), ("recall", self.recall), ("everyone", self.everyone)):
            metric.update(*fed)
            self.log(name, metric)


@pytest.mark.parametrize("split", [False, True])
def test_each_group_has_its_own_number(pools: Mapping[int, Pool], split: bool) -> None:
    plain, guarded = (
        [shown.numbers for shown in on_ranks(pools[3], partial(Grouped, split), mode)] for mode in ("none", "correct")
    )
    for one, other in zip(plain, guarded, strict=True):
        assert other == pytest.approx(one, abs=1e-6)
    first, second, third = guarded
    assert first == second
    assert first["mrr"] != pytest.approx(third["mrr"], abs=1e-3)
    assert first["everyone"] == third["everyone"]
    assert torch.tensor(first["mrr"]).isfinite()
