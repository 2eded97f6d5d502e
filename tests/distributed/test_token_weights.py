"""A mean that is weighted by tokens comes out as on one device, also where Lightning floors the weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from .harness import Pool
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(60)

COUNT = 24
LOSSES = torch.rand(COUNT, generator=torch.Generator().manual_seed(1))
TOKENS = torch.arange(COUNT) * 7 % 5 + 1


class TokenLoss(LightningModule):
    """Logs the mean over the tokens of a batch with their number."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def val_dataloader(self) -> Any:
        return DataLoader(range(COUNT), batch_size=4)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        tokens = TOKENS[batch].sum()
        size = {"int": int(tokens), "float": float(tokens), "tensor": tokens}[self.kind]
        self.log("loss", (LOSSES[batch] * TOKENS[batch]).sum() / tokens, sync_dist=True, batch_size=size)


@pytest.mark.parametrize("kind", ["int", "float", "tensor"])
def test_token_counts_weigh_as_on_one_device(pools: Mapping[int, Pool], kind: str) -> None:
    right = float((LOSSES * TOKENS).sum() / TOKENS.sum())
    plain, corrected = (on_ranks(pools[2], partial(TokenLoss, kind), mode) for mode in ("none", "correct"))
    for one, other in zip(plain, corrected, strict=True):
        assert (one.numbers["loss"] == pytest.approx(right)) == (kind == "float")
        assert other.numbers["loss"] == pytest.approx(right)
        assert [(found.code, found.corrected) for found in other.findings] == [("LRG104", True)] * (kind != "float")
