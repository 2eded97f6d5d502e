"""What the lengths of lists of candidates tell: whether these are the samples of a batch or of a rank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.query_chunks import Queries, QueryChunks
from lightning_retrieval_guard.epoch.row_table import RowTable


def list_samples(table: RowTable, chunks: QueryChunks, sampled: Tensor | None) -> bool:
    """Whether each query of a batch has exactly as many rows as the batch has samples."""
    if sampled is None or (chunks.folded and table.updates > 1):
        return False
    update = chunks.update if not chunks.folded else torch.zeros_like(chunks.update)
    return bool((chunks.rows == sampled[update]).all())


def list_shard(table: RowTable, queries: Queries, shards: Sequence[int]) -> bool:
    """Whether each query has exactly as many rows as this rank saw samples of a dataloader, or candidates for them.

    Such as the captions of images: each query is a sample with as many relevant rows as any other, all in one list.
    """
    count = queries.query.numel()
    of_samples = count in shards and bool((queries.relevant * count == queries.rows).all())
    return _list_any(queries.rows, shards) or (of_samples and _share_out(table, queries.rows))


def _share_out(table: RowTable, rows: Tensor) -> bool:
    """Whether all queries have one list, of which each row is relevant to one of them: by chance, no labels are."""
    count = rows.numel()
    if table.scored or not bool((rows == rows[0]).all()):
        return False
    relevant = table.target[table.query.argsort(stable=True)].reshape(count, -1) > 0
    return bool((relevant.sum(dim=0) == 1).all())


def list_others(queries: Queries, shards: Sequence[int]) -> bool:
    """Whether each sample of a dataloader is a query that has the others as candidates."""
    # a list of candidates of each sample, with one right one, may have that length by chance
    has_lists = bool((queries.relevant == 1).all())
    return not has_lists and queries.query.numel() in shards and _list_any(queries.rows + 1, [queries.query.numel()])


def _list_any(rows: Tensor, lengths: Sequence[int]) -> bool:
    return any(bool((rows == length).all()) for length in lengths)
