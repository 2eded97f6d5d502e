"""Data as programs have them: users without a positive, candidates that are masked out, counts of each rank's share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

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


class CountOfShare(Users):
    """The same in steps, and left on each rank."""

    def validation_step(self, users: Tensor, batch_idx: int) -> None:
        self.log("users", float(len(users)), reduce_fx="sum")


def test_nor_is_a_share_called_right(pools: Mapping[int, Pool], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    on_ranks(pools[2], CountOfShare, "warn", guard_options={"report": str(path)})
    assert "'logged': 11.0, 'reference': None" in str(json.loads(path.read_text())["keys"]["users"])


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_sum_of_equal_counts_is_not_called_wrong(pools: Mapping[int, Pool], mode: str) -> None:
    # the guard of the test says that no number is called wrong without a finding
    for shown in on_ranks(pools[2], Count, mode):
        assert shown.numbers == {"users": 22}
        assert not shown.findings


class Counted(Users):
    """Users without a relevant item are left out, and those that remain are counted in each batch."""

    def validation_step(self, users: Tensor, batch_idx: int) -> None:
        users = users[TARGET[users].any(dim=1)]
        ids = torch.arange(len(users))[:, None].expand(-1, CANDIDATES)
        self.mrr.update(SCORES[users], TARGET[users], indexes=ids)
        self.log("mrr", self.mrr)


class Dealt(Users):
    """The items are dealt over batches, and the same users are counted in each: nothing is wrong."""

    def validation_step(self, items: Tensor, batch_idx: int) -> None:
        ids = torch.arange(3)[:, None].expand(-1, len(items))
        relevant = items % torch.tensor([[2], [3], [5]]) < 2
        self.mrr.update(SCORES[items, :3].T, relevant.long(), indexes=ids)
        self.log("mrr", self.mrr)


class CountedByData(Counted):
    def validation_step(self, users: Tensor, batch_idx: int) -> None:
        users = users[TARGET[users].any(dim=1)]
        self.mrr.update(SCORES[users], TARGET[users], indexes=users[:, None].expand(-1, CANDIDATES))
        self.log("mrr", self.mrr)


def test_users_that_are_counted_once_some_are_left_out_are_told_apart(pools: Mapping[int, Pool]) -> None:
    [right], [shown] = on_ranks(pools[1], CountedByData), on_ranks(pools[1], Counted, "correct")
    assert shown.numbers == pytest.approx(right.numbers, abs=1e-6)
    assert shown.corrected == [("LRG301", True)]


def test_as_many_on_one_rank_in_every_batch_are_in_doubt(pools: Mapping[int, Pool]) -> None:
    for before, shown in zip(on_ranks(pools[2], Counted), on_ranks(pools[2], Counted, "correct"), strict=True):
        assert shown.numbers["mrr"] == before.numbers["mrr"]
        assert [(finding.code, finding.severity.value) for finding in shown.found] == [("LRG301", "warning")]
        assert "got 17 queries, one for some samples, under at most" in shown.found[0].message


@pytest.mark.parametrize("world_size", [1, 2])
def test_users_that_are_the_same_in_every_batch_are_not(pools: Mapping[int, Pool], world_size: int) -> None:
    assert not any(shown.found for shown in on_ranks(pools[world_size], Dealt, "correct"))


IMAGES, CAPTIONS = 24, 5
IMAGE = torch.randn(IMAGES, 4, generator=_random)
CAPTION = IMAGE.repeat_interleave(CAPTIONS, dim=0) + 0.9 * torch.randn(IMAGES * CAPTIONS, 4, generator=_random)


class Pictures(LightningModule):
    """Images with five captions each, both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.to_text, self.to_image = RetrievalMRR(), RetrievalMRR()

    def val_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(IMAGES), batch_size=BATCH)

    def feed(self, images: Tensor, is_counted: bool) -> None:
        captions = (images[:, None] * CAPTIONS + torch.arange(CAPTIONS)).flatten()
        scores = (IMAGE[images] @ CAPTION[captions].T).sigmoid()
        relevant = (images[:, None] == captions // CAPTIONS).long()
        of_image = torch.arange(len(images)) if is_counted else images
        of_caption = torch.arange(len(captions)) if is_counted else captions
        self.to_text.update(scores, relevant, indexes=of_image[:, None].expand_as(scores))
        self.to_image.update(scores.T, relevant.T, indexes=of_caption[:, None].expand_as(scores.T))
        self.log_dict({"text": self.to_text, "image": self.to_image})


class OfOneRank(Pictures):
    """Each rank's images against the captions of these."""

    is_counted = False

    def validation_step(self, images: Tensor, batch_idx: int) -> None:
        self.seen.append(images)

    def on_validation_epoch_end(self) -> None:
        self.feed(torch.cat(self.seen), self.is_counted)
        self.seen.clear()


class OfOneRankCounted(OfOneRank):
    is_counted = True


class OfOneBatch(Pictures):
    """Captions counted in batches of one size."""

    def validation_step(self, images: Tensor, batch_idx: int) -> None:
        self.feed(images, True)


def test_captions_of_one_rank_are_candidates_of_one_shard(pools: Mapping[int, Pool]) -> None:
    for shown in on_ranks(pools[2], OfOneRank, "correct"):
        assert {(finding.code, finding.key) for finding in shown.found} == {("LRG305", "text"), ("LRG305", "image")}
        messages = {finding.key: finding.message for finding in shown.found}
        assert "at most 60 candidates, those of its own rank, of 120 on all ranks" in messages["text"]
        assert "at most 12 candidates, those of its own rank, of 24 on all ranks" in messages["image"]
    assert not on_ranks(pools[1], OfOneRank, "correct")[0].found


def test_where_they_are_counted_too_the_number_stays(pools: Mapping[int, Pool]) -> None:
    """Kept apart, the queries of a rank would still have the candidates of one shard."""
    plain = on_ranks(pools[2], OfOneRankCounted)
    for before, shown in zip(plain, on_ranks(pools[2], OfOneRankCounted, "correct"), strict=True):
        assert shown.numbers == pytest.approx(before.numbers)
        assert shown.corrected == [("LRG301", False), ("LRG301", False)]


@pytest.mark.parametrize("world_size", [1, 2])
def test_several_queries_on_the_diagonal_of_each_sample_are_counted(pools: Mapping[int, Pool], world_size: int) -> None:
    plain = on_ranks(pools[world_size], OfOneBatch)
    for before, shown in zip(plain, on_ranks(pools[world_size], OfOneBatch, "correct"), strict=True):
        assert [(finding.key, finding.corrected) for finding in shown.found] == [("text", True), ("image", False)]
        assert {finding.code for finding in shown.found} == {"LRG301"}
        assert shown.numbers["image"] == before.numbers["image"]
        assert "got 120 queries, 5 for each sample, under at most 20 ids" in shown.found[1].message


class CountedOn(Users):
    """Each rank counts the users that remain through its epoch, from zero."""

    def on_validation_epoch_start(self) -> None:
        self.count = 0

    def validation_step(self, users: Tensor, batch_idx: int) -> None:
        users = users[TARGET[users].any(dim=1)]
        ids = (torch.arange(len(users)) + self.count)[:, None].expand(-1, CANDIDATES)
        self.count += len(users)
        self.mrr.update(SCORES[users], TARGET[users], indexes=ids)
        self.log("mrr", self.mrr)


class CountedOnApart(CountedOn):
    """From another number on each rank: nothing is wrong."""

    def on_validation_epoch_start(self) -> None:
        self.count = 1000 * self.trainer.global_rank


class CountedOfAll(Users):
    """Those of all ranks, gathered in the step."""

    def validation_step(self, users: Tensor, batch_idx: int) -> None:
        users = self.all_gather(users).flatten()
        users = users[TARGET[users].any(dim=1)]
        ids = torch.arange(len(users))[:, None].expand(-1, CANDIDATES)
        self.mrr.update(SCORES[users], TARGET[users], indexes=ids)
        self.log("mrr", self.mrr)


def test_users_that_ranks_count_once_some_are_left_out_are_a_warning(pools: Mapping[int, Pool]) -> None:
    plain = on_ranks(pools[2], CountedOn)
    for before, shown in zip(plain, on_ranks(pools[2], CountedOn, "correct"), strict=True):
        assert shown.numbers["mrr"] == pytest.approx(before.numbers["mrr"])
        assert [(finding.code, finding.severity.value) for finding in shown.found] == [("LRG301", "warning")]
    for program in (CountedOn, CountedOnApart):
        assert not on_ranks(pools[1], program, "correct")[0].found
    assert not any(shown.found for shown in on_ranks(pools[2], CountedOnApart, "correct"))


def test_nothing_is_called_the_reference_where_gathered_users_are_counted(pools: Mapping[int, Pool]) -> None:
    plain = on_ranks(pools[2], CountedOfAll)
    for before, shown in zip(plain, on_ranks(pools[2], CountedOfAll, "correct"), strict=True):
        assert shown.numbers["mrr"] == pytest.approx(before.numbers["mrr"])
        assert {finding.code for finding in shown.found} == {"LRG201", "LRG301"}
        assert not [finding for finding in shown.findings if finding.effect is not None or finding.corrected]


class Averaged(Users):
    """The mean of each batch counts by its users: right, though ids of the batch restart in the metric."""

    def validation_step(self, users: Tensor, batch_idx: int) -> None:
        users = users[TARGET[users].any(dim=1)]
        ids = torch.arange(len(users))[:, None].expand(-1, CANDIDATES)
        value = self.mrr(SCORES[users], TARGET[users], indexes=ids)
        # a float, or Lightning floors the mean of the ranks
        self.log("mrr", value, batch_size=float(len(users)), on_epoch=True, sync_dist=True)


@pytest.mark.parametrize("world_size", [1, 2])
def test_right_means_over_such_batches_stay(pools: Mapping[int, Pool], world_size: int) -> None:
    plain = on_ranks(pools[world_size], Averaged)
    for before, shown in zip(plain, on_ranks(pools[world_size], Averaged, "correct"), strict=True):
        assert shown.numbers["mrr"] == pytest.approx(before.numbers["mrr"])
        assert not shown.found
