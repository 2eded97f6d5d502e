"""True sizes: how many samples a batch holds, and how many the sampler repeated."""

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, Sampler, SequentialSampler

from lightning_retrieval_guard._compat import GuardError
from lightning_retrieval_guard.watch.batches import (
    BatchSize,
    LoaderFacts,
    Padding,
    ShardEdges,
    gives_equal_batches,
    leaves_of,
    measure_batch,
    padding_of,
)
from lightning_retrieval_guard.watch.stage import StageRecord

Pair = namedtuple("Pair", "left right")


@dataclass
class Graphs:
    nodes: torch.Tensor
    labels: torch.Tensor
    name: str = "x"


def loader(samples: int = 10, batch_size: int | None = 4, **changed: Any) -> DataLoader:
    return DataLoader(range(samples), batch_size=batch_size, **changed)


def size(batch: Any = None, index: int = 0, loader: Any = None, count: Any = None) -> BatchSize:
    given = torch.zeros(0) if batch is None else batch
    return measure_batch(given, [leaf for _, leaf in leaves_of(given)], index, LoaderFacts.of(loader), count)


@pytest.mark.parametrize(("index", "samples"), [(0, 4), (1, 4), (2, 2), (3, None)])
def test_the_loader_tells_the_size_of_each_batch(index: int, samples: int | None) -> None:
    batch = [torch.zeros(137, 3), torch.zeros(8)]  # the tensors disagree
    assert size(batch, index, loader()) == BatchSize(samples, 4, ((137, 3), (8,)))


def test_the_distributed_sampler_tells_the_share_of_the_rank() -> None:
    sampler = DistributedSampler(range(10), num_replicas=2, rank=1)
    assert size("text", 1, loader(sampler=sampler)) == BatchSize(1, 4, ())


def test_fewer_rows_than_the_loader_gave_make_it_uncertain() -> None:
    assert size(torch.zeros(3, 2), 0, loader()).samples is None
    assert size(torch.zeros(8, 2), 0, loader()).samples == 4  # two views a sample


def joined(items: Any) -> Any:
    """A collate function of the program's own."""
    return items[0]


@pytest.mark.parametrize(
    ("shapes", "batch_size", "samples"),
    [
        ([(4, 2), (4,)], 4, 4),
        ([(137, 2), (4,)], 4, 4),  # tokens and texts
        ([(9, 2), (9,)], 4, None),  # nodes of four graphs, or parts of four items
        ([(9, 2), (2, 30)], 4, None),  # nodes and edges
        ([(3, 2)], 4, None),  # one was left out
        ([], 4, 4),  # words alone
        ([(32, 5), (32,)], 1, None),  # a batch that is ready
        ([(32, 5), (1,)], 1, None),
        ([(1, 5), (1,)], 1, 1),
    ],
)
def test_a_collate_function_shows_whether_an_item_is_a_sample(
    shapes: list[tuple[int, ...]], batch_size: int, samples: int | None
) -> None:
    batches = loader(batch_size=batch_size, collate_fn=joined)
    found = size([torch.zeros(shape) for shape in shapes], 0, batches)
    assert found.samples == samples
    assert found.items == (None if shapes == [(3, 2)] else batch_size)


def test_a_sampler_repeats_items_of_any_number_of_samples() -> None:
    sampler = DistributedSampler(range(11), num_replicas=2, rank=0, shuffle=False)
    batches = DataLoader(range(11), batch_size=3, sampler=sampler, collate_fn=joined)
    loop = SimpleNamespace(_combined_loader=SimpleNamespace(flattened=[batches]))
    trainer = SimpleNamespace(_active_loop=loop, world_size=2, global_rank=0)
    stage = StageRecord("validate", 1)
    for index, nodes in enumerate([17, 9]):
        assert index == 0 or stage.padding() is None
        stage.start_batch(trainer, torch.zeros(nodes, 2), index, None, None, 256)
        assert stage.samples is None
    assert stage.padding() == Padding(1, 6, 2)


class InAnotherOrder(DistributedSampler):
    """Of the length that torch's has, and with other samples."""

    def __iter__(self):
        return iter(range(self.rank, len(self.dataset), self.num_replicas))


class OwnBatches(Sampler):
    def __iter__(self):
        return iter([[0, 1], [2]])

    def __len__(self) -> int:
        return 2


class OwnBatchSampler(BatchSampler):
    def __iter__(self):
        return iter([[0, 1], [2]])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(10))


@pytest.mark.parametrize(
    "other",
    [
        None,
        [torch.zeros(4, 2)],
        loader(batch_size=None),
        DataLoader(range(10), batch_sampler=OwnBatches()),
        DataLoader(range(10), batch_sampler=OwnBatchSampler(SequentialSampler(range(10)), 4, False)),
        DataLoader(Stream(), batch_size=4),
    ],
    ids=["none", "list", "no-batching", "own-batches", "own-batch-sampler", "iterable"],
)
def test_without_a_plain_loader_the_tensors_tell_it_where_they_agree(other: Any) -> None:
    assert size([torch.zeros(3, 2), torch.zeros(3)], 0, other) == BatchSize(3, None, ((3, 2), (3,)))
    assert size([torch.zeros(3, 2), torch.zeros(5)], 0, other).samples is None
    assert size("text", 0, other).samples is None


@pytest.mark.parametrize(
    "batch",
    [
        {"a": torch.zeros(3, 2), "b": [torch.zeros(5)]},
        (torch.zeros(3, 2), torch.tensor(1.0), ["text"], (torch.zeros(5), None)),
        Pair(torch.zeros(3, 2), {"x": torch.zeros(5)}),
        Graphs(torch.zeros(3, 2), torch.zeros(5)),
    ],
    ids=["dict", "tuple", "namedtuple", "dataclass"],
)
def test_tensors_are_found_in_nested_batches(batch: Any) -> None:
    assert size(batch).shapes == ((3, 2), (5,))
    assert size(batch).leading == (3, 5)


@pytest.mark.parametrize(
    ("batch_size", "explained"), [(3, True), (5, True), (8, True), (6, True), (7, False), (15, False), (16, False)]
)
def test_a_batch_explains_leading_sizes_their_sum_and_products_of_dimensions(batch_size: int, explained: bool) -> None:
    assert BatchSize(4, 4, ((3, 2), (5,))).explains(batch_size) is explained


def test_the_users_function_comes_first() -> None:
    assert size("graph", 0, loader(), len) == BatchSize(5, 4, ())
    assert size("", 0, None, len).samples == 0


@pytest.mark.parametrize("returned", [2.0, True, -1, None, torch.tensor(2), "2"])
def test_what_the_users_function_may_not_return_is_named(returned: Any) -> None:
    def count(batch: Any) -> Any:
        return returned

    with pytest.raises(GuardError) as caught:
        size("graph", count=count)
    text = str(caught.value)
    assert "batch_size_fn" in text
    assert "count" in text
    assert f"returned {returned!r} ({type(returned).__name__})" in text
    assert "as an int of 0 or more; call int(...)" in text


def test_an_error_of_the_users_function_is_named_and_kept() -> None:
    with pytest.raises(GuardError, match=r"raised KeyError: 'x'.*\(dict\).*as an int") as caught:
        size({"y": 1}, count=lambda batch: batch["x"])
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("samples", [1, 5, 7, 12])
def test_the_last_samples_of_the_padded_ranks_are_the_repeated_ones(world_size: int, samples: int) -> None:
    shares = [list(DistributedSampler(range(samples), world_size, r, shuffle=False)) for r in range(world_size)]
    padding = padding_of(loader(samples, sampler=DistributedSampler(range(samples), world_size, 0)))
    repeated = sum(map(len, shares)) - samples
    if not repeated:
        assert padding is None
        return
    assert padding == Padding(repeated, len(shares[0]), world_size)
    first = [padding.first_with_last_of(rank) for rank in range(world_size)]
    kept = [share if first[rank] is None else share[:-1] for rank, share in enumerate(shares)]
    assert sorted(sample for share in kept for sample in share) == list(range(samples))
    for rank, share in enumerate(shares):
        assert first[rank] is None or share[-1] == shares[first[rank]][0]
        assert padding.is_first_repeated(rank) is (rank in first)


def test_a_sampler_that_drops_or_is_another_repeats_nothing() -> None:
    assert padding_of(loader(7, sampler=DistributedSampler(range(7), 2, 0, drop_last=True))) is None
    assert padding_of(loader(7)) is None
    assert padding_of(None) is None
    held = DistributedSampler(range(7), 2, 0)
    assert padding_of(DataLoader(range(7), batch_sampler=BatchSampler(held, 2, False))) == Padding(1, 4, 2)
    padding = padding_of(DataLoader(range(7), batch_sampler=OwnBatchSampler(held, 2, False)))
    assert padding == Padding(1, 4, 2, is_ordered=False)
    assert [padding.first_with_last_of(rank) for rank in (0, 1)] == [None, None]
    assert not padding.is_first_repeated(0)
    assert padding_of(DataLoader(range(7), batch_sampler=OwnBatches())) is None
    assert padding_of(loader(7, sampler=InAnotherOrder(range(7), 2, 0))) is None


def test_only_a_distributed_sampler_is_certain_to_give_equal_batches() -> None:
    assert gives_equal_batches(loader(7, sampler=DistributedSampler(range(7), 2, 0)))
    assert not gives_equal_batches(loader(7))
    assert not gives_equal_batches(None)
    assert not gives_equal_batches(loader(7, sampler=InAnotherOrder(range(7), 2, 0)))


def test_lightnings_wrapper_deals_in_turns() -> None:
    wrapped = DistributedSamplerWrapper(SequentialSampler(range(7)), num_replicas=2, rank=0)
    assert padding_of(loader(7, sampler=wrapped)) == Padding(1, 4, 2)
    unrepeated = UnrepeatedDistributedSampler(range(7), 2, 0)
    assert padding_of(loader(7, sampler=unrepeated)) is None
    assert not gives_equal_batches(loader(7, sampler=unrepeated))


@pytest.mark.parametrize(
    ("batches", "count"),
    [([(4, 4), (4, 3)], 2), ([(4, 4), (4, None)], 0), ([(4, None), (4, 4)], 0), ([], 0)],
    ids=["known", "last of unknown size", "first of unknown size", "none"],
)
def test_a_shard_is_known_by_both_of_its_ends_or_by_none(batches: list[tuple[int, int | None]], count: int) -> None:
    edges = ShardEdges()
    for size, samples in batches:
        edges.note([torch.rand(size if samples is None else samples, 2)], samples)
    assert len(edges.fingerprints) == count
