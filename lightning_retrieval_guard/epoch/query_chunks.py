"""The queries that rows belong to, as far as the updates that brought them show, and the bytes in which they travel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.row_table import RowTable, ScoredUpdate

# constants of splitmix64 (Steele, Lea, Flood 2014), as signed 64-bit integers
_MIX_1 = -0x40A7B892E31B1A47
_MIX_2 = -0x6B2FB644ECCEEE15
_GOLDEN = -0x61C8864680B583EB

# rows looked at together: what is worked out for each of them then takes little memory
_ROWS_AT_ONCE = 1 << 16
_BUFFER = 1 << 18

QUERY_BYTES = 32
ROW_BYTES = 12
_HALF = 32  # bits of a word


@dataclass(frozen=True)
class QueryChunks:
    """The rows of one query in one update, for every query and update.

    Ordered by query, life and update; int64 of shape ``(chunks,)`` on the CPU.

    Attributes:
        query: The query id.
        life: The metric life.
        update: The update.
        rows: The number of rows.
        relevant: The number of relevant rows.
        fingerprint: A sum over the rows, so that their order does not matter.
        folded: Whether the chunks of a query are one chunk, because the updates say nothing about ids.
        met: How many queries were folded together from several updates.
        parted: How many queries some update holds no relevant row of, while another does.
        widest: The most queries of any update.
    """

    query: Tensor
    life: Tensor
    update: Tensor
    rows: Tensor
    relevant: Tensor
    fingerprint: Tensor
    folded: bool = False
    met: int = 0
    parted: int = 0
    widest: int = 0


def cut_chunks(table: RowTable, may_fold: bool = False, most: Tensor | None = None) -> QueryChunks:
    """Group the rows of a table by query and update.

    Args:
        table: The rows.
        may_fold: Whether the updates of a query need not be kept apart once one of them cannot be a whole query, nor
            have ids that number samples. Rows that are scattered over updates would else make almost as many chunks.
        most: How many samples the ids of each update can number, int64 of shape ``(updates,)``; ``None`` if none.
    """
    cutter = _Cutter(table, may_fold, most)
    for first, last, ends in _row_ranges(table):
        cutter.add(_join(_runs(table, first, last)), ends)
    for update, scored in table.scored.items():
        cutter.add(_scored_runs(update, scored), True)
    return cutter.chunks()


class _Cutter:
    """Collects the chunks of one update after the other."""

    def __init__(self, table: RowTable, may_fold: bool, most: Tensor | None) -> None:
        self._lives = table.lives
        self._may_fold = may_fold
        self._most = most
        self._folded = False
        self._widest = 0
        self._parts: list[Tensor] = []
        # of updates that go on in the next range
        self._open: list[Tensor] = []
        self._limit = _BUFFER

    def add(self, part: Tensor, ends: bool) -> None:
        """Take in the chunks of a range of rows, and whether the last of its updates ends there."""
        self._open.append(part)
        # a long update is joined now and then, so that its parts do not pile up
        if not ends and sum(part.shape[1] for part in self._open) <= _BUFFER:
            return
        self._open = [_joined(self._open)]
        if ends:
            part = self._open.pop()
            self._widest = max(self._widest, int((part[1] - part[1].min()).bincount().max()))
            # one chunk that is no whole query: ids go on, and which update a row came with no longer matters
            if self._may_fold and not self._folded and not are_full(part[2], part[3]) and not self._may_number(part):
                self._folded, self._parts = True, [self._fold(earlier) for earlier in self._parts]
            self._parts.append(self._fold(part) if self._folded else part)
            self._merge()

    def _may_number(self, part: Tensor) -> bool:
        """Whether the ids of each update are consecutive, and no more than the samples that they can number."""
        if self._most is None:
            return False
        first, last = (int(bound) for bound in part[1].aminmax())
        low, high, count = ranges_of(part[0], part[1] - first, last - first + 1)
        may_number = (high - low + 1 == count) & (count <= self._most[first : last + 1])
        return bool((may_number | (count == 0)).all())

    def _merge(self) -> None:
        if self._folded and sum(part.shape[1] for part in self._parts) > self._limit:
            parts, self._parts = torch.cat(self._parts, dim=1), []
            self._parts = [_join(parts)]
            # joined again only once it is four times as long, so that all joins together stay linear
            self._limit = max(_BUFFER, 4 * self._parts[0].shape[1])

    def _fold(self, part: Tensor) -> Tensor:
        """Chunks of metric lives in place of updates, each counted, and counted as bare without a hit."""
        counts = torch.stack([torch.ones_like(part[3]), (part[3] == 0).long()])
        return torch.cat([part[:1], self._lives[part[1:2]], part[2:], counts])

    def chunks(self) -> QueryChunks:
        """All chunks."""
        parts = self._parts or [torch.zeros(5, 0, dtype=torch.int64)]
        if not self._folded:
            query, update, rows, relevant, fingerprint = _joined(parts)
            life = self._lives[update]
            parted = _count_parted(query, life, relevant)
            return QueryChunks(query, life, update, rows, relevant, fingerprint, parted=parted, widest=self._widest)
        query, life, rows, relevant, fingerprint, count, bare = _join(torch.cat(parts, dim=1))
        met, parted = int((count > 1).sum()), int(((bare > 0) & (relevant > 0)).sum())
        return QueryChunks(query, life, life, rows, relevant, fingerprint, True, met, parted, self._widest)


def ranges_of(query: Tensor, update: Tensor, updates: int) -> tuple[Tensor, Tensor, Tensor]:
    """Smallest id, largest id and number of queries of every update, from the chunks; zero for those without rows.

    Args:
        query: The id of each chunk.
        update: Its update.
        updates: The number of updates.
    """
    low, high = (
        torch.zeros(updates, dtype=torch.int64).scatter_reduce(0, update, query, how, include_self=False)
        for how in ("amin", "amax")
    )
    return low, high, torch.bincount(update, minlength=updates)


def _count_parted(query: Tensor, life: Tensor, relevant: Tensor) -> int:
    """Queries with a chunk without a relevant row, and with another that has one."""
    if bool((relevant > 0).all()):
        return 0
    number = torch.cumsum(_changes(query) | _changes(life), dim=0) - 1
    hits, misses = (number[part].unique() for part in (relevant > 0, relevant == 0))
    return int(torch.isin(hits, misses).sum())


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else _join(torch.cat(list(parts), dim=1))


def are_full(rows: Tensor, relevant: Tensor) -> bool:
    """Whether all chunks with so many rows could be whole queries: two rows or more and one relevant row or more."""
    return bool(((rows >= 2) & (relevant >= 1)).all())


def _row_ranges(table: RowTable) -> Iterator[tuple[int, int, bool]]:
    """Ranges of rows, and whether an update ends with each of them."""
    # short updates are looked at together, because each range is sorted by itself
    begin = start = 0
    for end in table.ends.tolist():
        if end - begin > _ROWS_AT_ONCE:
            if start > begin:
                yield begin, start, True
            begin = start
        if end - begin > _ROWS_AT_ONCE:
            yield from ((first, last, last == end) for first, last in _cut(begin, end))
            begin = end
        start = end
    if start > begin:
        yield begin, start, True


def _cut(first: int, last: int) -> Iterator[tuple[int, int]]:
    for start in range(first, last, _ROWS_AT_ONCE):
        yield start, min(start + _ROWS_AT_ONCE, last)


def _scored_runs(update: int, scored: ScoredUpdate) -> Tensor:
    query, *counts = scored.queries
    return torch.stack([query, torch.full_like(query, update), *counts])


def _runs(table: RowTable, first: int, last: int) -> Tensor:
    """What is known of neighbouring rows of one query: query, update, rows, relevant rows, fingerprint."""
    query = table.query[first:last]
    begin = _starts(query, table.ends, first).nonzero().reshape(-1)
    end = torch.cat([begin[1:], begin.new_tensor([last - first])])
    update = torch.searchsorted(table.ends, begin + first, right=True)
    relevant = _between(table.target[first:last] > 0, begin, end)
    fingerprint = _between(_row_hashes(table, first, last), begin, end)
    return torch.stack([query[begin].long(), update, end - begin, relevant, fingerprint]).cpu()


def _starts(query: Tensor, ends: Tensor, first: int) -> Tensor:
    """Which rows have another query or update than the row before."""
    starts = _changes(query)
    # only the ends of updates inside the range matter, and an update begins where the one before ends
    inner = ends.new_tensor([first, first + query.numel() - 1])
    low, high = torch.searchsorted(ends, inner, right=True).tolist()
    starts[ends[low:high] - first] = True
    return starts


def _between(values: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    total = torch.zeros(values.numel() + 1, dtype=torch.int64, device=values.device)
    torch.cumsum(values, 0, out=total[1:])
    # sums of fingerprints wrap around in int64, and their differences are right all the same
    return total[end] - total[begin]


def _join(runs: Tensor) -> Tensor:
    """Runs of the same query and update together, ordered by query and update."""
    query, update = runs[0], runs[1]
    order = None
    # rows mostly come in order of their updates, and one sort is enough
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
    index = torch.empty_like(order).scatter_(0, order, torch.cumsum(starts, dim=0) - 1)
    joined = torch.zeros(len(runs), first.numel(), dtype=torch.int64)
    joined[0], joined[1] = query[first], update[first]
    joined[2:].index_add_(1, index, runs[2:])
    return joined


def _changes(values: Tensor) -> Tensor:
    starts = torch.ones_like(values, dtype=torch.bool)
    starts[1:] = values[1:] != values[:-1]
    return starts


@dataclass(frozen=True)
class Queries:
    """The queries of one rank: chunks with the same metric life and id together, in ascending order of id.

    Int64 of shape ``(queries,)`` on the CPU.

    Attributes:
        query: The id.
        life: The metric life.
        rows: The number of rows.
        relevant: The number of relevant rows.
        fingerprint: Tells sets of rows apart, whatever their order.
    """

    query: Tensor
    life: Tensor
    rows: Tensor
    relevant: Tensor
    fingerprint: Tensor

    @classmethod
    def join(cls, parts: Sequence[Queries]) -> Queries:
        """Those of several ranks, in order of rank."""
        return cls(*(torch.cat([getattr(part, column.name) for part in parts]) for column in fields(cls)))

    def pack(self, queries: int) -> Tensor:
        """As bytes, uint8, filled up to a number of queries."""
        words = torch.zeros(4, queries, dtype=torch.int64)
        # no query has 2**32 rows, so that two counts fit into one word
        counts = (self.rows << _HALF) | self.relevant
        words[:, : counts.numel()] = torch.stack([self.query, self.life, self.fingerprint, counts])
        return words.reshape(-1).view(torch.uint8)

    @classmethod
    def unpack(cls, block: Tensor) -> Queries:
        """Read what ``pack`` wrote."""
        words = block.clone().view(torch.int64).reshape(4, -1)
        # columns without rows only fill up the size that all ranks expect
        query, life, fingerprint, counts = words[:, words[3] >> _HALF > 0]
        return cls(query, life, counts >> _HALF, counts & ((1 << _HALF) - 1), fingerprint)


def join_chunks(chunks: QueryChunks | None) -> tuple[Queries, Tensor]:
    """Join the chunks of a query over all updates; no chunks are no queries.

    Returns:
        The queries, and for every chunk the position of its query, int64 of shape ``(chunks,)``.
    """
    if chunks is None:
        none = torch.zeros(0, dtype=torch.int64)
        return Queries(none, none, none, none, none), none
    starts = _changes(chunks.query) | _changes(chunks.life)
    query_of_chunk = torch.cumsum(starts, dim=0) - 1
    first = starts.nonzero().reshape(-1)
    columns = (chunks.rows, chunks.relevant, chunks.fingerprint)
    if first.numel() == query_of_chunk.numel():  # no copies of what may be long
        return Queries(chunks.query, chunks.life, *columns), query_of_chunk
    sums = [torch.zeros_like(first).index_add_(0, query_of_chunk, column) for column in columns]
    return Queries(chunks.query[first], chunks.life[first], *sums), query_of_chunk


@dataclass(frozen=True)
class PackedQueries:
    """The rows of some queries of one rank, query after query; their ``Queries`` tell how many rows each has.

    Attributes:
        preds: Scores, float64 of shape ``(rows,)``.
        target: Relevance, float32 of shape ``(rows,)``.
    """

    preds: Tensor
    target: Tensor

    def pack(self) -> Tensor:
        """As bytes, uint8 of shape ``(rows * ROW_BYTES,)``."""
        return torch.cat([self.preds.view(torch.uint8), self.target.view(torch.uint8)])

    @classmethod
    def unpack(cls, block: Tensor) -> PackedQueries:
        """Read what ``pack`` wrote."""
        rows = block.numel() // ROW_BYTES
        # cloned, since bytes can be read as wider numbers only from an aligned beginning
        preds, target = block.split([8 * rows, 4 * rows])
        return cls(preds.clone().view(torch.float64), target.clone().view(torch.float32))


# --- fingerprints ----------------------------------------------------------------------------------------------


def _row_hashes(table: RowTable, first: int, last: int) -> Tensor:
    mixed = table.query[first:last].to(torch.int64, copy=True)
    for column, factor in ((table.preds, _MIX_1), (table.target, _MIX_2)):
        # adding zero makes -0.0 and 0.0 the same number
        mixed += column[first:last].to(torch.float64, copy=True).add_(0.0).view(torch.int64).mul_(factor)
    return _mix_in_place(mixed)


def mix(values: Tensor) -> Tensor:
    """Spread the bits of int64 values, so that sums of them tell sets apart (splitmix64)."""
    return _mix_in_place(values.clone())


def _mix_in_place(mixed: Tensor) -> Tensor:
    mixed += _GOLDEN
    for bits, factor in ((30, _MIX_1), (27, _MIX_2)):
        mixed ^= _shifted(mixed, bits)
        mixed *= factor
    mixed ^= _shifted(mixed, 31)
    return mixed


def _shifted(values: Tensor, bits: int) -> Tensor:
    # a logical shift: torch shifts the sign in
    return (values >> bits).bitwise_and_((1 << (64 - bits)) - 1)
