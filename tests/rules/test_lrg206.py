"""Ranks logged different keys, or in another order."""

from dataclasses import replace

import pytest

from lightning_retrieval_guard.epoch.repeated_samples import Repeated
from lightning_retrieval_guard.epoch.views import EpochView, KeyView
from lightning_retrieval_guard.findings import Severity
from lightning_retrieval_guard.rules import REGISTRY

from .factories import findings_of, stage, steps


def keys(**values: float) -> list[KeyView]:
    return [KeyView((steps((value, 2, 2), name=name, sync_dist=True),) * 2) for name, value in values.items()]


def in_orders(*orders: str, logged: list[KeyView] | None = None, batches: list[int] | None = None) -> EpochView:
    """Keys named by single letters, in the order of each rank; a letter that is not there was not logged."""
    views = logged or keys(a=0.1, b=0.9)
    storage = {view.first.name: view.first.storage for view in views}
    views = [
        replace(view, facts=tuple(view.first if view.first.name in order else None for order in orders))
        for view in views
    ]
    storage_orders = tuple(tuple(storage[name] for name in order) for order in orders)
    return stage(*views, orders=storage_orders, batches=tuple(batches or [1] * len(orders)))


def test_it_speaks_before_lightning_combines_ranks() -> None:
    assert REGISTRY["LRG206"].spec.precedes_reduction


def test_opposite_order_mixes_the_numbers() -> None:
    seen = in_orders("ab", "ba")
    seen = replace(seen, keys=tuple(replace(key, computed=0.5) for key in seen.keys))
    first, second = findings_of("LRG206", seen)
    assert [finding.key for finding in (first, second)] == ["a", "b"]
    assert first.severity is second.severity is Severity.ERROR
    assert first.ranks == (0, 1)
    assert first.text() == (
        "LRG206 keys-differ: 'a' was logged in another order on the ranks; Lightning pairs the reductions of the ranks"
        " by their order alone. Logged 0.5000, reference 0.1000. Log the same keys in the same order on every rank."
    )
    assert "Logged 0.5000, reference 0.9000." in second.text()
    # where a sample counts twice, nobody knows what one device would have logged
    assert [finding.effect for finding in findings_of("LRG206", replace(seen, repeated=Repeated(1)))] == [None, None]


def test_before_the_reduction_there_are_no_numbers() -> None:
    first, _ = findings_of("LRG206", in_orders("ab", "ba"))
    assert (first.effect, first.severity) == (None, Severity.ERROR)


def test_equal_values_make_it_a_note() -> None:
    seen = in_orders("ab", "ba", logged=keys(a=0.5, b=0.5))
    seen = replace(seen, keys=tuple(replace(key, computed=0.5) for key in seen.keys))
    assert {finding.severity for finding in findings_of("LRG206", seen)} == {Severity.NOTE}


def test_a_key_that_one_rank_misses_names_the_rank() -> None:
    first, second = findings_of("LRG206", in_orders("ab", "b"))
    assert first.ranks == (0,)
    assert first.text() == (
        "LRG206 keys-differ: 'a' was not logged on rank 1; Lightning pairs the reductions of the ranks by their order"
        " alone. Log the same keys in the same order on every rank."
    )
    assert second.key == "b"
    assert "in another order" in second.message


def test_a_key_that_several_ranks_miss_names_them() -> None:
    (finding,) = findings_of("LRG206", in_orders("ab", "a", "a"))
    assert "'b' was not logged on ranks 1 and 2;" in finding.message


def test_a_rank_without_batches_misses_nothing() -> None:
    findings = findings_of("LRG206", in_orders("ab", "ba", "", batches=[1, 1, 0]))
    assert ["in another order" in finding.message for finding in findings] == [True, True]


def test_a_rank_that_logs_nothing_at_all_is_missed_too() -> None:
    (finding,) = findings_of("LRG206", in_orders("a", "", logged=keys(a=0.1)))
    assert "'a' was not logged on rank 1;" in finding.message


def test_keys_before_the_first_difference_are_silent() -> None:
    seen = in_orders("abc", "acb", logged=keys(a=0.1, b=0.2, c=0.3))
    assert [finding.key for finding in findings_of("LRG206", seen)] == ["b", "c"]


@pytest.mark.parametrize("seen", [in_orders("ab", "ab"), in_orders("ab")], ids=["same-order", "one-rank"])
def test_right_programs_are_silent(seen: EpochView) -> None:
    assert not findings_of("LRG206", seen)


def test_a_rank_without_a_batch_skips_the_reductions_and_the_others_wait() -> None:
    seen = in_orders("ab", "", batches=[1, 0])
    first, _ = findings_of("LRG206", seen)
    assert first.ranks == (0,)
    assert first.text() == (
        "LRG206 keys-differ: 'a' was not logged on rank 1, where no batch came; Lightning's reduction of it waits for"
        " every rank. Give every rank a batch, or let the guard run with mode='correct'."
    )


def test_a_number_that_was_replaced_is_put_right() -> None:
    seen = in_orders("ab", "", batches=[1, 0])
    seen = replace(seen, corrected=frozenset(key.first.storage for key in seen.keys))
    assert [finding.corrected for finding in findings_of("LRG206", seen)] == [True, True]


def test_the_order_of_keys_that_nobody_combines_does_not_matter() -> None:
    seen = replace(in_orders("ab", "ba"), orders=((), ()))
    assert not findings_of("LRG206", seen)
