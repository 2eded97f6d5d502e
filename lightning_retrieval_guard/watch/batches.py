"""True sizes: how many samples this rank's batch holds, and how many were repeated.

A sampler says what it repeats to give ranks equally many. Nothing tells it of an iterable data set. Where that deals in
turns and fills up with its first samples, as samplers do, the last samples of the last ranks equal the first samples of
the first ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, default_collate, default_convert

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard._compat import GuardError
from lightning_retrieval_guard.epoch.query_ids import IdColumns

_MOST_COLUMNS = 16  # side by side; more are features, not ids


@dataclass(frozen=True)
class BatchSize:
    """What is known about the size of one batch of this rank.

    Attributes:
        samples: The number of samples, or ``None`` where nothing makes it certain.
        nominal: The batch size that the loader was given, or ``None``.
        shapes: The first two sizes of every tensor in the batch.
        items: The items of the data set that the loader put into it, or ``None`` where that is not known. An item may
            be several samples.
    """

    samples: int | None
    nominal: int | None
    shapes: tuple[tuple[int, ...], ...]
    items: int | None = field(default=None, compare=False)

    @property
    def leading(self) -> tuple[int, ...]:
        """The leading size of every tensor in the batch."""
        return tuple(shape[0] for shape in self.shapes)

    def explains(self, batch_size: float) -> bool:
        """Whether the batch itself explains a batch size: a sum of leading sizes, or a product of dimensions."""
        sums = {sum(self.leading)}
        products = {shape[0] * shape[1] for shape in self.shapes if len(shape) > 1}
        return batch_size in sums | products | set(self.leading)


@dataclass(frozen=True)
class LoaderFacts:
    """What a dataloader shows of its batches.

    Attributes:
        batches: Its batch sampler, where that is torch's and counts samples.
        is_torchs: Whether it is a dataloader of torch.
        keeps_order: Whether the samples of a batch stand in it as the sampler gave them.
        is_dealt_by_data_set: Whether the data set decides which samples this rank gets, in that order.
        padding: What the sampler repeats.
    """

    batches: BatchSampler | None = None
    is_torchs: bool = False
    keeps_order: bool = False
    is_dealt_by_data_set: bool = False
    padding: Padding | None = None

    @classmethod
    def of(cls, loader: Any) -> LoaderFacts:
        """Those of a loader."""
        if not isinstance(loader, DataLoader):
            return cls(padding=padding_of(loader))
        is_iterable = isinstance(loader.dataset, IterableDataset)
        keeps_order = loader.collate_fn in (default_collate, default_convert)
        batches: Any = loader.batch_sampler
        return cls(
            batches if _is_plain(batches) and not is_iterable else None,
            True,
            keeps_order,
            is_iterable and keeps_order,
            padding_of(loader),
        )

    def sizes(self, batch_index: int) -> tuple[int | None, int | None]:
        """The batch size that the loader was given, and the samples that it puts into a batch."""
        if self.batches is None:
            return None, None
        sampler: Any = self.batches.sampler
        nominal = self.batches.batch_size
        left = len(sampler) - batch_index * nominal
        return nominal, min(nominal, left) if left > 0 else None


def _is_plain(batches: Any) -> bool:
    """Whether a batch sampler cuts what its sampler gives into batches."""
    return getattr(type(batches), "__iter__", None) is BatchSampler.__iter__


def measure_batch(
    batch: Any,
    tensors: Iterable[Tensor],
    batch_index: int,
    loader: LoaderFacts,
    batch_size_fn: Callable[[Any], int] | None,
) -> BatchSize:
    """Count the samples in a batch: by the user's function, else the loader and its sampler, else its tensors."""
    nominal, by_loader = loader.sizes(batch_index)
    shapes = tuple(tuple(tensor.shape[:2]) for tensor in tensors if tensor.ndim)
    if batch_size_fn is not None:
        return BatchSize(_by_function(batch, batch_size_fn), nominal, shapes, by_loader)
    leading = {shape[0] for shape in shapes}
    by_tensors = min(leading) if len(leading) == 1 else None
    if by_loader is None:
        return BatchSize(by_tensors, nominal, shapes, by_tensors if loader.keeps_order else None)
    # a collate function that leaves samples out makes the loader's count an upper bound only
    if by_tensors is not None and by_tensors < by_loader:
        return BatchSize(None, nominal, shapes)
    are_items = loader.keeps_order or not leading or _counts_items(leading, by_loader, nominal)
    return BatchSize(by_loader if are_items else None, nominal, shapes, by_loader)


def _counts_items(leading: set[int], items: int, nominal: int | None) -> bool:
    """Whether the tensors that a collate function of the program's made show that an item is a sample.

    An item may also be a graph with many nodes, or a batch that is ready. Of an item alone, any tensor may have size 1.
    """
    return leading == {items} or (items in leading and nominal != 1)


def _by_function(batch: Any, function: Callable[[Any], int]) -> int:
    name = getattr(function, "__qualname__", repr(function))
    try:
        size: Any = function(batch)
    except Exception as error:
        raise GuardError(
            f"batch_size_fn {name!r} raised {type(error).__name__}: {error}. It gets the batch as the step gets it"
            f" ({type(batch).__name__}) and must return the number of samples in it as an int."
        ) from error
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise GuardError(
            f"batch_size_fn {name!r} returned {size!r} ({type(size).__name__}). It must return the number of samples"
            " in the batch as an int of 0 or more; call int(...) on it where it is a tensor."
        )
    return size


def id_columns_of(batch: Any, leaves: Mapping[str, Tensor], loader: LoaderFacts) -> IdColumns | None:
    """Where in a batch a program can have taken query ids from; ``None`` where that is not known."""
    if not loader.is_torchs:
        return None
    columns = {path: column for leaf_path, leaf in leaves.items() for path, column in _columns_of(leaf_path, leaf)}
    is_custom = not loader.keeps_order
    return IdColumns((columns,), is_custom, is_opaque=is_custom and not _is_readable(batch))


def _columns_of(path: str, leaf: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The numbers of samples: one for each, or a few that stand side by side, such as a user's and an item's."""
    if leaf.is_complex() or leaf.dtype is torch.bool or leaf.layout is not torch.strided or not leaf.numel():
        return
    if leaf.ndim and leaf.numel() == len(leaf):
        yield path, leaf
    elif leaf.ndim == 2 and leaf.shape[1] <= _MOST_COLUMNS:
        for index, column in enumerate(leaf.unbind(1)):
            yield f"{path}[:, {index}]", column


def _is_readable(part: Any) -> bool:
    """Whether a batch holds tensors and texts alone: ids may stand in any other object."""
    if isinstance(part, Mapping):
        return all(map(_is_readable, part.values()))
    if isinstance(part, (list, tuple)):
        return all(map(_is_readable, part))
    return part is None or isinstance(part, (Tensor, str, bool))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested dictionaries, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _in_each(value.values())
    elif isinstance(value, (list, tuple)):
        yield from _in_each(value)


def _in_each(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        yield from tensors_in(value)


def bytes_of(tensor: Tensor) -> int:
    """The bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()


def leaves_of(batch: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch, each with its path."""
    if isinstance(batch, Tensor):
        yield path, batch
        return
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(batch, Mapping):
        parts = batch.items()
    elif isinstance(batch, (list, tuple)):
        parts = enumerate(batch)
    elif is_dataclass(batch) and not isinstance(batch, type):
        parts = ((field.name, getattr(batch, field.name)) for field in fields(batch))
    for name, part in parts:
        yield from leaves_of(part, f"{path}/{name}")


@dataclass(frozen=True)
class Padding:
    """What a distributed sampler repeated to give every rank the same number of samples.

    Attributes:
        repeated: Samples that are repeated, over all ranks.
        samples: Samples that one rank gets, repeated ones included.
        world_size: The number of ranks that the sampler serves.
        is_ordered: Whether the samples come as the sampler deals them, so that it is known which one is repeated.
    """

    repeated: int
    samples: int
    world_size: int
    is_ordered: bool = True

    def first_with_last_of(self, rank: int) -> int | None:
        """The rank that has the last sample of ``rank`` as its first one, or ``None`` where that is not repeated.

        The sampler deals the samples to the ranks in turns, and then deals the first ones again.
        """
        if not self.is_ordered:
            return None
        number = rank - (self.world_size - self.repeated)
        distinct = self.samples * self.world_size - self.repeated
        return number % distinct if number >= 0 else None

    def is_first_repeated(self, rank: int) -> bool:
        """Whether another rank ends on the first sample of ``rank``."""
        return any(self.first_with_last_of(other) == rank for other in range(self.world_size))


def padding_of(loader: Any | None) -> Padding | None:
    """The padding of the loader's sampler, or ``None`` where it repeats nothing.

    A batch sampler of the program's may hold the sampler, and may put its samples in another order.
    """
    sampler: Any = getattr(loader, "sampler", None)
    is_ordered = _compat.deals_in_turns(sampler)
    if not is_ordered:
        batches = getattr(loader, "batch_sampler", None)
        sampler = getattr(batches, "sampler", None)
        is_ordered = _is_plain(batches)
    if not _compat.deals_in_turns(sampler) or sampler.drop_last:
        return None
    repeated = sampler.total_size - len(sampler.dataset)
    return Padding(repeated, sampler.num_samples, sampler.num_replicas, is_ordered) if repeated > 0 else None


def gives_equal_batches(loader: Any | None) -> bool:
    """Whether every rank is certain to see batches of the same sizes in the same order."""
    return _compat.deals_in_turns(getattr(loader, "sampler", None))


@dataclass
class ShardEdges:
    """The first and the last sample that an iterable data set gave this rank, as they came in their batches.

    Attributes:
        first: Of the first sample; ``None`` before it has come.
        last: Of the last one so far.
    """

    first: list[Tensor] | None = None
    last: list[Tensor] = field(default_factory=list)

    def note(self, tensors: Iterable[Tensor], samples: int | None) -> None:
        """Take in a batch, without a wait for its device."""
        columns = [tensor for tensor in tensors if tensor.ndim and len(tensor) == samples]
        if self.first is None:
            self.first = [column[0].clone() for column in columns]
        self.last = [column[-1].clone() for column in columns]

    @property
    def fingerprints(self) -> list[str]:
        """Of the first and the last sample; nothing where either holds no tensor. Waits for the device."""
        return [_fingerprint(self.first), _fingerprint(self.last)] if self.first and self.last else []


def _fingerprint(tensors: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(bytes(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).tolist()))
    return digest.hexdigest()[:32]
