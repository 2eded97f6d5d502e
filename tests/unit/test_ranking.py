from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_retrieval_guard.ranking import Rows
from lightning_retrieval_guard.ranking import rows as rows_module
from lightning_retrieval_guard.ranking.ranked import rank, sort_key
from lightning_retrieval_guard.ranking.rows import Block, blocks_of, is_binary, runs_of

NAN, INF = float("nan"), float("inf")


def blocks(query: Tensor, preds: Tensor) -> list[Block]:
    """Blocks whose relevance says which rows they are: the first is 2, so that it is not binary."""
    return list(blocks_of(Rows(query, preds, torch.arange(query.numel()) + 2)))


def expected_order(query: Tensor, preds: Tensor) -> list[int]:
    """By query, then from high to low, equal ones as they stand; NaN is the highest."""
    scores = [INF if score != score else score for score in preds.tolist()]
    missing = preds.isnan().tolist()
    return sorted(range(len(scores)), key=lambda row: (query[row].item(), not missing[row], -scores[row], row))


def check_blocks(cut: list[Block], query: Tensor, preds: Tensor) -> None:
    """Each query is in one block, with its rows in order of arrival, and ranked as Python sorts."""
    by_id: dict[int, list[int]] = {}
    for block in cut:
        ranked = rank(block, None)
        assert torch.equal(block.sizes, block.number.bincount(minlength=len(block)))
        assert torch.equal(query[block.target - 2], block.query[block.number])
        assert block.longest == query.unique(return_counts=True)[1].max()
        for index, number in enumerate(block.query.tolist()):
            rows = block.target - 2
            arrived = rows[block.number == index].tolist()
            assert number not in by_id
            assert arrived == (query == number).nonzero().view(-1).tolist()
            start = int(ranked.starts[index])
            by_id[number] = rows[ranked.order[start : start + len(arrived)]].tolist()
            assert ranked.rank[start : start + len(arrived)].tolist() == list(range(len(arrived)))
    assert [row for number in sorted(by_id) for row in by_id[number]] == expected_order(query, preds)


@pytest.fixture(autouse=True)
def stable_grouping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take rows as they come, whatever torch.sort() does to few rows."""
    monkeypatch.setattr(rows_module, "_STABLE_FROM", 0)


@given(
    st.lists(
        st.tuples(
            st.integers(-3, 3) | st.sampled_from([2**62, -(2**62)]),
            st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, NAN, -NAN, INF, -INF, 1e-40, 3e38]),
        ),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=100, deadline=None)
def test_any_values(rows: list[tuple[int, float]], dtype: torch.dtype) -> None:
    query, preds = torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows], dtype=dtype)
    rows_module._STABLE_FROM, before = 0, rows_module._STABLE_FROM
    try:
        check_blocks(blocks(query, preds), query, preds)
    finally:
        rows_module._STABLE_FROM = before


def test_few_rows_stand_as_torchmetrics_meets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_STABLE_FROM", 1 << 15)
    query = torch.randint(0, 4, (500,))
    [block] = blocks(query, torch.zeros(500))
    assert torch.equal(block.target - 2, torch.sort(query).indices)
    [narrow] = blocks(query.int(), torch.zeros(500))
    assert torch.equal(narrow.target, block.target)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("length", [40, 47])
def test_few_rows_below_a_cut_are_ranked(length: int, shuffled: bool) -> None:
    query = torch.arange(50).repeat_interleave(length)
    if shuffled:
        query = query[torch.randperm(query.numel())]
    [block] = blocks_of(Rows(query, torch.randperm(query.numel()).float(), torch.ones(query.numel())))
    for cut in (1, 3, 5):
        assert 50 * cut <= rank(block, cut).order.numel() < query.numel() / 2
    assert rank(block, None).order.numel() == rank(block, length // 2).order.numel() == query.numel()


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        Rows(torch.zeros(3, dtype=torch.int64), torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="one shape"):
        Rows(torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, 1), torch.zeros(3, 1))


@pytest.mark.parametrize(
    ("values", "binary"),
    [
        (torch.tensor([0, 1]), True),
        (torch.tensor([0, 2]), False),
        (torch.tensor([0.0, 1.0]), True),
        (torch.tensor([0.0, 0.5]), False),
        (torch.tensor([NAN, 1.0]), False),
        (torch.tensor([True, False]), True),
        (torch.tensor([-1, 1]), False),
    ],
)
def test_binary(values: Tensor, binary: bool) -> None:
    assert is_binary(values) is binary


def test_sort_key_holds_large_numbers() -> None:
    number = torch.tensor([2**31 - 1, 0, 2**31 - 1])
    assert sort_key(number, torch.tensor([-INF, -INF, NAN])).argsort().tolist() == [1, 2, 0]


def test_one_id_in_two_stretches_is_not_grouped() -> None:
    assert runs_of(torch.tensor([1, 1, 2, 2, 1, 1])) is None
    for query, ids, sizes in (
        ([1, 1, 1, 1, 2, 2], [1, 2], [4, 2]),
        ([3, 3, 1, 2, 2], [3, 1, 2], [2, 1, 2]),
        ([7], [7], [1]),
    ):
        runs = runs_of(torch.tensor(query))
        assert runs is not None
        assert [part.tolist() for part in runs] == [ids, sizes]
