"""Rows of a retrieval metric, and a number for each query, which tells those of metric lives or updates apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.values import Values

_INT32 = torch.iinfo(torch.int32)


UpdateRows = tuple[Tensor, Tensor, Tensor]
RowStates = tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class ScoredUpdate:
    """What is kept of an update whose rows are not: at most 64 bytes a query.

    Attributes:
        queries: Query id, rows, relevant rows and fingerprint of every query, int64 of shape ``(4, queries)`` on the
            CPU, in ascending order of id.
        values: What the metric made of the queries, by their positions; ``None`` where only its rows would tell.
    """

    queries: Tensor
    values: Values | None

    @property
    def rows(self) -> int:
        """The number of rows that the update had."""
        return int(self.queries[1].sum())

    @property
    def tensors(self) -> list[Tensor]:
        """Everything that takes memory."""
        values = self.values
        parts = [] if values is None else [values.values, values.position, values.by_score]
        return [self.queries, *(part for part in parts if part is not None)]


@dataclass(frozen=True)
class RowTable:
    """Rows in the order in which they came.

    Attributes:
        query: The query id that the program gave, int64 or int32 of shape ``(rows,)``.
        preds: Scores, floating point of shape ``(rows,)``.
        target: Relevance, integer or floating point of shape ``(rows,)``; int8 for nothing but 0 and 1.
        ends: The number of rows up to the end of every update, int64 of shape ``(updates,)`` on the rows' device.
        lives: The metric life of every update, ascending from zero, int64 of shape ``(updates,)`` on the CPU.
        scored: What is kept of updates whose rows are not here.
    """

    query: Tensor
    preds: Tensor
    target: Tensor
    ends: Tensor
    lives: Tensor
    scored: Mapping[int, ScoredUpdate] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.query.numel()

    @property
    def updates(self) -> int:
        """The number of updates."""
        return self.ends.numel()

    @property
    def sizes(self) -> Tensor:
        """The number of rows that every update had, int64 of shape ``(updates,)`` on the CPU."""
        sizes = self.ends.diff(prepend=self.ends.new_zeros(1)).cpu()
        for update, scored in self.scored.items():
            sizes[update] = scored.rows
        return sizes

    @property
    def life_count(self) -> int:
        """The number of metric lives."""
        return int(self.lives[-1]) + 1

    def rows_of(self, updates: range) -> slice:
        """Where the rows of neighbouring updates are."""
        first = int(self.ends[updates.start - 1]) if updates.start else 0
        return slice(first, int(self.ends[updates.stop - 1]))

    def without(self, rows: Tensor) -> RowTable:
        """All rows but some, given by a boolean mask."""
        # how many rows go up to the end of each update
        gone = torch.cat([rows.new_zeros(1, dtype=torch.int64), rows.cumsum(0)])[self.ends]
        columns = {name: getattr(self, name)[~rows] for name in ("query", "preds", "target")}
        return replace(self, **columns, ends=self.ends - gone)

    def repeated(self, copies: int) -> RowTable:
        """The rows of every update several times, as torchmetrics joins those of several ranks."""
        if copies == 1:
            return self
        # torchmetrics gathers every update by itself: the rows of all ranks in one update, then those in the next
        rows = torch.arange(len(self), device=self.ends.device).tensor_split(self.ends[:-1].cpu())
        order = torch.cat([update_rows.repeat(copies) for update_rows in rows])
        columns = {name: getattr(self, name)[order] for name in ("query", "preds", "target")}
        return replace(self, **columns, ends=self.ends * copies)


def build_table(lives: Sequence[RowStates], scored: Mapping[int, ScoredUpdate] | None = None) -> RowTable | None:
    """One table of the list states (ids, scores, relevance) of one or more metric lives; ``None`` without rows.

    Args:
        lives: The lives.
        scored: What is kept of updates whose rows are not there, by their numbers over all lives.
    """
    ids = [part for states in lives for part in states[0]]
    if not scored and not any(part.numel() for part in ids):
        return None
    sizes = torch.tensor([part.numel() for part in ids])
    owner = [number for number, states in enumerate(lives) for _ in states[0]]
    # Apple's device knows no float64, in which rows are compared
    device = ids[0].device if ids[0].device.type != "mps" else torch.device("cpu")
    return RowTable(
        query=_cat(ids, device, torch.int32, _INT32.min, _INT32.max),
        preds=_cat([part for states in lives for part in states[1]], device),
        target=_cat([part for states in lives for part in states[2]], device, torch.int8, 0, 1),
        ends=sizes.cumsum(0).to(device),
        lives=torch.tensor(owner),
        scored=scored or {},
    )


def _cat(
    parts: Sequence[Tensor], device: torch.device, narrow: torch.dtype | None = None, low: int = 0, high: int = 0
) -> Tensor:
    """All parts in one, as they are or, where that makes a copy, in a narrow dtype if all values lie in its bounds."""
    flat = [part.detach().reshape(-1).to(device) for part in parts]
    full = [part for part in flat if part.numel()] or flat[:1]
    if len(full) == 1 and all(part.dtype == full[0].dtype for part in flat):
        return full[0]  # a copy would take as much memory again
    # on a device, looking at the values would wait for it
    if narrow is None or device.type != "cpu" or not all(_lies_within(part, low, high) for part in full):
        return torch.cat(flat)
    joined = torch.empty(sum(part.numel() for part in full), dtype=narrow)
    for target, part in zip(joined.split([part.numel() for part in full]), full, strict=True):
        target.copy_(part)
    return joined


def _lies_within(part: Tensor, low: int, high: int) -> bool:
    """Whether a part is one of integers, none of which is out of bounds."""
    if part.is_floating_point() or not part.numel():
        return not part.is_floating_point()
    least, most = part.aminmax()
    return low <= int(least) and int(most) <= high


# above it numbers of queries might overflow int64
_LIMIT = 2**62


class QueryKeys:
    """Numbers of queries, ascending by metric life, or by update where ids restart, and then by id.

    Args:
        table: The rows.
        ids_restart: Whether ids restart, so that each update has queries of its own.
    """

    def __init__(self, table: RowTable, ids_restart: bool) -> None:
        self._table = table
        # the group of every update
        self._groups = torch.arange(table.updates) if ids_restart else table.lives
        self._lives = table.lives if ids_restart else torch.arange(table.life_count)
        self._are_ids = len(self._lives) == 1
        self._ids: Tensor | None = None
        if not self._are_ids:
            self._span_ids()

    def _span_ids(self) -> None:
        table = self._table
        scored = [update.queries[0].to(table.query.device) for update in table.scored.values()]
        held = [part for part in (table.query, *scored) if part.numel()]
        if not held:
            self._low, self._span = 0, 1
            return
        self._low = min(int(part.min()) for part in held)
        self._span = max(int(part.max()) for part in held) - self._low + 1
        if self._span * len(self._lives) >= _LIMIT:  # dense numbers in the place of ids that lie far apart
            self._ids = torch.cat(held).unique()
            self._span = self._ids.numel()

    def of_rows(self) -> Tensor:
        """For every row, int64 or int32 of shape ``(rows,)``."""
        table = self._table
        if self._are_ids:
            return table.query
        sizes = table.ends.diff(prepend=table.ends.new_zeros(1))
        groups = self._groups.to(sizes.device)
        return self._number(table.query, torch.repeat_interleave(groups, sizes, output_size=len(table)))

    def of(self, query: Tensor, update: int) -> Tensor:
        """For queries of one update, int64 of shape ``(queries,)``."""
        return query if self._are_ids else self._number(query, self._groups[update].to(query.device))

    def of_lives(self, query: Tensor, life: Tensor) -> Tensor:
        """For queries of some lives, int64 of the shape of ``query``; ids must not restart."""
        return self._number(query, life)

    def _number(self, query: Tensor, group: Tensor) -> Tensor:
        query = query.long()
        ids = query - self._low if self._ids is None else torch.searchsorted(self._ids.to(query.device), query)
        return group * self._span + ids

    def lives(self, numbers: Tensor) -> Tensor:
        """The metric lives of the queries with these numbers, int64 of the same shape."""
        return torch.zeros_like(numbers) if self._are_ids else self._lives[numbers // self._span]
