"""A batch may come in several updates, one for each query or for parts of queries; its ids are looked at together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from .harness import Pool
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(120)

SAMPLES, BATCH, CANDIDATES = 22, 4, 5
_random = torch.Generator().manual_seed(1)
SCORES = torch.rand(SAMPLES, CANDIDATES, generator=_random) + 0.01
# of a few queries over documents that are dealt over batches
POOL = torch.rand(BATCH, SAMPLES, generator=_random) + 0.01
# of all samples against all
PAIRS = torch.rand(SAMPLES, SAMPLES, generator=_random) + 0.01
EXPECTED = float((1 / (1 + (SCORES[:, 1:] > SCORES[:, :1]).sum(dim=1))).mean())


class Program(LightningModule):
    """The first candidate of each sample is the right one."""

    samples = SAMPLES

    def __init__(self) -> None:
        super().__init__()
        self.mrr, self.seen = RetrievalMRR(), list[Tensor]()

    def val_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(self.samples), batch_size=BATCH)

    def update(self, sample: Tensor, query: int) -> None:
        """One query."""
        ids, target = torch.full((CANDIDATES,), query), torch.eye(CANDIDATES, dtype=torch.long)[0]
        self.mrr.update(SCORES[sample], target, indexes=ids)

    def update_parts(self, batch: Tensor, ids: Tensor) -> None:
        """Right and wrong candidates apart."""
        right, wrong = SCORES[batch, 0], SCORES[batch, 1:].flatten()
        self.mrr.update(right, torch.ones_like(batch), indexes=ids)
        self.mrr.update(wrong, torch.zeros(len(wrong)).long(), indexes=ids.repeat_interleave(CANDIDATES - 1))

    def update_directions(self, batch: Tensor, ids: Tensor, others: Tensor) -> None:
        """Every sample against its batch, and the other way round."""
        scores, eye = POOL[: len(batch), batch], torch.eye(len(batch), dtype=torch.long).flatten()
        self.mrr.update(scores.flatten(), eye, indexes=ids.repeat_interleave(len(batch)))
        self.mrr.update(scores.T.flatten(), eye, indexes=others.repeat_interleave(len(batch)))

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.evaluate(batch, batch_idx)
        self.log("mrr", self.mrr)

    def evaluate(self, batch: Tensor, batch_idx: int) -> None:
        raise NotImplementedError


class InBatch(Program):
    def evaluate(self, batch: Tensor, batch_idx: int) -> None:
        for query, sample in enumerate(batch):
            self.update(sample, query)


class OnRank(Program):
    """The hook counts the samples of its rank."""

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(batch)

    def on_validation_epoch_end(self) -> None:
        for query, sample in enumerate(torch.cat(self.seen)):
            self.update(sample, self.query(query, sample))
        self.log("mrr", self.mrr.compute())
        self.mrr.reset()

    def query(self, query: int, sample: Tensor) -> int:
        return query


class Parts(Program):
    def evaluate(self, batch: Tensor, batch_idx: int) -> None:
        self.update_parts(batch, torch.arange(len(batch)))


class Directions(Program):
    def evaluate(self, batch: Tensor, batch_idx: int) -> None:
        self.update_directions(batch, torch.arange(len(batch)), torch.arange(len(batch)))


class BothDirections(Program):
    """Ids for both directions: two for each sample."""

    def evaluate(self, batch: Tensor, batch_idx: int) -> None:
        self.update_directions(batch, torch.arange(len(batch)), torch.arange(len(batch)) + len(batch))


class AtOnce(Program):
    def evaluate(self, batch: Tensor, batch_idx: int) -> None:
        self.mrr.update(*at_once(batch, torch.arange(2 * len(batch))))


class Gathered(AtOnce):
    """The same with the samples of all ranks, on every rank."""

    def evaluate(self, batch: Tensor, batch_idx: int) -> None:
        all_ranks: Any = self.all_gather(batch)
        super().evaluate(all_ranks.flatten(), batch_idx)


class AtOnceOfData(Program):
    def evaluate(self, batch: Tensor, batch_idx: int) -> None:
        self.mrr.update(*at_once(batch, torch.cat([batch, batch + SAMPLES])))


class AtOnceByBatch(Program):
    """Right: nothing merges in the value of a batch."""

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        value = self.mrr(*at_once(batch, torch.arange(2 * len(batch))))
        self.log("mrr", value, sync_dist=True, batch_size=self.weight_of(batch))

    def weight_of(self, batch: Tensor) -> int:
        return len(batch)


class Nominal(AtOnceByBatch):
    """Each batch counts as a full one."""

    def weight_of(self, batch: Tensor) -> int:
        return BATCH


class OfData(Program):
    def evaluate(self, batch: Tensor, batch_idx: int) -> None:
        for sample in batch:
            self.update(sample, int(sample))


class OfDataInHook(OnRank):
    def query(self, query: int, sample: Tensor) -> int:
        return int(sample)


class PartsOfData(Program):
    def evaluate(self, batch: Tensor, batch_idx: int) -> None:
        self.update_parts(batch, batch)


class Unique(Program):
    """Ids that the step makes, and that count on."""

    def evaluate(self, batch: Tensor, batch_idx: int) -> None:
        for index, sample in enumerate(batch):
            self.update(sample, (batch_idx * BATCH + index) * self.trainer.world_size + self.global_rank)


class Dealt(Program):
    """As many queries as samples in a batch, each of which goes on from batch to batch."""

    samples = 16

    def evaluate(self, batch: Tensor, batch_idx: int) -> None:
        for query, scores in enumerate(POOL[:, batch]):
            self.mrr.update(scores, (batch % 3 == query % 3).long(), indexes=torch.full_like(batch, query))


def at_once(batch: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scores, eye = PAIRS[batch][:, batch], torch.eye(len(batch), dtype=torch.long).flatten()
    return torch.cat([scores, scores.T]).flatten(), eye.repeat(2), ids.repeat_interleave(len(batch))


WORLDS = pytest.mark.parametrize("world", [1, 2])


def found(pool: Pool, program: type[Program], mode: str) -> list[tuple[dict[str, float], list[tuple[str, str, bool]]]]:
    return [
        (one.numbers, [(finding.code, finding.severity.value, finding.corrected) for finding in one.found])
        for one in on_ranks(pool, program, mode)
    ]


@WORLDS
@pytest.mark.parametrize("program", [InBatch, OnRank])
def test_queries_that_were_counted_are_kept_apart(
    pools: Mapping[int, Pool], program: type[Program], world: int
) -> None:
    merges = world > 1 or program is InBatch
    for numbers, _ in found(pools[world], program, "none"):
        assert (numbers["mrr"] == pytest.approx(EXPECTED)) != merges
    for numbers, findings in found(pools[world], program, "correct"):
        assert numbers["mrr"] == pytest.approx(EXPECTED)
        assert findings == [("LRG301", "error", True)] * merges


@WORLDS
@pytest.mark.parametrize("program", [Parts, Directions, BothDirections, AtOnce])
def test_nothing_tells_parts_of_a_query_from_other_queries(
    pools: Mapping[int, Pool], program: type[Program], world: int
) -> None:
    ranks = zip(*(found(pools[world], program, mode) for mode in ("none", "correct")), strict=True)
    for (plain, _), (numbers, findings) in ranks:
        assert numbers == pytest.approx(plain)
        assert findings == [("LRG301", "warning", False)]


@WORLDS
@pytest.mark.parametrize("program", [OfData, OfDataInHook, PartsOfData, Unique, Dealt, AtOnceOfData, AtOnceByBatch])
def test_right_programs_are_silent(pools: Mapping[int, Pool], program: type[Program], world: int) -> None:
    ranks = zip(*(found(pools[world], program, mode) for mode in ("none", "correct")), strict=True)
    for (plain, _), (numbers, findings) in ranks:
        assert numbers == pytest.approx(plain)
        assert findings == []


@WORLDS
def test_the_weights_of_batches_are_corrected_as_ever(pools: Mapping[int, Pool], world: int) -> None:
    for (right, _), (numbers, findings) in zip(
        found(pools[world], AtOnceByBatch, "none"), found(pools[world], Nominal, "correct"), strict=True
    ):
        assert numbers == pytest.approx(right)
        assert findings == [("LRG102", "warning", True)]


def test_a_number_without_a_reference_stays_where_all_ranks_have_the_rows(pools: Mapping[int, Pool]) -> None:
    ranks = zip(*(found(pools[2], Gathered, mode) for mode in ("none", "correct")), strict=True)
    for (plain, _), (numbers, findings) in ranks:
        assert numbers == plain
        assert sorted(findings) == [("LRG201", "error", False), ("LRG301", "warning", False)]
