from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_retrieval_guard.ranking import Rows
from lightning_retrieval_guard.ranking import rows as rows_module
from lightning_retrieval_guard.ranking.ranked import Hits, Ranked, rank, sort_key
from lightning_retrieval_guard.ranking.rows import Block, blocks_of, is_binary, runs_of

NAN, INF = float("nan"), float("inf")


def random_rows(rows: int, ids: int, seed: int = 0, digits: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    query = torch.randint(-ids, ids, (rows,), generator=random)
    preds = torch.randn(rows, generator=random).mul(10**digits).round() / 10**digits
    return query, preds, torch.randint(0, 2, (rows,), generator=random)


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1, 3, 10**12])
def test_shuffled_rows(dtype: torch.dtype, spread: int) -> None:
    query, preds, _ = random_rows(3000, 40)
    query, preds = query * spread, preds.to(dtype)
    check_blocks(blocks(query, preds), query, preds)


@pytest.mark.parametrize("grouped", ["equal", "ascending", "far"])
def test_many_blocks(monkeypatch: pytest.MonkeyPatch, grouped: str) -> None:
    monkeypatch.setattr(rows_module, "_BLOCK", 64)
    query, preds, _ = random_rows(3000, 20, seed=1)
    if grouped == "equal":
        query = torch.randperm(30).repeat_interleave(100)
    elif grouped == "ascending":
        query = query.sort().values
    elif grouped == "far":
        query = query * 10**12
    cut = blocks(query, preds)
    assert len(cut) > 10
    assert all(block.length == (100 if grouped == "equal" else None) for block in cut)
    check_blocks(cut, query, preds)


@given(
    st.lists(
        st.tuples(
            st.integers(-3, 3) | st.sampled_from([2**62, -(2**62)]),
            st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, NAN, INF, -INF, 1e-40, 3e38]),
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


def test_selected_queries_keep_the_order_of_arrival() -> None:
    query, preds, _ = random_rows(3000, 40)
    [block] = blocks(query, preds)
    chosen = block.query % 3 == 0
    selected = block.select(chosen)
    assert torch.equal(selected.query, block.query[chosen])
    expected = [(query == number).nonzero().view(-1) for number in selected.query]
    assert torch.equal(selected.target - 2, torch.cat(expected))
    assert torch.equal(selected.sizes, torch.tensor([part.numel() for part in expected]))


# --- rows below a cut-off -------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 70),
    cut=st.sampled_from([1, 3, 10]),
    spoilt=st.sampled_from([None, 0.25, NAN, INF, -INF]),
    shuffled=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_rows_above_a_cut_are_those_of_all_rows(
    seed: int, length: int, cut: int, spoilt: float | None, shuffled: bool
) -> None:
    random = torch.Generator().manual_seed(seed)
    query = torch.randperm(15, generator=random).repeat_interleave(length)
    query = query[torch.randperm(query.numel(), generator=random)] if shuffled else query
    preds = torch.randn(query.numel(), generator=random)
    if spoilt is not None:
        preds[torch.rand(query.numel(), generator=random) < 0.05] = spoilt
    preds = preds.double() if seed % 2 else preds
    target = (torch.rand(query.numel(), generator=random) < 0.2).long()
    [block] = blocks_of(Rows(query, preds, target))
    some, whole = rank(block, cut), rank(block, None)
    assert torch.equal(some.has_nan, whole.has_nan)
    assert above(some, cut) == above(whole, cut)


def above(ranked: Ranked, cut: int) -> list[tuple[int, ...]]:
    """The rows above the cut with their ranks, and with the ranks of the first and the last row that tie with them."""
    inside = (ranked.rank < cut).nonzero().view(-1)
    rank = ranked.rank[inside]
    ties = ranked.tie_at(inside) if ranked.has_ties else (rank, rank)
    return list(zip(*(part.tolist() for part in (ranked.order[inside], rank, *ties)), strict=True))


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


def test_graded_relevance_needs_every_row() -> None:
    query, preds = torch.arange(3).repeat_interleave(8), torch.arange(24.0)
    for graded in (torch.arange(24), torch.rand(24)):
        [block] = blocks_of(Rows(query, preds, graded))
        assert rank(block, 1).order.numel() == 24


# --- ties and single functions --------------------------------------------------------------------------------


def test_nan_ranks_first_whatever_its_sign() -> None:
    preds = torch.tensor([1.0, -NAN, INF, NAN])
    [block] = blocks_of(Rows(torch.zeros(4, dtype=torch.int64), preds, torch.zeros(4)))
    ranked = rank(block, None)
    assert ranked.order.tolist() == [1, 3, 2, 0]
    assert ranked.has_nan.tolist() == [True]


def test_ties() -> None:
    query = torch.tensor([0, 0, 0, 1, 1])
    [block] = blocks_of(Rows(query, torch.tensor([0.0, 2.0, -0.0, -0.0, 1.0]), torch.ones(5)))
    ranked = rank(block, None)
    assert ranked.same.tolist() == [False, True, False, False]
    assert ranked.rank.tolist() == [0, 1, 2, 0, 1]
    first, last = ranked.tie_at(torch.arange(5))
    assert (first.tolist(), last.tolist()) == ([0, 1, 1, 0, 1], [0, 2, 2, 0, 1])


def test_hits() -> None:
    hits = Hits(torch.tensor([1, 2, 7]), torch.tensor([0, 0, 2]), torch.tensor([1, 2, 0]), 4)
    assert hits.counts.tolist() == [2, 0, 1, 0]
    assert hits.precisions.tolist() == [1 / 2, 2 / 3, 1.0]
    assert hits.first_rank.tolist()[::2] == [1, 0]
    assert (hits.first_rank[1::2] > 2**60).all()


def test_no_rows() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert list(blocks_of(Rows(none, none.float(), none))) == []


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
