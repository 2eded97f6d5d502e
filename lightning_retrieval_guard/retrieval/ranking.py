"""Rows grouped into queries and ranked by score, a block of whole queries at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_retrieval_guard.retrieval import numbering, selection
from lightning_retrieval_guard.retrieval.numbering import CHUNK, Numbering, Runs
from lightning_retrieval_guard.retrieval.selection import Maxima

_INTEGERS = (torch.int32, torch.int64)

# Below this number of rows torch.sort() of ids on a CPU is not stable, and torchmetrics meets the rows of a query in
# the order that it leaves.
_STABLE_FROM = 1 << 15

# Rows that are sorted at once: such blocks fit the cache.
_BLOCK = 1 << 18
_SELECTED_BLOCK = 1 << 20

# Selected rows that are at most this share of all are sorted at once.
_SMALL_SHARE = 0.25


@dataclass(frozen=True)
class Rows:
    """Rows in order of arrival.

    Attributes:
        query: Query ids, int64 of shape ``(rows,)``.
        preds: Scores, float32 or float64 of the same shape.
        target: Relevance, int32, int64 or floating point of the same shape.
        binary: Whether every relevance is 0 or 1.
        arrival: Where each row stood in the input, or ``None`` where the rows stand as they came.
    """

    query: Tensor
    preds: Tensor
    target: Tensor
    binary: bool
    arrival: Tensor | None = None

    def __len__(self) -> int:
        return self.query.numel()


@dataclass(frozen=True)
class Ranked:
    """Some whole queries, in ascending order of query id, with their rows ranked.

    Attributes:
        query: The ids, int64 of shape ``(queries,)``.
        sizes: The number of rows of each query, ranked here or not, int64 of shape ``(queries,)``.
        relevance: The sum of the relevance over all of them, float64 of shape ``(queries,)``.
        of_row: The place in ``query`` of the query of each ranked row, int64 of shape ``(ranked,)``.
        starts: Where the ranked rows of each query begin, and the end, int64 of shape ``(queries + 1,)``.
        place: Which of ``rows`` the ranked rows are: by query, then by score from high to low, equal scores in order
            of arrival; int64 of shape ``(ranked,)``.
        target: Their relevance, of the same shape.
        same: Whether a ranked row and the next one are of one query and equal in score, of shape ``(ranked - 1,)``.
        longest: The number of rows of the longest query, over all blocks.
        rows: All rows, of this block or not.
        complete: ``None`` where every row of the queries is ranked. Else the rows below the cut-off are missing, and
            this finds all rows of the queries in a mask of shape ``(queries,)``: their places in order of arrival,
            and the place in ``query`` of their query.
    """

    query: Tensor
    sizes: Tensor
    relevance: Tensor
    of_row: Tensor
    starts: Tensor
    place: Tensor
    target: Tensor
    same: Tensor
    longest: int
    rows: Rows
    complete: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def __len__(self) -> int:
        return self.query.numel()

    @cached_property
    def order(self) -> Tensor:
        """Positions of the ranked rows in the input, int64 of shape ``(ranked,)``."""
        arrival = self.rows.arrival
        return self.place if arrival is None else arrival.index_select(0, self.place)

    @cached_property
    def preds(self) -> Tensor:
        """Scores of the ranked rows, of shape ``(ranked,)``."""
        return self.rows.preds.index_select(0, self.place)

    @cached_property
    def rank(self) -> Tensor:
        """Ranks of the ranked rows within their query, from 0, int64 of shape ``(ranked,)``."""
        return self.rank_at(torch.arange(self.of_row.numel(), device=self.of_row.device))

    @cached_property
    def has_ties(self) -> bool:
        """Whether any two ranked rows of a query are equal in score."""
        return bool(self.same.any())

    @cached_property
    def has_nan(self) -> Tensor:
        """Queries with a score that is no number, bool of shape ``(queries,)``; such a score ranks first."""
        first = self.place.index_select(0, self.starts[:-1])
        return self.rows.preds.index_select(0, first).isnan()

    def rank_at(self, index: Tensor) -> Tensor:
        """Ranks of the ranked rows at ``index``, int64 of the same shape."""
        return index - self.starts.index_select(0, self.of_row.index_select(0, index))

    def all_rows(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """All rows of some queries, ranked here or not.

        Args:
            queries: Which ones, bool of shape ``(queries,)``.

        Returns:
            Places in ``rows`` and places in ``query``, both int64 of shape ``(found,)``, by query and then in order
            of arrival.
        """
        if self.complete is not None:
            place, of_row = self.complete(queries)
        else:
            chosen = queries.index_select(0, self.of_row).nonzero().view(-1)
            place, arrived = self.place.index_select(0, chosen).sort()
            of_row = self.of_row.index_select(0, chosen.index_select(0, arrived))
        of_row, grouped = of_row.sort(stable=True)
        return place.index_select(0, grouped), of_row


def rank_rows(query: Tensor, preds: Tensor, target: Tensor, *, top_k: int | None = None) -> Iterator[Ranked]:
    """Group rows into queries and rank them.

    Args:
        query: Query ids, int64 of shape ``(rows,)``; any values in any order.
        preds: Scores, floating point of shape ``(rows,)``.
        target: Relevance, integer, bool or floating point of shape ``(rows,)``.
        top_k: The largest cut-off, if everything asked of the ranking has one. Rows that score less than the
            ``top_k``-th of their query may then be missing in the blocks; rows that equal it never are.

    Yields:
        Blocks of whole queries. Within a block the ids ascend; over the blocks they do where the input is not
        grouped by query already, or grouped in ascending order.

    Raises:
        ValueError: The shapes differ.
    """
    if not query.shape == preds.shape == target.shape or query.ndim != 1:
        raise ValueError(f"Rows of one shape (rows,) are needed, not {query.shape}, {preds.shape}, {target.shape}.")
    if not query.numel():
        return
    rows = _in_order_of_arrival(_as_rows(query, preds, target))
    runs = numbering.find_runs(rows.query)
    # The ideal ranking of graded relevance needs every row.
    cut = top_k if rows.binary else None
    yield from _rank_runs(rows, runs, cut) if runs is not None else _rank_scattered(rows, cut)


def is_binary(target: Tensor) -> bool:
    """Whether every relevance is 0 or 1.

    Args:
        target: Integer, bool or floating point of shape ``(rows,)``.
    """
    if target.dtype == torch.bool or not target.numel():
        return True
    low, high = target.aminmax()
    if not bool((low >= 0) & (high <= 1)):
        return False
    return not target.is_floating_point() or all(bool((part == part.round()).all()) for part in target.split(CHUNK))


def sort_key(number: Tensor, preds: Tensor) -> Tensor:
    """One integer a row whose ascending order is by query and then by score from high to low.

    Args:
        number: Numbers from 0 to 2**31 - 1, int64 of shape ``(rows,)``.
        preds: Scores, float32 of shape ``(rows,)``. Values that are no number are the greatest, and zero has no sign.
    """
    scores = preds + 0.0
    missing = scores.isnan()
    if bool(missing.any()):
        scores = scores.masked_fill_(missing, torch.nan)
    bits = scores.view(torch.int32)
    # As integers the bits of positive floats ascend and those of negative ones descend.
    descending = bits.bitwise_xor((bits >> 31) & 0x7FFFFFFF).bitwise_not_()
    return (number << 32).add_(descending).add_(1 << 31)


# --- rows as they come ----------------------------------------------------------------------------------------


def _as_rows(query: Tensor, preds: Tensor, target: Tensor) -> Rows:
    scores = preds.detach() if preds.dtype in (torch.float32, torch.float64) else preds.detach().float()
    relevance = target if target.is_floating_point() or target.dtype in _INTEGERS else target.long()
    return Rows(query.detach().long(), scores, relevance.detach(), is_binary(relevance))


def _in_order_of_arrival(rows: Rows) -> Rows:
    if len(rows) >= _STABLE_FROM:
        return rows
    query, arrival = torch.sort(rows.query)
    preds, target = rows.preds.index_select(0, arrival), rows.target.index_select(0, arrival)
    return Rows(query, preds, target, rows.binary, arrival)


# --- rows that stand query by query ---------------------------------------------------------------------------


def _rank_runs(rows: Rows, runs: Runs, top_k: int | None) -> Iterator[Ranked]:
    longest = int(runs.sizes.max())
    selects = top_k is not None and selection.pays(len(rows), len(runs), top_k)
    for part in runs.blocks(_SELECTED_BLOCK if selects else _BLOCK):
        yield _rank_part(rows, part, longest, top_k if selects else None)


def _rank_part(rows: Rows, runs: Runs, longest: int, top_k: int | None) -> Ranked:
    area = slice(runs.begin, runs.end)
    preds, target = rows.preds[area], rows.target[area]
    query, by_id = runs.query.sort()
    number = numbering.inverse(by_id)
    sizes, relevance = runs.sizes.index_select(0, by_id), runs.sums(target).index_select(0, by_id)
    if top_k is None:
        kept, of_kept = None, number.repeat_interleave(runs.sizes, output_size=preds.numel())
    else:
        kept, run = _select_in_runs(runs, preds, top_k)
        preds, target, of_kept = preds.index_select(0, kept), target.index_select(0, kept), number.index_select(0, run)
    order, of_row, same = _sort(of_kept, preds)
    place = (order if kept is None else kept.index_select(0, order)) + runs.begin

    def complete(queries: Tensor) -> tuple[Tensor, Tensor]:
        of_all = number.repeat_interleave(runs.sizes, output_size=runs.end - runs.begin)
        found = queries.index_select(0, of_all).nonzero().view(-1)
        return found + runs.begin, of_all.index_select(0, found)

    return Ranked(
        query=query,
        sizes=sizes,
        relevance=relevance,
        of_row=of_row,
        starts=_starts(of_row, query.numel()),
        place=place,
        target=target.index_select(0, order),
        same=same,
        longest=longest,
        rows=rows,
        complete=None if kept is None else complete,
    )


def _select_in_runs(runs: Runs, preds: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Positions of the rows that may be in the top k, and the runs they are in."""
    if runs.length is not None:
        kept = selection.select_in_grid(preds.view(-1, runs.length), top_k)
        return kept, torch.div(kept, runs.length, rounding_mode="floor")
    run = torch.arange(len(runs), device=preds.device).repeat_interleave(runs.sizes, output_size=preds.numel())
    maxima = Maxima(len(runs), top_k, preds)
    maxima.add(run, preds, 0)
    kept = maxima.select(run, preds)
    return kept, run.index_select(0, kept)


# --- rows in any order ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Totals:
    """Numbers of rows and sums of relevance of all queries, and the rows that are ranked."""

    sizes: Tensor
    relevance: Tensor
    kept: Tensor | None


def _rank_scattered(rows: Rows, top_k: int | None) -> Iterator[Ranked]:
    numbers = numbering.number_queries(rows.query)
    totals = _scan(rows, numbers, top_k)
    longest = int(totals.sizes.max())
    for first, last, place in _partition(rows, numbers, totals):
        yield _rank_places(rows, numbers, totals, (first, last, place), longest)


def _scan(rows: Rows, numbers: Numbering, top_k: int | None) -> _Totals:
    device, queries = rows.query.device, len(numbers)
    sizes = torch.zeros(queries, dtype=torch.int64, device=device)
    relevance = torch.zeros(queries, dtype=torch.float64, device=device)
    selects = top_k is not None and selection.pays(len(rows), queries, top_k)
    maxima = Maxima(queries, top_k, rows.preds) if selects and top_k is not None else None
    ones = torch.ones(1, dtype=torch.int64, device=device)
    for begin in range(0, len(rows), CHUNK):
        number, target = numbers.between(begin, begin + CHUNK), rows.target[begin : begin + CHUNK]
        sizes.scatter_add_(0, number, ones.expand_as(number))
        hits = target.nonzero().view(-1)
        relevance.index_add_(0, number.index_select(0, hits), target.index_select(0, hits).double())
        if maxima is not None:
            maxima.add(number, rows.preds[begin : begin + CHUNK], begin)
    return _Totals(sizes, relevance, None if maxima is None else _select_scattered(rows, numbers, maxima))


def _select_scattered(rows: Rows, numbers: Numbering, maxima: Maxima) -> Tensor | None:
    kept = []
    for begin in range(0, len(rows), CHUNK):
        number = numbers.between(begin, begin + CHUNK)
        kept.append(maxima.select(number, rows.preds[begin : begin + CHUNK]) + begin)
    # Many equal scores can leave little to leave out.
    return torch.cat(kept) if 2 * sum(part.numel() for part in kept) <= len(rows) else None


def _partition(rows: Rows, numbers: Numbering, totals: _Totals) -> Iterator[tuple[int, int, Tensor]]:
    """Ranges of query numbers with the places of their ranked rows, in order of arrival."""
    kept = totals.kept
    count, queries = len(rows) if kept is None else kept.numel(), len(numbers)
    if count <= max(2 * _BLOCK, 0 if kept is None else _SMALL_SHARE * len(rows)):
        yield 0, queries, torch.arange(count, device=rows.query.device) if kept is None else kept
        return
    counts = totals.sizes if kept is None else numbers.counts(kept)
    block = torch.div(counts.cumsum(0) - 1, _BLOCK, rounding_mode="floor").unique(return_inverse=True)[1]
    blocks = int(block[-1]) + 1
    firsts = torch.searchsorted(block, torch.arange(blocks + 1, device=block.device)).tolist()
    small = torch.uint8 if blocks <= 1 << 8 else torch.int16 if blocks < 1 << 15 else torch.int32
    of_place = torch.empty(count, dtype=small, device=block.device)
    block = block.to(small)
    for begin in range(0, count, CHUNK):
        end = min(begin + CHUNK, count)
        number = numbers.between(begin, end) if kept is None else numbers.at(kept[begin:end])
        of_place[begin:end] = block.index_select(0, number)
    grouped = of_place.sort(stable=True).indices
    del of_place
    rows_before = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    bounds = rows_before[torch.tensor(firsts, device=counts.device)].tolist()
    for first, last, begin, end in zip(firsts[:-1], firsts[1:], bounds[:-1], bounds[1:], strict=True):
        place = grouped[begin:end]
        yield first, last, place if kept is None else kept.index_select(0, place)


def _rank_places(
    rows: Rows, numbers: Numbering, totals: _Totals, part: tuple[int, int, Tensor], longest: int
) -> Ranked:
    first, last, place = part
    order, of_row, same = _sort(numbers.at(place) - first, rows.preds.index_select(0, place))
    place = place.index_select(0, order)

    def complete(queries: Tensor) -> tuple[Tensor, Tensor]:
        wanted = torch.zeros(len(numbers), dtype=torch.bool, device=queries.device)
        wanted[first:last] = queries
        found = [
            wanted.index_select(0, numbers.between(begin, begin + CHUNK)).nonzero().view(-1) + begin
            for begin in range(0, len(rows), CHUNK)
        ]
        all_places = torch.cat(found)
        return all_places, numbers.at(all_places) - first

    return Ranked(
        query=numbers.ids[first:last],
        sizes=totals.sizes[first:last],
        relevance=totals.relevance[first:last],
        of_row=of_row,
        starts=_starts(of_row, last - first),
        place=place,
        target=rows.target.index_select(0, place),
        same=same,
        longest=longest,
        rows=rows,
        complete=None if totals.kept is None else complete,
    )


# --- sorting --------------------------------------------------------------------------------------------------


def _sort(number: Tensor, preds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ranked order of the rows, their numbers in that order, and whether each is tied with the next."""
    if preds.dtype == torch.float32:
        key, order = sort_key(number, preds).sort(stable=True)
        return order, key >> 32, key[1:] == key[:-1]
    by_score = preds.argsort(descending=True, stable=True)
    of_row, order = number.index_select(0, by_score).sort(stable=True)
    order = by_score.index_select(0, order)
    scores = preds.index_select(0, order)
    equal = (scores[1:] == scores[:-1]) | (scores[1:].isnan() & scores[:-1].isnan())
    return order, of_row, equal & (of_row[1:] == of_row[:-1])


def _starts(of_row: Tensor, queries: int) -> Tensor:
    return torch.searchsorted(of_row, torch.arange(queries + 1, device=of_row.device))
