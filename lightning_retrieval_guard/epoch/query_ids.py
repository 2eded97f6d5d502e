"""What is seen of query ids: where they came from, and whether they number the samples of a batch or of a rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.query_chunks import QueryChunks, ranges_of
from lightning_retrieval_guard.epoch.row_table import RowTable

IdSource = Literal["counted", "data", "located"]
IdOrigin = Literal["data", "made", "collated", "opaque", "unknown"]

# relevant rows that must all stand on the diagonal of their blocks: by chance, one in 2^6 does at most
_ON_DIAGONAL = 6


@dataclass(frozen=True)
class IdFacts:
    """What one rank has seen of its query ids, where every update holds whole queries, one for each sample.

    Attributes:
        ids_origin: ``"data"`` where a column of the batches that torch collated holds the ids of every update, or those
            of the first were seen to be made of one;
            ``"made"`` where nothing in the batches does, so that the program made them; ``"collated"`` where a column
            holds them that a collate function of the program's may have made; ``"opaque"`` where such a function
            made batches of which not everything can be read.
        ids_counted: Whether the ids of the first update were seen to be counted from zero by the program.
        ids_consecutive: Whether the ids of every update are consecutive numbers.
        ids_begin_anew: Whether their smallest is the same in every update.
        ids_same: Whether all of them are.
        ids_overlap: Whether the ids of two updates are different ranges of consecutive numbers that overlap.
        ids_number_samples: Whether all updates together hold as many ids as this rank saw samples, in several batches.
    """

    ids_origin: IdOrigin = "unknown"
    ids_counted: bool = False
    ids_consecutive: bool = False
    ids_begin_anew: bool = False
    ids_same: bool = False
    ids_overlap: bool = False
    ids_number_samples: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class IdColumns:
    """The columns of one or more batches that a program can have taken ids from.

    Attributes:
        batches: For each batch its columns by their path.
        is_custom: Whether a collate function of the program's made the batches.
        is_opaque: Whether they hold more than tensors in which ids can be.
    """

    batches: Sequence[Mapping[str, Tensor]]
    is_custom: bool = False
    is_opaque: bool = False

    @classmethod
    def joined(cls, columns: Sequence[IdColumns]) -> IdColumns:
        """Those of several batches."""
        batches = [batch for one in columns for batch in one.batches]
        return cls(batches, any(one.is_custom for one in columns), any(one.is_opaque for one in columns))

    def holds(self, path: str, ids: Tensor, world_size: int) -> bool:
        """Whether a column holds all of some distinct ids, or these, gathered from all ranks, all of the column."""
        columns = [batch[path].detach().reshape(-1).cpu() for batch in self.batches if path in batch]
        if len(columns) != len(self.batches) or not columns:
            return False
        column = torch.cat(columns)
        column, ids = (column.double(), ids.double()) if column.is_floating_point() else (column.long(), ids)
        if ids.numel() <= column.numel():
            return bool(torch.isin(ids, column).all())
        # a step may have gathered the ids of all ranks, while the batch holds those of this one
        return ids.numel() <= world_size * column.numel() and bool(torch.isin(column, ids).all())

    @property
    def bytes(self) -> int:
        """What they keep in memory; a view keeps all that it is a part of."""
        storages = [column.untyped_storage() for batch in self.batches for column in batch.values()]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    @property
    def paths(self) -> list[str]:
        """The paths of all columns."""
        return list(self.batches[0]) if self.batches else []


@dataclass(frozen=True, slots=True)
class Batch:
    """What is known of the batches of one update.

    Attributes:
        samples: The samples that this rank saw since the update before; ``None`` for unknown.
        columns: Where ids can have come from; ``None`` for unknown.
        in_step: Whether a step ran.
        source: Where the ids were seen to come from: counted from zero, or made of the batch.
    """

    samples: int | None = None
    columns: IdColumns | None = None
    in_step: bool = True
    source: IdSource | None = None


def first_source(chunks: QueryChunks, batches: Sequence[Batch]) -> IdSource | None:
    """Where the ids of the first update were seen to come from."""
    return batches[int(chunks.update.min())].source


def look_at_ids(chunks: QueryChunks, batches: Sequence[Batch], count: int, world_size: int) -> IdFacts:
    """What is seen of the ids of whole queries, one for each sample.

    Args:
        chunks: The rows of each query in each update, not folded.
        batches: What is known of the batches of every update, the samples too.
        count: The batches that this rank has seen.
        world_size: The number of ranks.
    """
    ranges = torch.stack(ranges_of(chunks.query, chunks.update, len(batches)))
    low, high, queries = ranges[:, ranges[2] > 0]
    # distinct ids fill the range from the smallest to the largest only if they are consecutive
    if not bool((high - low + 1 == queries).all()):
        return IdFacts()
    distinct, source = chunks.query.unique_consecutive().numel(), first_source(chunks, batches)
    anew = bool((low == low[0]).all())
    samples = sum(batch.samples for batch in batches if batch.samples is not None)
    return IdFacts(
        ids_origin="data" if source == "data" else _origin(chunks, batches, world_size),
        ids_counted=source == "counted",
        ids_consecutive=True,
        ids_begin_anew=anew,
        ids_same=anew and bool((high == high[0]).all()),
        ids_overlap=_overlap(low, high),
        ids_number_samples=count > 1 and distinct == samples,
    )


def _overlap(low: Tensor, high: Tensor) -> bool:
    """Whether two different ranges share a number."""
    ranges = torch.stack([low, high], dim=1).unique(dim=0)
    # in order of their lower ends, a range overlaps one before where it begins below the highest end so far
    reached = ranges[:, 1].cummax(0).values
    return bool((ranges[1:, 0] <= reached[:-1]).any())


def is_diagonal(table: RowTable, queries: Tensor, each: int) -> bool:
    """Whether every update is a block of one row of candidates a query, the i-th relevant to the i-th, from any first.

    Where a sample has several queries, the i-th candidate is relevant to those of the i-th sample.

    Rows that are relevant to all queries of an update alike, such as the first of each, are not on a diagonal.

    Args:
        table: The rows.
        queries: The number of queries of every update, int64 of shape ``(updates,)``.
        each: How many queries a sample has.
    """
    sizes, has = table.sizes, queries > 0
    if table.scored or bool((sizes[has] % queries[has] != 0).any()):
        return False
    on_diagonal = torch.ones((), dtype=torch.bool, device=table.target.device)
    parts = (column.split(sizes.tolist()) for column in (table.target, table.query))
    for target, query, count in zip(*parts, queries.tolist(), strict=True):
        if count:
            block, ids = target.reshape(count, -1) > 0, query.reshape(count, -1)
            one_a_query = (block.sum(dim=1) == 1).all() & (ids == ids[:, :1]).all()
            place = block.int().argmax(dim=1)
            on_diagonal &= one_a_query & (place - place[0] == torch.arange(count, device=place.device) // each).all()
    return int((queries[has] // each - 1).sum()) >= _ON_DIAGONAL and bool(on_diagonal)


def _origin(chunks: QueryChunks, batches: Sequence[Batch], world_size: int) -> IdOrigin:
    """Whether one column held the ids of every update."""
    columns = [batch.columns for batch in batches if batch.columns is not None]
    if len(columns) < len(batches):
        return "unknown"
    is_custom, is_opaque = any(batch.is_custom for batch in columns), any(batch.is_opaque for batch in columns)
    order = torch.argsort(chunks.update, stable=True)
    counts = torch.bincount(chunks.update, minlength=len(batches)).tolist()
    holding: set[str] | None = None
    for id_columns, ids in zip(columns, chunks.query[order].split(counts), strict=True):
        if ids.numel():
            paths = id_columns.paths if holding is None else holding
            holding = {path for path in paths if id_columns.holds(path, ids, world_size)}
            if not holding:
                return "opaque" if is_opaque else "made"
    return "collated" if is_custom else "data"


def are_of_data(chunks: QueryChunks, batches: Sequence[Batch], world_size: int) -> bool:
    """Whether one column of the batches held the ids of every update, as far as the updates are kept apart."""
    return not chunks.folded and _origin(chunks, batches, world_size) == "data"
