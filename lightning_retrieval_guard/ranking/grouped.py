"""Ranks rows that stand query by query already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_retrieval_guard.ranking import numbering, selection
from lightning_retrieval_guard.ranking.numbering import Runs
from lightning_retrieval_guard.ranking.ranked import BLOCK, Ranked, Rows, sort_rows, starts_of
from lightning_retrieval_guard.ranking.relevant import rank_relevant
from lightning_retrieval_guard.ranking.selection import Maxima

# Rows that are looked at together where most of them are left out.
_SELECTED_BLOCK = 1 << 20


@dataclass(frozen=True)
class _Order:
    """The ranked rows of some runs, all tensors of shape ``(ranked,)`` unless said otherwise.

    Attributes:
        place: Which rows they are, counted from the first run.
        of_row: The numbers of their queries.
        same: Whether each ties with the next, of shape ``(ranked - 1,)``.
        ranks: As in ``Ranked``.
        is_whole: Whether no row is left out.
    """

    place: Tensor
    of_row: Tensor
    same: Tensor
    ranks: Tensor | None = None
    is_whole: bool = False


def rank_runs(rows: Rows, runs: Runs, top_k: int | None, only_relevant: bool) -> Iterator[Ranked]:
    """Rank rows whose queries each stand in one stretch; arguments as for ``rank_rows``."""
    longest = int(runs.sizes.max())
    selects = top_k is not None and selection.pays(len(rows), len(runs), top_k)
    for part in runs.blocks(_SELECTED_BLOCK if selects else BLOCK):
        yield _rank_part(rows, part, longest, top_k if selects else None, only_relevant)


def _rank_part(rows: Rows, runs: Runs, longest: int, top_k: int | None, only_relevant: bool) -> Ranked:
    area = slice(runs.begin, runs.end)
    preds, target = rows.preds[area], rows.target[area]
    query, by_id = runs.query.sort()
    number = numbering.inverse(by_id)
    found = _order_relevant(runs, number, preds, target, top_k) if only_relevant else None
    if found is None:
        found = _order(runs, number, preds, top_k)

    def complete(queries: Tensor) -> tuple[Tensor, Tensor]:
        of_all = number.repeat_interleave(runs.sizes, output_size=runs.end - runs.begin)
        chosen = queries.index_select(0, of_all).nonzero().view(-1)
        return chosen + runs.begin, of_all.index_select(0, chosen)

    return Ranked(
        query=query,
        sizes=runs.sizes.index_select(0, by_id),
        relevance=runs.sums(target).index_select(0, by_id),
        of_row=found.of_row,
        starts=starts_of(found.of_row, query.numel()),
        place=found.place + runs.begin,
        target=rows.relevance_at(found.place + runs.begin),
        same=found.same,
        longest=longest,
        rows=rows,
        ranks=found.ranks,
        complete=None if found.is_whole else complete,
    )


def _order_relevant(runs: Runs, number: Tensor, preds: Tensor, target: Tensor, top_k: int | None) -> _Order | None:
    """The relevant rows alone, where that is quicker and no tie is in the way."""
    if runs.length is None:
        return None
    hits = rank_relevant(preds.view(-1, runs.length), target.view(-1, runs.length), top_k)
    if hits is None:
        return None
    place, ranks = hits
    of_row = number.index_select(0, torch.div(place, runs.length, rounding_mode="floor"))
    order = (of_row * runs.length + ranks).argsort()
    place, of_row, ranks = (part.index_select(0, order) for part in (place, of_row, ranks))
    same = torch.zeros(max(place.numel() - 1, 0), dtype=torch.bool, device=place.device)
    return _Order(place, of_row, same, ranks)


def _order(runs: Runs, number: Tensor, preds: Tensor, top_k: int | None) -> _Order:
    """All rows, or all that may be in the top k."""
    if top_k is None:
        of_row = number.repeat_interleave(runs.sizes, output_size=preds.numel())
        order, of_row, same = sort_rows(of_row, preds)
        return _Order(order, of_row, same, is_whole=True)
    kept, run = _select(runs, preds, top_k)
    order, of_row, same = sort_rows(number.index_select(0, run), preds.index_select(0, kept))
    return _Order(kept.index_select(0, order), of_row, same)


def _select(runs: Runs, preds: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Positions of the rows that may be in the top k, and the runs they are in."""
    if runs.length is not None:
        kept = selection.select_in_grid(preds.view(-1, runs.length), top_k)
        return kept, torch.div(kept, runs.length, rounding_mode="floor")
    run = torch.arange(len(runs), device=preds.device).repeat_interleave(runs.sizes, output_size=preds.numel())
    maxima = Maxima(len(runs), top_k, preds)
    maxima.add(run, preds, 0)
    kept = maxima.select(run, preds)
    return kept, run.index_select(0, kept)
