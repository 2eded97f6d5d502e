"""What one rank tells the others about the rows of one metric, before any row travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_retrieval_guard.retrieval.rows import Pieces, RowTable, cut_pieces, mix


@dataclass(frozen=True)
class RowFacts:
    """Counts and evidence of one rank's rows.

    Attributes:
        updates: Updates since the last reset.
        rows: Rows held.
        queries: Distinct query ids, counted once per metric life.
        pieces: Distinct pairs of update and query id.
        id_min: Smallest query id.
        id_max: Largest query id.
        fingerprint: Of all rows; independent of their order.
        restarts: Queries that stand in several updates with different rows.
        one_query_a_sample: Every update holds as many queries as samples came in since the update before, each
            with two rows or more and one relevant row or more.
        one_query_a_global_sample: The same for the samples of all ranks together.
        one_row_a_sample: Every update holds as many rows as samples came in.
        ends_repeated: Whether the last sample of this rank is one that the sampler repeated.
        opaque: Whether only the metric's own ``compute()`` knows how to score.
        mean: Whether the value is a mean over queries.
        synchronises: Whether the program lets the metric combine ranks.
        single_life: Whether the rows stem from one metric life that spans the epoch.
    """

    updates: int = 0
    rows: int = 0
    queries: int = 0
    pieces: int = 0
    id_min: int = 0
    id_max: int = -1
    fingerprint: int = 0
    restarts: int = 0
    one_query_a_sample: bool = True
    one_query_a_global_sample: bool = True
    one_row_a_sample: bool = True
    ends_repeated: bool = False
    opaque: bool = False
    mean: bool = True
    synchronises: bool = True
    single_life: bool = True

    def to_message(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> RowFacts:
        """Read what ``to_message`` wrote."""
        return cls(**message)


@dataclass(frozen=True)
class Queries:
    """The queries of a table: pieces with the same metric life and id together.

    Attributes:
        of_piece: The query of every piece, int64 of shape ``(pieces,)``.
        segment: The metric life, int64 of shape ``(queries,)``.
        query: The id, of the same shape.
        rows: The number of rows, of the same shape.
        fingerprint: Independent of the order of the rows, of the same shape.
    """

    of_piece: Tensor
    segment: Tensor
    query: Tensor
    rows: Tensor
    fingerprint: Tensor


def join_pieces(pieces: Pieces) -> Queries:
    """Join the pieces of a query over all updates."""
    starts = torch.ones_like(pieces.query, dtype=torch.bool)
    starts[1:] = (pieces.query[1:] != pieces.query[:-1]) | (pieces.segment[1:] != pieces.segment[:-1])
    of_piece = torch.cumsum(starts, dim=0) - 1
    first = starts.nonzero().reshape(-1)
    sums = torch.zeros(2, first.numel(), dtype=torch.int64)
    sums.index_add_(1, of_piece, torch.stack([pieces.rows, pieces.fingerprint]))
    return Queries(of_piece, pieces.segment[first], pieces.query[first], sums[0], sums[1])


def gather_facts(
    table: RowTable | None,
    samples: Sequence[int | None],
    world_size: int,
    pieces: Pieces | None = None,
    **properties: bool,
) -> tuple[RowFacts, Pieces | None]:
    """The facts of a table.

    Args:
        table: The rows, or ``None``.
        samples: For every update, the samples that this rank saw since the update before; ``None`` for unknown.
        world_size: The number of ranks.
        pieces: The pieces of the table, where they were cut before.
        properties: The fields of ``RowFacts`` that the rows do not tell.
    """
    if table is None:
        return RowFacts(**properties), None
    pieces = pieces if pieces is not None else cut_pieces(table)
    queries = join_pieces(pieces)
    sampled = _known(samples, table.updates)
    queries_an_update = torch.bincount(pieces.update, minlength=table.updates)
    rows_an_update = torch.bincount(table.update, minlength=table.updates).cpu()
    full = bool(((pieces.rows >= 2) & (pieces.relevant >= 1)).all())
    facts = RowFacts(
        updates=table.updates,
        rows=len(table),
        queries=queries.query.numel(),
        pieces=pieces.query.numel(),
        id_min=int(queries.query.min()),
        id_max=int(queries.query.max()),
        fingerprint=int(mix(queries.fingerprint ^ mix(queries.segment)).sum()),
        restarts=_count_restarts(pieces, queries),
        one_query_a_sample=full and _same(queries_an_update, sampled),
        one_query_a_global_sample=full and sampled is not None and _same(queries_an_update, sampled * world_size),
        one_row_a_sample=_same(rows_an_update, sampled),
        **properties,
    )
    return facts, pieces


def _known(samples: Sequence[int | None], updates: int) -> Tensor | None:
    if len(samples) != updates or any(size is None for size in samples):
        return None
    return torch.tensor(samples, dtype=torch.int64)


def _same(counts: Tensor, wanted: Tensor | None) -> bool:
    return wanted is not None and bool((counts == wanted).all())


def _count_restarts(pieces: Pieces, queries: Queries) -> int:
    again = queries.of_piece[1:] == queries.of_piece[:-1]
    differs = pieces.fingerprint[1:] != pieces.fingerprint[:-1]
    return int(queries.of_piece[1:][again & differs].unique().numel())
