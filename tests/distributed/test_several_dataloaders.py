"""Several dataloaders of one evaluation: what is found is about the dataloader that is behind a key."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader

from .harness import Pool
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(60)

SCORES = torch.rand(60, generator=torch.Generator().manual_seed(1))


class AtOnce(LightningModule):
    """Gets a batch from each of two dataloaders at once, and weighs the mean of each by its samples."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def val_dataloader(self) -> Any:
        loaders = {name: DataLoader(range(size), batch_size=4) for name, size in (("short", 22), ("full", 24))}
        return CombinedLoader(loaders, self.mode)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        for name, samples in batch.items():
            self.log(name, SCORES[samples].mean(), sync_dist=True, batch_size=len(samples), add_dataloader_idx=False)


@pytest.mark.parametrize("combined", ["min_size", "max_size"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_batch_of_several_dataloaders_has_no_one_size(
    pools: Mapping[int, Pool], world_size: int, combined: str
) -> None:
    program = partial(AtOnce, combined)
    plain, corrected = (on_ranks(pools[world_size], program, mode) for mode in ("none", "correct"))
    for one, other in zip(plain, corrected, strict=True):
        assert one.numbers["full"] == pytest.approx(float(SCORES[:24].mean()))
        assert other.numbers == one.numbers
        assert not other.found
