"""What is kept of an update once no metric will see its rows again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.query_chunks import QueryChunks, are_full, cut_chunks
from lightning_retrieval_guard.epoch.row_table import Digest, Rows, Settled, build_table
from lightning_retrieval_guard.epoch.values import Values, has_low_hits, values_of
from lightning_retrieval_guard.ranking import Measure, aggregate, score
from lightning_retrieval_guard.ranking import Rows as ScoredRows
from lightning_retrieval_guard.ranking.score import EmptyQueryError, Scores


def digest_rows(
    rows: Rows, measures: Sequence[Measure], final: bool, settles: bool = False
) -> tuple[Rows, Digest | Settled] | None:
    """Keep the values of an update in the place of its rows, where these can matter no more.

    Args:
        rows: Ids, scores and relevance of the update, each of shape ``(rows,)``.
        measures: Of all metrics that saw the rows.
        final: Whether its queries are complete: no other update and no other rank can add to them.
        settles: Whether it is a whole metric life besides, and there is no other rank.

    Returns:
        No rows, and what is known of those that were there; ``None`` where all must stay.
    """
    ids, preds, target = rows
    table = build_table([([ids], [preds], [target])])
    if table is None or not final or not all(_is_settled(measure) for measure in measures):
        return None
    try:
        _, scores = score(measures, ScoredRows(table.query, table.preds, table.target))
    except EmptyQueryError:  # it belongs to whoever asks for the value
        return None
    pieces = cut_chunks(table)
    if settles and all(measure.formula != "curve" and _is_named(measure.aggregation) for measure in measures):
        return _nothing_of(rows), _settled(pieces, measures, scores)
    known = torch.stack([pieces.query, pieces.rows, pieces.relevant, pieces.fingerprint])
    places = torch.arange(known.shape[1])  # one for all measures that leave no query out
    values = {_bare(measure): _small(values_of(own), places) for measure, own in zip(measures, scores, strict=True)}
    return _nothing_of(rows), Digest(known, values, has_low_hits(preds, target))


def _is_named(aggregation: object) -> bool:
    """Whether torchmetrics aggregates, and no function of the user's, which would be called too early."""
    return isinstance(aggregation, str)


def _settled(pieces: QueryChunks, measures: Sequence[Measure], scores: Sequence[Scores]) -> Settled:
    values = {
        _bare(measure): (cast(float, aggregate(measure, own.values)), own.values.numel())
        for measure, own in zip(measures, scores, strict=True)
    }
    rows = pieces.rows
    return Settled(int(rows.sum()), rows.numel(), int(rows.max()), are_full(rows, pieces.relevant), values)


def _bare(measure: Measure) -> Measure:
    """The measure without its metric, which must not live as long as its value."""
    return replace(measure, metric=None)


def _small(values: Values, places: Tensor) -> Values:
    """The same values in as few bytes as hold them; scores in single precision give values in single precision."""
    single = values.values.float()
    exact = bool((single.double() == values.values).all())
    whole = values.place.numel() == places.numel()
    return replace(values, values=single if exact else values.values, place=places if whole else values.place)


def _is_settled(measure: Measure) -> bool:
    """Whether the value of a query depends on nothing but its rows."""
    return measure.formula != "own" and (measure.formula != "curve" or measure.top_k is not None)


def _nothing_of(rows: Rows) -> Rows:
    ids, preds, target = (column[:0].clone() for column in rows)
    return ids, preds, target
