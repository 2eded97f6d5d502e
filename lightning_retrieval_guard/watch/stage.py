"""One stage of one epoch on this rank: its batches and its log calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import FlattenedCall
from lightning_retrieval_guard.epoch.query_ids import IdColumns
from lightning_retrieval_guard.watch.batches import (
    BatchSize,
    LoaderFacts,
    Padding,
    ShardEdges,
    id_columns_of,
    leaves_of,
    measure_batch,
)
from lightning_retrieval_guard.watch.held_rows import MEBIBYTE
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.torch_functions import FunctionObserver, IdSources, SampleMeans
from lightning_retrieval_guard.watch.update_context import Feed, Repeats, UpdateContext

_NO_BATCH = BatchSize(None, None, ())
# of what the guard may hold, for the columns that ids can have come from
_SHARE_OF_COLUMNS = 1 / 32


@dataclass
class _LoaderRecord:
    """What this rank has seen of one dataloader.

    Attributes:
        feed: The epoch and the dataloader.
        facts: What the dataloader shows of its batches.
        samples: Samples seen; ``None`` once a batch had an unknown size.
        items: Likewise, items of the data set.
        edges: The first and the last sample, where the data set deals samples.
    """

    feed: Feed
    facts: LoaderFacts = field(default_factory=LoaderFacts)
    samples: int | None = 0
    items: int | None = 0
    edges: ShardEdges | None = None

    def count(self, batch: BatchSize) -> None:
        """Take in the size of a batch."""
        self.samples = None if self.samples is None or batch.samples is None else self.samples + batch.samples
        self.items = None if self.items is None or batch.items is None else self.items + batch.items


@dataclass
class StageRecord:
    """What this rank has seen of one stage since the stage began.

    Attributes:
        stage: ``"train"``, ``"sanity_check"``, ``"validate"`` or ``"test"``.
        epoch: A number that no other epoch of the run has.
        keys: Log calls by Lightning's storage key, in order.
        batches: Batches seen.
        batch: The size of the batch at hand.
        dataloader: The dataloader at hand, where there are several.
        repeats: What of the batch at hand the sampler repeats.
        means: Notes numbers of the batch at hand, where one of its samples is repeated.
        id_sources: Knows where ids come from that the first batch, or the hook after the batches, has made.
        in_step: Whether a batch has begun whose epoch has not ended.
        fresh: Whether anything has happened since the ranks last met at the end of the batches.
        judged: Storage keys whose ranks have met already.
        running: The numbers of all epochs that run now.
        flattened: Calls of functional retrieval metrics with a batch of queries.
        logs_by_dataloader: Whether a metric object was logged for one of several dataloaders.
        results: Where Lightning keeps the logged values of the stage, once something was logged.
    """

    stage: str
    epoch: int
    running: Set[int] = frozenset()
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    batches: int = 0
    batch: BatchSize = _NO_BATCH
    dataloader: int | None = None
    repeats: Repeats | None = None
    means: SampleMeans | None = None
    id_sources: IdSources | None = None
    in_step: bool = False
    fresh: bool = True
    judged: set[str] = field(default_factory=set)
    logs_by_dataloader: bool = False
    results: Any = None
    flattened: dict[str, FlattenedCall] = field(default_factory=dict)
    _loaders: dict[int | None, _LoaderRecord] = field(default_factory=dict)
    # of every batch; None once one is not known, or where they would take too much memory
    _columns: list[IdColumns] | None = field(default_factory=list)
    _feeding: UpdateContext | None = None
    _column_bytes: int = 0
    # the most bytes that may be kept
    _limit: float = 0.0
    _in_batch: IdColumns | None = None

    def start_batch(
        self,
        trainer: Any,
        batch: Any,
        index: int,
        dataloader: int | None,
        batch_size_fn: Callable[[Any], int] | None,
        max_held_mb: float,
    ) -> None:
        """Take in a batch before the step sees it."""
        if dataloader not in self._loaders:
            self._loaders[dataloader] = self._begin(trainer, dataloader)
        loader, leaves = self._loaders[dataloader], dict(leaves_of(batch))
        self._feeding, self._limit = None, max_held_mb * MEBIBYTE
        self.in_step = self.fresh = True
        self.dataloader = dataloader
        self.batches += 1
        self.batch = measure_batch(batch, leaves.values(), index, loader.facts, batch_size_fn)
        self._keep_columns(id_columns_of(batch, leaves, loader.facts), _SHARE_OF_COLUMNS * self._limit)
        if loader.edges is not None:
            loader.edges.note(leaves.values(), self.batch.samples)
        self.id_sources = self._id_sources(leaves.values()) if self.batches == 1 else None
        self.repeats = self._find_repeats(trainer.global_rank, loader)
        self.means = None if self.repeats is None else SampleMeans(self.repeats.size, self._limit)
        loader.count(self.batch)

    def _begin(self, trainer: Any, dataloader: int | None) -> _LoaderRecord:
        facts = LoaderFacts.of(_compat.loader_at(trainer, dataloader))
        has_edges = facts.is_dealt_by_data_set and trainer.world_size > 1 and self.stage != "train"
        feed = Feed(self.epoch, self.stage, dataloader)
        return _LoaderRecord(feed, facts, edges=ShardEdges() if has_edges else None)

    def _find_repeats(self, rank: int, loader: _LoaderRecord) -> Repeats | None:
        """What of the batch at hand the sampler repeats; a collate function of the program's may order samples anew."""
        padding, size, before = loader.facts.padding, self.batch.samples, loader.samples
        if padding is None or not size or before is None or self.stage == "train" or not loader.facts.keeps_order:
            return None
        last_of = padding.first_with_last_of(rank) if before + size == padding.samples else None
        is_first = before == 0 and padding.is_first_repeated(rank)
        return Repeats(size, is_first, last_of) if is_first or last_of is not None else None

    def _keep_columns(self, columns: IdColumns | None, limit: float) -> None:
        self._column_bytes += 0 if columns is None else columns.bytes
        are_kept = columns is not None and self._column_bytes <= limit
        self._in_batch = columns if are_kept else None
        if columns is None or not are_kept or self._columns is None:
            self._columns = None
        else:
            self._columns.append(columns)

    def end_batches(self) -> None:
        """The batches are over; what is logged now belongs to the epoch."""
        self.in_step = self.fresh = False
        self.batch, self.repeats, self.means, self._feeding = _NO_BATCH, None, None, None
        self._in_batch = None if self._columns is None else IdColumns.joined(self._columns)
        columns = () if self._in_batch is None else self._in_batch.batches
        self.id_sources = self._id_sources(column for batch in columns for column in batch.values())

    def _id_sources(self, of_batch: Iterable[Tensor]) -> IdSources | None:
        """What sees where the program's ids come from; the program's collate function may have counted them."""
        if self.stage == "train":
            return None
        is_of_data = self._in_batch is not None and not self._in_batch.is_custom
        return IdSources(of_batch if is_of_data else (), self._limit)

    @property
    def samples(self) -> int | None:
        """Samples seen over all dataloaders; ``None`` where a batch had an unknown size."""
        counts = [loader.samples for loader in self._loaders.values() if loader.samples is not None]
        return sum(counts) if len(counts) == len(self._loaders) else None

    @property
    def feeding(self) -> UpdateContext:
        """What feeds metrics now; the same for a whole batch."""
        if self._feeding is not None:
            return self._feeding
        loader = self._loaders.get(self.dataloader) or _LoaderRecord(Feed(self.epoch, self.stage, self.dataloader))
        samples, size = loader.samples, self.batch.samples
        # the count holds the batch at hand already; what a hook feeds is of the whole epoch
        before = 0 if not self.in_step else None if samples is None or size is None else samples - size
        self._feeding = UpdateContext(
            loader.feed,
            samples,
            before,
            self.is_over,
            columns=self._in_batch,
            in_step=self.in_step,
            repeats=self.repeats,
            id_sources=self.id_sources,
            logs_by_dataloader=self.logs_by_dataloader,
        )
        return self._feeding

    def note_dataloader_of_object(self) -> None:
        """A metric object was logged for one of several dataloaders."""
        if not self.logs_by_dataloader:
            self.logs_by_dataloader, self._feeding = True, None

    @property
    def observers(self) -> list[FunctionObserver]:
        """What has to hear of the torch functions that the program calls now."""
        return [observer for observer in (self.means, self.id_sources) if observer is not None]

    def is_over(self, epoch: int | None) -> bool:
        """Whether an epoch began before this one and has ended."""
        return epoch is not None and epoch < self.epoch and epoch not in self.running

    @property
    def edges(self) -> list[str]:
        """Fingerprints of the first and the last sample, where the data set of the dataloader at hand deals samples."""
        loader = self._loaders.get(self.dataloader)
        return [] if loader is None or loader.edges is None else loader.edges.fingerprints

    @property
    def shards(self) -> tuple[int, ...]:
        """How many samples this rank has seen of each dataloader, where that is known."""
        return tuple(loader.samples for loader in self._loaders.values() if loader.samples)

    def pools_with_repeated(self, in_step: bool) -> tuple[int, ...]:
        """How many samples all ranks see of each dataloader that repeats some and can have been gathered whole."""
        loaders = [loader for key, loader in self._loaders.items() if not (in_step and key == self.dataloader)]
        paddings = [loader.facts.padding for loader in loaders if loader.facts.padding is not None]
        return tuple(padding.samples * padding.world_size for padding in paddings)

    def padding(self) -> Padding | None:
        """The padding of the dataloader at hand, if this rank has seen all that its sampler gives."""
        loader = self._loaders.get(self.dataloader)
        padding = loader.facts.padding if loader is not None else None
        return padding if loader is not None and padding is not None and loader.items == padding.samples else None
