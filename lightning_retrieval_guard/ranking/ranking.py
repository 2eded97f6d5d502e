"""Groups rows into queries and ranks them by score, a block of whole queries at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking import numbering, selection
from lightning_retrieval_guard.ranking.grouped import rank_runs
from lightning_retrieval_guard.ranking.numbering import CHUNK, DenseIds
from lightning_retrieval_guard.ranking.ranked import BLOCK, Ranked, Rows, is_binary, sort_rows, starts_of
from lightning_retrieval_guard.ranking.selection import Maxima

_INTEGERS = (torch.int32, torch.int64)

# Below this number of rows torch.sort() of ids on a CPU is not stable, and torchmetrics meets the rows of a query in
# the order that it leaves.
_STABLE_FROM = 1 << 15

# Selected rows that are at most this share of all are sorted at once.
_SMALL_SHARE = 0.25


def rank_rows(
    query: Tensor, preds: Tensor, target: Tensor, *, top_k: int | None = None, only_relevant: bool = False
) -> Iterator[Ranked]:
    """Group rows into queries and rank them.

    Args:
        query: Query ids, int64 or int32 of shape ``(rows,)``; any values in any order.
        preds: Scores, floating point of shape ``(rows,)``.
        target: Relevance, integer, bool or floating point of shape ``(rows,)``.
        top_k: The largest cut-off, if everything asked of the ranking has one. Rows that score less than the
            ``top_k``-th of their query may then be missing in the blocks; rows that equal it never are.
        only_relevant: Whether irrelevant rows may be missing too, where no order among equal scores is asked.

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
    only_relevant = only_relevant and rows.binary
    yield from rank_runs(rows, runs, cut, only_relevant) if runs is not None else _rank_scattered(rows, cut)


# --- rows as they come ----------------------------------------------------------------------------------------


def _as_rows(query: Tensor, preds: Tensor, target: Tensor) -> Rows:
    scores = preds.detach() if preds.dtype in (torch.float32, torch.float64) else preds.detach().float()
    binary = is_binary(target)
    keeps = target.is_floating_point() or target.dtype in _INTEGERS or (target.dtype == torch.int8 and binary)
    return Rows(query.detach(), scores, target.detach() if keeps else target.long(), binary)


def _in_order_of_arrival(rows: Rows) -> Rows:
    if len(rows) >= _STABLE_FROM:
        return rows
    # of int64, as torchmetrics does: the order of equal ids is up to what sorts a dtype
    query, arrival = torch.sort(rows.query.long())
    preds, target = rows.preds.index_select(0, arrival), rows.target.index_select(0, arrival)
    return Rows(query, preds, target, rows.binary, arrival)


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


def _scan(rows: Rows, numbers: DenseIds, top_k: int | None) -> _Totals:
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


def _select_scattered(rows: Rows, numbers: DenseIds, maxima: Maxima) -> Tensor | None:
    kept = []
    for begin in range(0, len(rows), CHUNK):
        number = numbers.between(begin, begin + CHUNK)
        kept.append(maxima.select(number, rows.preds[begin : begin + CHUNK]) + begin)
    # Many equal scores can leave little to leave out.
    return torch.cat(kept) if 2 * sum(part.numel() for part in kept) <= len(rows) else None


def _partition(rows: Rows, numbers: DenseIds, totals: _Totals) -> Iterator[tuple[int, int, Tensor]]:
    """Ranges of query numbers with the places of their ranked rows, in order of arrival."""
    kept = totals.kept
    count, queries = len(rows) if kept is None else kept.numel(), len(numbers)
    if count <= max(2 * BLOCK, 0 if kept is None else _SMALL_SHARE * len(rows)):
        yield 0, queries, torch.arange(count, device=rows.query.device) if kept is None else kept
        return
    counts = totals.sizes if kept is None else numbers.counts(kept)
    block = torch.div(counts.cumsum(0) - 1, BLOCK, rounding_mode="floor").unique(return_inverse=True)[1]
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


def _rank_places(rows: Rows, numbers: DenseIds, totals: _Totals, part: tuple[int, int, Tensor], longest: int) -> Ranked:
    first, last, place = part
    order, of_row, same = sort_rows(numbers.at(place) - first, rows.preds.index_select(0, place))
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
        starts=starts_of(of_row, last - first),
        place=place,
        target=rows.relevance_at(place),
        same=same,
        longest=longest,
        rows=rows,
        complete=None if totals.kept is None else complete,
    )
