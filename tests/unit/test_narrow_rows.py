"""Rows that were joined take as few bytes as hold them, and every fact and every value stays what it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.retrieval import (
    RetrievalAUROC,
    RetrievalFallOut,
    RetrievalMAP,
    RetrievalMRR,
    RetrievalNormalizedDCG,
    RetrievalPrecisionRecallCurve,
    RetrievalRPrecision,
)

from lightning_retrieval_guard.epoch.row_facts import gather_facts
from lightning_retrieval_guard.epoch.row_table import RowTable, build_table
from lightning_retrieval_guard.run.epoch_rows import SharedRows

from .simulated import NAME, Rank, alone, decide, outcomes

Update = tuple[Tensor, Tensor, Tensor]


class Weighted(RetrievalMRR):
    """A formula of the user's own, which multiplies what eight bits would not hold."""

    def _metric(self, preds: Tensor, target: Tensor) -> Tensor:
        return (1000 * target * preds).sum()


METRICS = [
    RetrievalMAP(top_k=3),
    RetrievalMRR(),
    RetrievalNormalizedDCG(),
    RetrievalAUROC(),
    RetrievalFallOut(top_k=2),
    RetrievalRPrecision(),
    RetrievalPrecisionRecallCurve(max_k=3),
    Weighted(),
]


def updates_of(rows: int, spread: int, *, grouped: bool = False, tied: bool = False, count: int = 4) -> list[Update]:
    random = torch.Generator().manual_seed(rows + spread)
    query = torch.randint(-rows // 40, rows // 40, (rows,), generator=random) * spread
    preds = torch.rand(rows, generator=random)
    columns = (
        query.sort().values if grouped else query,
        (8 * preds).round() / 8 if tied else preds,
        (torch.rand(rows, generator=random) < 0.2).long(),
    )
    return list(zip(*(column.chunk(count) for column in columns), strict=True))


def table_of(updates: list[Update]) -> RowTable:
    table = build_table([tuple(map(list, zip(*updates, strict=True)))])
    assert table is not None
    return table


def value_of(table: RowTable, metric: Metric) -> tuple[Any, Any]:
    """The facts, and the value as one tensor."""
    rows = SharedRows(table, lambda table, **_: gather_facts(table, (), 1))
    rows.metrics.append(metric)
    rank = Rank(rows)
    decide([rank], metric, "global")
    value = rank.local.outcome(NAME).value
    parts = value if isinstance(value, tuple) else (value,)
    return rank.facts, torch.cat([torch.as_tensor(part).double().reshape(-1) for part in parts])


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
@pytest.mark.parametrize("rows", [400, pytest.param(40_000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    ("spread", "grouped", "tied"),
    [(1, False, False), (1, False, True), (1, True, False), (100_000, False, False), (100_000, True, True)],
)
def test_narrow_rows_have_the_facts_and_values_of_wide_ones(
    metric: Metric, rows: int, spread: int, grouped: bool, tied: bool
) -> None:
    narrow = table_of(updates_of(rows, spread, grouped=grouped, tied=tied))
    assert (narrow.query.dtype, narrow.target.dtype) == (torch.int32, torch.int8)
    wide = replace(narrow, query=narrow.query.long(), target=narrow.target.long())
    facts, value = value_of(narrow, metric)
    expected_facts, expected = value_of(wide, metric)
    assert facts == expected_facts
    assert torch.equal(value, expected)


@pytest.mark.parametrize("metric", [METRICS[0], METRICS[-1]], ids=lambda metric: type(metric).__name__)
def test_many_narrow_rows_in_several_blocks(metric: Metric) -> None:
    test_narrow_rows_have_the_facts_and_values_of_wide_ones(metric, 40_000, 100_000, grouped=False, tied=True)


@pytest.mark.parametrize(
    ("change", "query", "target"),
    [
        (lambda ids, hits: (ids + 2**31, hits), torch.int64, torch.int8),
        (lambda ids, hits: (ids - 2**40, hits), torch.int64, torch.int8),
        (lambda ids, hits: (ids, 2 * hits), torch.int32, torch.int64),
        (lambda ids, hits: (ids, -hits), torch.int32, torch.int64),
        (lambda ids, hits: (ids, hits.float()), torch.int32, torch.float32),
        (lambda ids, hits: (ids, hits.int()), torch.int32, torch.int8),
        (lambda ids, hits: (ids, hits.bool()), torch.int32, torch.int8),
    ],
    ids=["above", "below", "graded", "negative", "float", "int", "bool"],
)
def test_what_does_not_fit_stays_as_wide_as_it_came(change: Any, query: torch.dtype, target: torch.dtype) -> None:
    *others, (ids, preds, hits) = updates_of(400, 1)
    ids, hits = change(ids, hits)
    others = [(other_ids, scores, relevance.to(hits.dtype)) for other_ids, scores, relevance in others]
    table = table_of([*others, (ids, preds, hits)])
    assert (table.query.dtype, table.target.dtype) == (query, target)
    assert torch.equal(table.query, torch.cat([*(other_ids[0] for other_ids in others), ids]))
    assert torch.equal(table.target.to(hits.dtype), torch.cat([*(other_ids[2] for other_ids in others), hits]))


def test_rows_of_one_update_are_no_copy() -> None:
    [rows] = updates_of(400, 1, count=1)
    nothing = (rows[0][:0], rows[1][:0], rows[2][:0])
    for updates in ([rows], [nothing, rows], [rows, nothing]):
        table = table_of(updates)
        columns = (table.query, table.preds, table.target)
        assert [column.data_ptr() for column in columns] == [part.data_ptr() for part in rows]


def test_a_rank_with_narrow_rows_takes_in_the_graded_ones_of_another() -> None:
    metric = RetrievalNormalizedDCG()
    ranks = [updates_of(400, 1), [(ids, 1 - preds, 300 * hits) for ids, preds, hits in updates_of(400, 1)]]
    [one, other] = outcomes(metric, ranks, scope="global")
    assert one.value == other.value == pytest.approx(float(alone(metric, ranks)), abs=1e-6)
