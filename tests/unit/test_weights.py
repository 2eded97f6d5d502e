"""How the batch sizes of log calls are counted."""

import numpy as np
import pytest
import torch

from lightning_retrieval_guard.epoch.facts import WeightCounts
from lightning_retrieval_guard.watch.batches import BatchSize
from lightning_retrieval_guard.watch.keys import Weights

BATCH = BatchSize(samples=4, nominal=8, shapes=((4, 3),))


@pytest.mark.parametrize(("used", "integral"), [(4, True), (np.int64(4), True), (4.0, False), (np.float32(4), False)])
def test_any_kind_of_integer_is_one_that_lightning_floors(used: object, integral: bool) -> None:
    weights = Weights()
    weights.note(used, True, BATCH, 1.0, 2)
    assert (weights.facts.equal, weights.integral) == (1, integral)


def test_a_tensor_is_not_looked_into() -> None:
    weights = Weights()
    weights.note(torch.tensor(3), True, BATCH, 1.0, 2)
    assert (weights.facts.equal, weights.facts.nominal, weights.weight) == (0, 0, 0.0)


def test_what_the_sums_lack_is_kept_for_the_end_of_the_epoch() -> None:
    weights = Weights()
    weights.note(8, True, BATCH, 0.5, 1)
    assert (weights.facts.nominal, weights.value, weights.weight) == (1, 0.5 * (4 - 8), 4 - 8)


def test_weights_vary_when_they_are_no_multiple_of_the_samples() -> None:
    weights = Weights()
    weights.note(16, True, BatchSize(8, 8, ()), 1.0, 2)
    assert not weights.varies
    weights.note(16, True, BATCH, 1.0, 2)
    assert weights.varies


FULL, SHORT, HALF = BatchSize(8, 8, ((8, 3),)), BatchSize(4, 16, ((4, 3),)), BatchSize(4, 8, ((4, 3),))
UNKNOWN = BatchSize(None, 8, ((4, 3),))


@pytest.mark.parametrize(
    ("used", "given", "batch", "world_size", "counts"),
    [
        (8, True, FULL, 2, {"equal": 1}),
        (8, False, FULL, 2, {"equal": 1}),
        (16, True, FULL, 2, {"times_world": 1}),
        (16, True, FULL, 1, {}),
        (16, False, FULL, 2, {"guessed": 1}),
        (8, True, SHORT, 2, {"times_world": 1}),
        (8, True, HALF, 2, {"either": 1}),
        (8, True, HALF, 1, {"nominal": 1}),
        (8, True, HALF, 4, {"nominal": 1}),
        (32, True, SHORT, 2, {"times_world_nominal": 1}),
        (32, True, SHORT, 1, {}),
        (16, True, SHORT, 3, {"nominal": 1}),
        (0, True, BatchSize(4, None, ((4, 3),)), 2, {}),
        (5, True, FULL, 2, {}),
        (4, False, UNKNOWN, 2, {}),
        (4, False, BatchSize(None, 8, ((4, 3), (6, 3))), 2, {"unsure": 1}),
        (4, True, BatchSize(None, 8, ((4, 3), (6, 3))), 2, {}),
    ],
)
def test_each_call_is_counted_as_what_it_looks_like(
    used: int, given: bool, batch: BatchSize, world_size: int, counts: dict[str, int]
) -> None:
    weights = Weights()
    weights.note(used, given, batch, 1.0, world_size)
    expected = WeightCounts(**counts, explained=weights.explained)
    assert weights.facts == expected


def test_the_sizes_of_a_batch_explain_a_weight_and_no_other_number_does() -> None:
    weights = Weights()
    weights.note(32, True, BatchSize(8, 8, ((8, 4),)), 1.0, 1)
    assert weights.explained
    weights.note(5, True, BatchSize(8, 8, ((8, 4),)), 1.0, 1)
    assert not weights.explained
    weights.note(32, True, BatchSize(8, 8, ((8, 4),)), 1.0, 1)
    assert not weights.explained


@pytest.mark.parametrize("first", [4, 8, 2])
def test_the_first_equal_weight_is_compared_with_those_before(first: int) -> None:
    weights = Weights()
    weights.note(first, True, BATCH, 1.0, 1)
    weights.note(4, True, BATCH, 1.0, 1)
    weights.note(4, True, BATCH, 1.0, 1)
    assert weights.varies is (first != 4)
    assert weights.facts.equal == (3 if first == 4 else 2)


def test_a_key_of_floats_and_integers_is_not_of_integers() -> None:
    for order in ((torch.tensor(3), torch.tensor(3.0)), (torch.tensor(3.0), torch.tensor(3))):
        weights = Weights()
        assert weights.integral
        for used in order:
            weights.note(used, True, BATCH, 1.0, 1)
        assert not weights.integral
