"""What is kept of an update in place of its rows."""

from __future__ import annotations

from dataclasses import replace

import torch
from torchmetrics import Metric

from lightning_retrieval_guard.epoch.query_chunks import cut_chunks
from lightning_retrieval_guard.epoch.row_table import ScoredUpdate, UpdateRows, build_table
from lightning_retrieval_guard.epoch.values import Panel, Values, has_low_hits
from lightning_retrieval_guard.ranking.measures import measure_of


def score_update(rows: UpdateRows, metric: Metric) -> ScoredUpdate:
    """Score the queries of an update as if they were whole.

    Args:
        rows: Ids, scores and relevance, each of shape ``(rows,)`` with one row at least.
        metric: Says how.
    """
    ids, preds, target = rows
    table = build_table([([ids], [preds], [target])])
    assert table is not None
    chunks = cut_chunks(table)
    queries = torch.stack([chunks.query, chunks.rows, chunks.relevant, chunks.fingerprint])
    low = has_low_hits(table.preds, table.target)
    values = None
    if _is_scored_by_query(metric):
        _, scores = Panel({"": metric}, 0).score(table.query, table.preds, table.target)
        values = None if scores[""].error is not None else _compact(scores[""])
    return ScoredUpdate(queries, values, low)


def _is_scored_by_query(metric: Metric) -> bool:
    """Whether the guard knows the formula, and its value is one number a query."""
    measure = measure_of(metric)
    return measure is not None and measure.formula not in ("own", "curve")


def _compact(values: Values) -> Values:
    """The same in as few bytes as hold it; scores in single precision give values in single precision."""
    single = values.values.float()
    return replace(values, values=single if bool((single.double() == values.values).all()) else values.values)
