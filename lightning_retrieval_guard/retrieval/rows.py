"""Rows of a retrieval metric, grouped into queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# constants of splitmix64 (Steele, Lea, Flood 2014), as signed 64-bit integers
_MIX_1 = -0x40A7B892E31B1A47
_MIX_2 = -0x6B2FB644ECCEEE15
_GOLDEN = -0x61C8864680B583EB


@dataclass(frozen=True)
class RowTable:
    """Rows in the order in which they came.

    Attributes:
        segment: Number of the metric life that a row belongs to, int64 of shape ``(rows,)``.
        update: Number of the update within all segments, int64 of shape ``(rows,)``.
        query: The query id that the program gave, int64 of shape ``(rows,)``.
        preds: Scores, floating point of shape ``(rows,)``.
        target: Relevance, integer or floating point of shape ``(rows,)``.
        updates: The number of updates.
    """

    segment: Tensor
    update: Tensor
    query: Tensor
    preds: Tensor
    target: Tensor
    updates: int

    def __len__(self) -> int:
        return self.query.numel()

    def take(self, rows: Tensor) -> RowTable:
        """The rows selected by a boolean mask or by positions."""
        return replace(
            self,
            segment=self.segment[rows],
            update=self.update[rows],
            query=self.query[rows],
            preds=self.preds[rows],
            target=self.target[rows],
        )


States = tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]


def build_table(segments: Sequence[States]) -> RowTable | None:
    """One table of the list states (ids, scores, relevance) of one or more metric lives; ``None`` without rows."""
    ids = [part for states in segments for part in states[0]]
    if not any(part.numel() for part in ids):
        return None
    sizes = [part.numel() for part in ids]
    owner = [number for number, states in enumerate(segments) for _ in states[0]]
    # Apple's device knows no float64, in which rows are compared
    device = ids[0].device if ids[0].device.type != "mps" else torch.device("cpu")
    counts = torch.tensor(sizes)
    rows = int(counts.sum())
    return RowTable(
        segment=torch.repeat_interleave(torch.tensor(owner), counts, output_size=rows).to(device),
        update=torch.repeat_interleave(torch.arange(len(sizes)), counts, output_size=rows).to(device),
        query=_cat(ids, device).long(),
        preds=_cat([part for states in segments for part in states[1]], device),
        target=_cat([part for states in segments for part in states[2]], device),
        updates=len(sizes),
    )


def _cat(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    return torch.cat([part.detach().reshape(-1).to(device) for part in parts])


@dataclass(frozen=True)
class Pieces:
    """The rows of one query in one update, for every query and update.

    Ordered by segment, query and update. All but ``order`` and ``of_row`` are int64 of shape ``(pieces,)`` on the
    CPU.

    Attributes:
        order: Positions of the rows, grouped by piece, shape ``(rows,)``.
        of_row: The piece of every row in ``order``, shape ``(rows,)``.
        segment: The metric life.
        query: The query id.
        update: The update.
        rows: The number of rows.
        relevant: The number of relevant rows.
        fingerprint: A sum over the rows, so that their order does not matter.
    """

    order: Tensor
    of_row: Tensor
    segment: Tensor
    query: Tensor
    update: Tensor
    rows: Tensor
    relevant: Tensor
    fingerprint: Tensor


def cut_pieces(table: RowTable) -> Pieces:
    """Group the rows of a table by segment, query and update."""
    order = torch.argsort(table.query, stable=True)
    order = order[torch.argsort(table.segment[order], stable=True)]
    segment, query, update = table.segment[order], table.query[order], table.update[order]
    starts = _changes(segment) | _changes(query) | _changes(update)
    of_row = torch.cumsum(starts, dim=0) - 1
    first = starts.nonzero().reshape(-1)
    sums = torch.zeros(3, first.numel(), dtype=torch.int64, device=order.device)
    relevant = (table.target[order] > 0).long()
    values = torch.stack([torch.ones_like(query), relevant, _row_hashes(table)[order]])
    sums.index_add_(1, of_row, values)
    rows, hits, prints = sums.cpu()
    return Pieces(order, of_row, segment[first].cpu(), query[first].cpu(), update[first].cpu(), rows, hits, prints)


def _changes(values: Tensor) -> Tensor:
    starts = torch.ones_like(values, dtype=torch.bool)
    starts[1:] = values[1:] != values[:-1]
    return starts


def _row_hashes(table: RowTable) -> Tensor:
    # adding zero makes -0.0 and 0.0 the same score
    scores = (table.preds.double() + 0.0).view(torch.int64)
    relevance = (table.target.double() + 0.0).view(torch.int64)
    mixed = mix(table.query)
    mixed = mix(mixed ^ scores)
    return mix(mixed ^ relevance)


def mix(values: Tensor) -> Tensor:
    """Spread the bits of int64 values, so that sums of them tell sets apart (splitmix64)."""
    mixed = values + _GOLDEN
    mixed = (mixed ^ _shift(mixed, 30)) * _MIX_1
    mixed = (mixed ^ _shift(mixed, 27)) * _MIX_2
    return mixed ^ _shift(mixed, 31)


def _shift(values: Tensor, bits: int) -> Tensor:
    # a logical shift: torch shifts the sign in
    return (values >> bits) & ((1 << (64 - bits)) - 1)
