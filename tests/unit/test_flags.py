"""Comparisons without bool results, and the places where few of them hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_retrieval_guard.ranking.flags import Comparison, flags, places
from lightning_retrieval_guard.ranking.ranked import starts_of
from lightning_retrieval_guard.ranking.relevant import rank_relevant

NAN, INF = float("nan"), float("inf")
ODD = [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, INF, -INF, NAN]


@given(st.lists(st.booleans(), max_size=70))
@settings(max_examples=200, deadline=None)
def test_places(holds: list[bool]) -> None:
    assert places(torch.tensor(holds, dtype=torch.bool)).tolist() == [place for place, held in enumerate(holds) if held]


@pytest.mark.parametrize("compare", [torch.ge, torch.gt, torch.eq, torch.ne, torch.lt])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flags_of_scores(compare: Comparison, dtype: torch.dtype) -> None:
    left = torch.tensor(ODD, dtype=dtype).repeat(len(ODD), 1)
    found = flags(compare, left, left.t()[:, :1])
    assert found.dtype == dtype
    assert torch.equal(found.bool(), compare(left, left.t()[:, :1]))
    assert torch.equal(flags(compare, left.t(), left), compare(left.t(), left).to(dtype))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_flags_of_ids(dtype: torch.dtype) -> None:
    ids = torch.tensor([[1, 1, 2], [-5, 7, -5], [2**31 - 1, 0, 2**31 - 1]], dtype=dtype)
    assert flags(torch.ne, ids, ids[:, :1]).tolist() == [[0, 0, 1], [0, 1, 0], [0, 1, 0]]


def test_starts() -> None:
    of_row = torch.tensor([0, 0, 2, 2, 2, 5])
    assert starts_of(of_row, 7).tolist() == [0, 2, 2, 5, 5, 5, 6, 6]
    assert starts_of(of_row[:0], 2).tolist() == [0, 0, 0]


def test_lists_longer_than_single_precision_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    preds, target = torch.arange(12.0).view(3, 4), torch.eye(4, dtype=torch.int64)[:3]
    assert rank_relevant(preds, target, None) is not None
    monkeypatch.setattr("lightning_retrieval_guard.ranking.relevant._COUNTABLE", 3)
    assert rank_relevant(preds, target, None) is None
