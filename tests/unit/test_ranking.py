from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_retrieval_guard.ranking import grouped as grouped_rows
from lightning_retrieval_guard.ranking import numbering, ranking, relevant, selection
from lightning_retrieval_guard.ranking.ranked import Ranked, is_binary, sort_key
from lightning_retrieval_guard.ranking.ranking import rank_rows

NAN, INF = float("nan"), float("inf")


def random_rows(rows: int, ids: int, seed: int = 0, digits: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    query = torch.randint(-ids, ids, (rows,), generator=random)
    preds = torch.randn(rows, generator=random).mul(10**digits).round() / 10**digits
    return query, preds, torch.randint(0, 2, (rows,), generator=random)


def expected_order(query: Tensor, preds: Tensor) -> list[int]:
    """By query, then from high to low, equal ones as they stand; no number is the highest."""
    scores = [INF if score != score else score for score in preds.tolist()]
    missing = preds.isnan().tolist()
    return sorted(range(len(scores)), key=lambda row: (query[row].item(), not missing[row], -scores[row], row))


def check_blocks(blocks: list[Ranked], query: Tensor, preds: Tensor, target: Tensor) -> None:
    by_id = sorted(
        ((number, block, place) for block in blocks for place, number in enumerate(block.query.tolist())),
        key=lambda item: item[0],
    )
    assert [number for number, _, _ in by_id] == query.unique().tolist()
    order = torch.cat([block.order[block.starts[place] : block.starts[place + 1]] for _, block, place in by_id])
    assert order.tolist() == expected_order(query, preds)
    for number, block, place in by_id:
        own = query == number
        assert block.sizes[place] == own.sum()
        assert block.relevance[place] == target[own].sum()
        assert block.longest == query.unique(return_counts=True)[1].max()
    for block in blocks:
        assert (block.query[1:] > block.query[:-1]).all()
        assert torch.equal(block.target.long(), target[block.order].long())
        assert torch.equal(block.query[block.of_row], query[block.order])


@pytest.fixture(autouse=True)
def stable_grouping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take rows as they come, whatever torch.sort() does to few rows."""
    monkeypatch.setattr(ranking, "_STABLE_FROM", 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1, 3, 10**12])
def test_shuffled_rows(dtype: torch.dtype, spread: int) -> None:
    query, preds, target = random_rows(3000, 40)
    query, preds = query * spread, preds.to(dtype)
    check_blocks(list(rank_rows(query, preds, target)), query, preds, target)


@pytest.mark.parametrize("cut", [None, 1, 3])
@pytest.mark.parametrize("grouped", ["equal", "ascending", "any"])
def test_blocks_of_grouped_and_of_shuffled_rows(monkeypatch: pytest.MonkeyPatch, grouped: str, cut: int | None) -> None:
    for module, name in ((ranking, "BLOCK"), (grouped_rows, "BLOCK"), (grouped_rows, "_SELECTED_BLOCK")):
        monkeypatch.setattr(module, name, 64)
    monkeypatch.setattr(ranking, "_SMALL_SHARE", 0.0)
    monkeypatch.setattr(ranking, "CHUNK", 50)
    monkeypatch.setattr(numbering, "_PREFIX", 16)
    query, preds, target = random_rows(3000, 20, seed=1)
    if grouped == "equal":
        query = torch.randperm(30).repeat_interleave(100)
    elif grouped == "ascending":
        query = query.sort().values
    blocks = list(rank_rows(query, preds, target, top_k=cut))
    assert len(blocks) > 1 or (grouped, cut) == ("any", 1)
    if cut is None:
        check_blocks(blocks, query, preds, target)
    else:
        check_selected(blocks, query, preds, cut)


def check_selected(blocks: list[Ranked], query: Tensor, preds: Tensor, cut: int) -> None:
    order = expected_order(query, preds)
    kept = torch.cat([block.order for block in blocks])
    assert kept.numel() < query.numel()
    for block in blocks:
        for place, number in enumerate(block.query.tolist()):
            own = [row for row in order if query[row] == number]
            found = block.order[block.starts[place] : block.starts[place + 1]].tolist()
            needed = sum(preds[row] >= preds[own[cut - 1]] for row in own)
            assert len(found) >= needed
            assert found == own[: len(found)]
            places, of_row = block.all_rows(torch.arange(len(block)) == place)
            assert places.tolist() == sorted(own)
            assert (of_row == place).all()


@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 70),
    density=st.sampled_from([0.0, 0.02, 0.2, 0.9]),
    cut=st.sampled_from([None, 1, 3, 10]),
    spoilt=st.sampled_from([None, 0.25, NAN, INF, -INF]),
)
@settings(max_examples=150, deadline=None)
def test_relevant_rows_alone(seed: int, length: int, density: float, cut: int | None, spoilt: float | None) -> None:
    random = torch.Generator().manual_seed(seed)
    query = torch.randperm(15, generator=random).repeat_interleave(length)
    preds, target = torch.randn(query.numel(), generator=random), torch.rand(query.numel(), generator=random) < density
    if spoilt is not None:
        preds[torch.rand(query.numel(), generator=random) < 0.05] = spoilt
    preds = preds.double() if seed % 2 else preds
    [block] = rank_rows(query, preds, target.long(), top_k=cut, only_relevant=True)
    found = {
        (int(block.query[of]), int(row)): int(rank)
        for of, row, rank in zip(block.of_row, block.order, block.rank, strict=True)
        if target[row] and (cut is None or rank < cut)
    }
    order = expected_order(query, preds)
    ranks = {row: place % length for place, row in enumerate(order)}
    wanted = {
        (int(query[row]), row): rank for row, rank in ranks.items() if target[row] and (cut is None or rank < cut)
    }
    assert found == wanted
    assert torch.equal(block.sizes, torch.full((15,), length))
    assert block.relevance.tolist() == [target[query == number].sum() for number in block.query]
    if block.ranks is not None:
        by_place = [(int(of), int(rank)) for of, rank in zip(block.of_row, block.rank, strict=True)]
        assert by_place == sorted(by_place)
        places, of_row = block.all_rows(block.query == 7)
        assert places.tolist() == (query == 7).nonzero().view(-1).tolist()
        assert (block.query[of_row] == 7).all()


def test_few_relevant_rows_are_not_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped_rows, "sort_rows", lambda *_: pytest.fail("sorted"))
    query, preds = torch.arange(50).repeat_interleave(40), torch.randn(2000, generator=torch.Generator().manual_seed(0))
    diagonal = (torch.arange(2000) % 40 == query % 40).long()
    every_tenth = (torch.arange(2000) % 10 == 0).long()
    for target, cut in ((diagonal, None), (diagonal, 3), (every_tenth, 1)):
        [block] = rank_rows(query, preds, target, top_k=cut, only_relevant=True)
        assert block.ranks is not None


@pytest.mark.parametrize(
    ("row", "value", "ranked_alone"), [(3, 9.0, False), (2, 9.0, True), (2, NAN, False), (3, NAN, False)]
)
def test_a_tie_or_no_number_needs_every_row(row: int, value: float, ranked_alone: bool) -> None:
    preds, target = torch.arange(12.0).view(3, 4), torch.zeros(3, 4, dtype=torch.int64)
    target[:, 1] = 1
    preds[2, row] = value if row == 3 or value != 9.0 else 8.5
    assert (relevant.rank_relevant(preds, target, None) is not None) == ranked_alone


@given(
    st.lists(
        st.tuples(
            st.integers(-3, 3) | st.sampled_from([2**62, -(2**62)]),
            st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, NAN, INF, -INF, 1e-40, 3e38]),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=100, deadline=None)
def test_any_values(rows: list[tuple[int, float, int]], dtype: torch.dtype) -> None:
    query, target = (torch.tensor([row[column] for row in rows]) for column in (0, 2))
    preds = torch.tensor([row[1] for row in rows], dtype=dtype)
    ranking._STABLE_FROM, before = 0, ranking._STABLE_FROM
    try:
        check_blocks(list(rank_rows(query, preds, target)), query, preds, target)
    finally:
        ranking._STABLE_FROM = before


def test_negative_values_that_are_no_number_rank_first() -> None:
    preds = torch.tensor([1.0, -NAN, INF, NAN])
    block = next(rank_rows(torch.zeros(4, dtype=torch.int64), preds, torch.zeros(4)))
    assert block.order.tolist() == [1, 3, 2, 0]
    assert block.has_nan.tolist() == [True]


def test_ties() -> None:
    query = torch.tensor([0, 0, 0, 1, 1])
    block = next(rank_rows(query, torch.tensor([0.0, 2.0, -0.0, -0.0, 1.0]), torch.ones(5)))
    assert block.same.tolist() == [False, True, False, False]
    assert block.rank.tolist() == [0, 1, 2, 0, 1]


def test_few_rows_stand_as_torchmetrics_meets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_STABLE_FROM", 1 << 15)
    query = torch.randint(0, 4, (500,))
    block = next(rank_rows(query, torch.zeros(500), torch.zeros(500)))
    assert torch.equal(block.order, torch.sort(query).indices)


def test_no_rows() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert list(rank_rows(none, none.float(), none)) == []


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        list(rank_rows(torch.zeros(3, dtype=torch.int64), torch.zeros(2), torch.zeros(3)))


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


def test_one_id_in_two_stretches_is_no_run() -> None:
    assert numbering.find_runs(torch.tensor([1, 1, 2, 2, 1, 1])) is None
    assert numbering.find_runs(torch.tensor([1, 1, 1, 1, 2, 2])) is not None
    runs = numbering.find_runs(torch.tensor([3, 3, 1, 1, 2, 2]))
    assert runs is not None
    assert (runs.length, runs.query.tolist()) == (2, [3, 1, 2])


@pytest.mark.parametrize("top_k", [1, 2, 5, 10, 100])
def test_slots_hold_the_cut_off(top_k: int) -> None:
    assert selection.slots(top_k) >= top_k


@pytest.mark.parametrize("spoilt", [0, 1, 4, 5, 39, 40, 41, 77, 79])
def test_equal_runs_are_seen_only_where_they_are_equal(monkeypatch: pytest.MonkeyPatch, spoilt: int) -> None:
    monkeypatch.setattr(numbering, "CHUNK", 16)
    query = torch.arange(16).repeat_interleave(5)
    runs = numbering.find_runs(query)
    assert runs is not None
    assert runs.length == 5
    query[spoilt] = 99
    runs = numbering.find_runs(query)
    if runs is not None:
        assert runs.length is None
        assert torch.equal(runs.query.repeat_interleave(runs.sizes), query)


@pytest.mark.parametrize("width", [1, 2, 4, 16, 64])
def test_network_sorts_columns(width: int) -> None:
    values = torch.randint(0, 9, (width, 50)).float()
    assert torch.equal(selection._sorted_columns(values), values.sort(dim=0).values)
