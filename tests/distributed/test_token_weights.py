"""A mean that is weighted by tokens comes out as on one device, also where Lightning floors the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from .evaluate import Recorder, guards, make_trainer, recorded_warnings
from .harness import Pool

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


def run(kind: str, mode: str) -> tuple[float, list[tuple[str, bool]]]:
    """The number, and what is found."""
    guard = guards(mode, {})
    trainer = make_trainer(guard, Recorder())
    with recorded_warnings():
        trainer.validate(TokenLoss(kind), verbose=False)
    return float(trainer.callback_metrics["loss"]), [
        (one.code, one.corrected) for each in guard for one in each.findings
    ]


@pytest.mark.parametrize("kind", ["int", "float", "tensor"])
def test_token_counts_weigh_as_on_one_device(pools: Mapping[int, Pool], kind: str) -> None:
    right = float((LOSSES * TOKENS).sum() / TOKENS.sum())
    plain, corrected = (pools[2].run(f"{__name__}:run", kind=kind, mode=mode) for mode in ("none", "correct"))
    assert all(outcome.ok for outcome in (*plain, *corrected)), "\n".join(map(str, corrected))
    for one, other in zip(plain, corrected, strict=True):
        assert (one.value[0] == pytest.approx(right)) == (kind == "float")
        assert other.value == (pytest.approx(right), [] if kind == "float" else [("LRG104", True)])
