"""Data as programs have them: users without a positive, candidates that are masked out, counts of each rank's share."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from .harness import Pool
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(120)

CANDIDATES, BATCH = 6, 4
_random = torch.Generator().manual_seed(3)
SCORES = torch.rand(23, CANDIDATES, generator=_random)
TARGET = (torch.rand(23, CANDIDATES, generator=_random) < 0.2).long()


class Users(LightningModule):
    """Users with any number of relevant items."""

    samples = 22

    def __init__(self) -> None:
        super().__init__()
        self.mrr = RetrievalMRR()

    def val_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(self.samples), batch_size=BATCH)


class Masked(Users):
    """Items that a user has seen have a score of minus infinity; a sample is repeated."""

    samples = 23

    def validation_step(self, users: Tensor, batch_idx: int) -> None:
        seen = (users[:, None] + torch.arange(CANDIDATES)) % 3 == 0
        scores = SCORES[users].masked_fill(seen, -torch.inf)
        self.mrr.update(scores, TARGET[users] * ~seen, indexes=users[:, None].expand_as(scores))
        self.log("mrr", self.mrr)


def test_a_repeated_sample_with_masked_candidates_is_found(pools: Mapping[int, Pool]) -> None:
    (alone,) = on_ranks(pools[1], Masked)
    for before in on_ranks(pools[2], Masked):
        assert before.numbers["mrr"] != pytest.approx(alone.numbers["mrr"], abs=1e-4)
    for shown in on_ranks(pools[2], Masked, "correct"):
        assert shown.numbers["mrr"] == pytest.approx(alone.numbers["mrr"], abs=1e-6)
        assert shown.corrected == [("LRG403", True)]


class Count(Users):
    """The number of users, each rank's own, added up when the epoch ends: the same on both."""

    def on_validation_epoch_start(self) -> None:
        self.users = 0

    def validation_step(self, users: Tensor, batch_idx: int) -> None:
        self.users += len(users)

    def on_validation_epoch_end(self) -> None:
        self.log("users", float(self.users), sync_dist=True, reduce_fx="sum")


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_sum_of_equal_counts_is_not_called_wrong(pools: Mapping[int, Pool], mode: str) -> None:
    # the guard of the test says that no number is called wrong without a finding
    for shown in on_ranks(pools[2], Count, mode):
        assert shown.numbers == {"users": 22}
        assert not shown.findings
