"""Rows of a retrieval metric, and the queries they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_retrieval_guard.retrieval.compaction import Lost
from lightning_retrieval_guard.retrieval.measures import Measure
from lightning_retrieval_guard.retrieval.values import Values

# constants of splitmix64 (Steele, Lea, Flood 2014), as signed 64-bit integers
_MIX_1 = -0x40A7B892E31B1A47
_MIX_2 = -0x6B2FB644ECCEEE15
_GOLDEN = -0x61C8864680B583EB

# rows looked at together: what is worked out for each of them then takes no memory to speak of
_CHUNK = 1 << 16
_BUFFER = 1 << 18

_INT32 = torch.iinfo(torch.int32)


Rows = tuple[Tensor, Tensor, Tensor]
States = tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Digest:
    """What is known of an update of which not all rows were kept.

    Attributes:
        pieces: Query id, rows, relevant rows and fingerprint of every query, int64 of shape ``(4, queries)`` on the
            CPU, in ascending order of id.
        lost: What was left out.
        values: What each measure made of the queries, by their places in ``pieces``, where no rows were kept at all.
        low: Whether any relevant row had a score of zero or less.
    """

    pieces: Tensor
    lost: Lost | None
    values: Mapping[Measure, Values] | None = None
    low: bool = False

    @property
    def rows(self) -> int:
        """The number of rows that the update had."""
        return int(self.pieces[1].sum())


@dataclass(frozen=True)
class Settled:
    """What is known of an update that was a whole metric life in a run of one process, so that nothing can add to it.

    Attributes:
        rows: The rows that it had.
        queries: The distinct ids among them.
        longest: The most rows of a query.
        full: Whether each query had two rows or more and one relevant row or more.
        values: What each measure made of them all, and of how many queries.
    """

    rows: int
    queries: int
    longest: int
    full: bool
    values: Mapping[Measure, tuple[float, int]]


@dataclass(frozen=True)
class RowTable:
    """Rows in the order in which they came.

    Attributes:
        query: The query id that the program gave, int64 or int32 of shape ``(rows,)``.
        preds: Scores, floating point of shape ``(rows,)``.
        target: Relevance, integer or floating point of shape ``(rows,)``; int8 for nothing but 0 and 1.
        ends: The number of rows up to the end of every update, int64 of shape ``(updates,)`` on the rows' device.
        segments: The metric life of every update, ascending from zero, int64 of shape ``(updates,)`` on the CPU.
        digests: What is known of updates whose rows are not all here.
        settled: What is known of updates of which nothing else was kept.
    """

    query: Tensor
    preds: Tensor
    target: Tensor
    ends: Tensor
    segments: Tensor
    digests: Mapping[int, Digest] = field(default_factory=dict)
    settled: Mapping[int, Settled] = field(default_factory=dict)

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
        known: Mapping[int, Digest | Settled] = {**self.digests, **self.settled}
        for update, own in known.items():
            sizes[update] = own.rows
        return sizes

    @property
    def is_scored(self) -> bool:
        """Whether values have taken the place of some rows."""
        return bool(self.settled) or any(digest.values is not None for digest in self.digests.values())

    @property
    def lives(self) -> int:
        """The number of metric lives."""
        return int(self.segments[-1]) + 1

    def update_of(self, first: int, last: int) -> Tensor:
        """The number of the update of the rows from ``first`` to ``last``, int64 of shape ``(last - first,)``."""
        places = torch.arange(first, last, device=self.ends.device)
        return torch.searchsorted(self.ends, places, right=True)

    def without_last_row(self) -> RowTable:
        """All rows but the last."""
        return self._kept(slice(len(self) - 1), 1)

    def without_last_query(self) -> RowTable:
        """All rows but those of the last row's query in the last update."""
        start = int(self.ends[-2]) if self.updates > 1 else 0
        keep = torch.ones_like(self.query, dtype=torch.bool)
        keep[start:] = self.query[start:] != self.query[-1]
        return self._kept(keep, int((~keep).sum()))

    def repeated(self, copies: int) -> RowTable:
        """The rows of every update as often as told, as torchmetrics joins those of several ranks."""
        if copies == 1:
            return self
        rows = torch.arange(len(self), device=self.ends.device).tensor_split(self.ends[:-1].cpu())
        order = torch.cat([own.repeat(copies) for own in rows])
        columns = {name: getattr(self, name)[order] for name in ("query", "preds", "target")}
        return replace(self, **columns, ends=self.ends * copies)

    def _kept(self, rows: Tensor | slice, dropped: int) -> RowTable:
        ends = self.ends.clone()
        ends[-1] -= dropped
        return replace(self, query=self.query[rows], preds=self.preds[rows], target=self.target[rows], ends=ends)


def build_table(segments: Sequence[States], known: Mapping[int, Digest | Settled] | None = None) -> RowTable | None:
    """One table of the list states (ids, scores, relevance) of one or more metric lives; ``None`` without rows.

    Args:
        segments: The lives.
        known: What is known of updates whose rows are not all there, by their numbers over all lives.
    """
    ids = [part for states in segments for part in states[0]]
    known = known or {}
    if not known and not any(part.numel() for part in ids):
        return None
    sizes = torch.tensor([part.numel() for part in ids])
    owner = [number for number, states in enumerate(segments) for _ in states[0]]
    # Apple's device knows no float64, in which rows are compared
    device = ids[0].device if ids[0].device.type != "mps" else torch.device("cpu")
    return RowTable(
        query=_cat(ids, device, torch.int32, _INT32.min, _INT32.max),
        preds=_cat([part for states in segments for part in states[1]], device),
        target=_cat([part for states in segments for part in states[2]], device, torch.int8, 0, 1),
        ends=sizes.cumsum(0).to(device),
        segments=torch.tensor(owner),
        digests={update: own for update, own in known.items() if isinstance(own, Digest)},
        settled={update: own for update, own in known.items() if isinstance(own, Settled)},
    )


def _cat(
    parts: Sequence[Tensor], device: torch.device, narrow: torch.dtype | None = None, low: int = 0, high: int = 0
) -> Tensor:
    """All parts in one, as they are or, where that makes a copy, in a narrow dtype if all values lie in its bounds."""
    flat = [part.detach().reshape(-1).to(device) for part in parts]
    full = [part for part in flat if part.numel()] or flat[:1]
    if len(full) == 1 and all(part.dtype == full[0].dtype for part in flat):
        return full[0]  # a copy would take as much memory again
    if narrow is None or device.type != "cpu" or not all(_lies_within(part, low, high) for part in full):
        return torch.cat(flat)
    joined = torch.empty(sum(part.numel() for part in full), dtype=narrow)
    for place, part in zip(joined.split([part.numel() for part in full]), full, strict=True):
        place.copy_(part)
    return joined


def _lies_within(part: Tensor, low: int, high: int) -> bool:
    """Whether a part is one of integers, none of which is out of bounds."""
    if part.is_floating_point() or not part.numel():
        return not part.is_floating_point()
    least, most = part.aminmax()
    return low <= int(least) and int(most) <= high


@dataclass(frozen=True)
class Pieces:
    """The rows of one query in one update, for every query and update that is not settled.

    Ordered by query, segment and update; int64 of shape ``(pieces,)`` on the CPU.

    Attributes:
        query: The query id.
        segment: The metric life.
        update: The update.
        rows: The number of rows.
        relevant: The number of relevant rows.
        fingerprint: A sum over the rows, so that their order does not matter.
        folded: Whether the pieces of a query are one piece, because the updates tell nothing about ids.
        met: How many queries were folded together from several updates.
        parted: How many of them some update holds no relevant row of, while another does.
        widest: The most queries of any update.
    """

    query: Tensor
    segment: Tensor
    update: Tensor
    rows: Tensor
    relevant: Tensor
    fingerprint: Tensor
    folded: bool = False
    met: int = 0
    parted: int = 0
    widest: int = 0


def cut_pieces(table: RowTable, may_fold: bool = False) -> Pieces:
    """Group the rows of a table by query and update.

    Args:
        table: The rows.
        may_fold: Whether the updates of a query need not be told apart once one of them cannot be a whole query. Rows
            that are scattered over updates would else make almost as many pieces.
    """
    cutter = _Cutter(table, may_fold)
    for first, last, ends in _chunks(table):
        cutter.add(_join(_runs(table, first, last)), ends)
    for update, digest in table.digests.items():
        cutter.add(_known_runs(update, digest), True)
    return cutter.pieces()


class _Cutter:
    """Collects the pieces of one update after the other."""

    def __init__(self, table: RowTable, may_fold: bool) -> None:
        self._segments = table.segments
        self._may_fold = may_fold
        self._folded = False
        self._widest = 0
        self._parts: list[Tensor] = []
        # of updates that go on in the next chunk
        self._open: list[Tensor] = []
        self._limit = _BUFFER

    def add(self, part: Tensor, ends: bool) -> None:
        """Take in the pieces of a chunk, and whether the last of its updates ends there."""
        self._open.append(part)
        if not ends and sum(own.shape[1] for own in self._open) <= _BUFFER:
            return
        self._open = [_joined(self._open)]
        if ends:
            part = self._open.pop()
            self._widest = max(self._widest, int((part[1] - part[1].min()).bincount().max()))
            if self._may_fold and not self._folded and not are_full(part[2], part[3]):
                self._folded, self._parts = True, [self._fold(own) for own in self._parts]
            self._parts.append(self._fold(part) if self._folded else part)
            self._merge()

    def _merge(self) -> None:
        if self._folded and sum(own.shape[1] for own in self._parts) > self._limit:
            parts, self._parts = torch.cat(self._parts, dim=1), []
            self._parts = [_join(parts)]
            self._limit = max(_BUFFER, 4 * self._parts[0].shape[1])

    def _fold(self, part: Tensor) -> Tensor:
        """Pieces that tell metric lives apart and not updates, each counted, and counted as bare without a hit."""
        counts = torch.stack([torch.ones_like(part[3]), (part[3] == 0).long()])
        return torch.cat([part[:1], self._segments[part[1:2]], part[2:], counts])

    def pieces(self) -> Pieces:
        """All pieces."""
        parts = self._parts or [torch.zeros(5, 0, dtype=torch.int64)]
        if not self._folded:
            query, update, rows, relevant, fingerprint = _joined(parts)
            segment = self._segments[update]
            return Pieces(query, segment, update, rows, relevant, fingerprint, widest=self._widest)
        query, segment, rows, relevant, fingerprint, count, bare = _join(torch.cat(parts, dim=1))
        met, parted = int((count > 1).sum()), int(((bare > 0) & (relevant > 0)).sum())
        return Pieces(query, segment, segment, rows, relevant, fingerprint, True, met, parted, self._widest)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else _join(torch.cat(list(parts), dim=1))


def are_full(rows: Tensor, relevant: Tensor) -> bool:
    """Whether all pieces with so many rows could be whole queries: two rows or more and one relevant row or more."""
    return bool(((rows >= 2) & (relevant >= 1)).all())


def _chunks(table: RowTable) -> Iterator[tuple[int, int, bool]]:
    """Ranges of rows that no digest tells of, and whether an update ends with each of them."""
    begin = start = 0
    for number, end in enumerate(table.ends.tolist()):
        if number in table.digests or end - begin > _CHUNK:
            if start > begin:
                yield begin, start, True
            begin = start
        if number in table.digests:
            begin = end
        elif end - begin > _CHUNK:
            yield from ((first, last, last == end) for first, last in _cut(begin, end))
            begin = end
        start = end
    if start > begin:
        yield begin, start, True


def _cut(first: int, last: int) -> Iterator[tuple[int, int]]:
    for start in range(first, last, _CHUNK):
        yield start, min(start + _CHUNK, last)


def _known_runs(update: int, digest: Digest) -> Tensor:
    query, *counts = digest.pieces
    return torch.stack([query, torch.full_like(query, update), *counts])


def _runs(table: RowTable, first: int, last: int) -> Tensor:
    """What is known of neighbouring rows of one query: query, update, rows, relevant rows, fingerprint."""
    query, update = table.query[first:last].long(), table.update_of(first, last)
    begin = (_changes(query) | _changes(update)).nonzero().reshape(-1)
    end = torch.cat([begin[1:], begin.new_tensor([last - first])])
    relevant = (table.target[first:last] > 0).long()
    sums = [_between(relevant, begin, end), _between(_row_hashes(table, first, last), begin, end)]
    return torch.stack([query[begin], update[begin], end - begin, *sums]).cpu()


def _between(values: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    total = torch.nn.functional.pad(values.cumsum(0), (1, 0))
    return total[end] - total[begin]


def _join(runs: Tensor) -> Tensor:
    """Runs of the same query and update together, ordered by query and update."""
    query, update = runs[0], runs[1]
    order = None
    if bool((update.diff() < 0).any()):
        order = torch.argsort(update, stable=True)
        query = query[order]
    query, by_query = query.sort(stable=True)
    order = by_query if order is None else order[by_query]
    update = update[order]
    starts = _changes(query) | _changes(update)
    first = starts.nonzero().reshape(-1)
    if first.numel() == runs.shape[1]:
        return runs[:, order]
    # rows are added where they stand: in another order they would take as much memory again
    place = torch.empty_like(order).scatter_(0, order, torch.cumsum(starts, dim=0) - 1)
    joined = torch.zeros(len(runs), first.numel(), dtype=torch.int64)
    joined[0], joined[1] = query[first], update[first]
    joined[2:].index_add_(1, place, runs[2:])
    return joined


def _changes(values: Tensor) -> Tensor:
    starts = torch.ones_like(values, dtype=torch.bool)
    starts[1:] = values[1:] != values[:-1]
    return starts


def _row_hashes(table: RowTable, first: int, last: int) -> Tensor:
    # adding zero makes -0.0 and 0.0 the same score
    scores = (table.preds[first:last].double() + 0.0).view(torch.int64)
    relevance = (table.target[first:last].double() + 0.0).view(torch.int64)
    mixed = mix(table.query[first:last].long())
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
