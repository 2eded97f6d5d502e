"""How the batch sizes of log calls are counted."""

import numpy as np
import pytest
import torch

from lightning_retrieval_guard.observe.keys import Weights
from lightning_retrieval_guard.observe.samples import BatchSize

BATCH = BatchSize(samples=4, nominal=8, shapes=((4, 3),))


@pytest.mark.parametrize(("used", "integral"), [(4, True), (np.int64(4), True), (4.0, False), (np.float32(4), False)])
def test_any_kind_of_integer_is_one_that_lightning_floors(used: object, integral: bool) -> None:
    weights = Weights()
    weights.note(used, True, BATCH, 1.0, 2)
    assert (weights.equal, weights.integral) == (1, integral)


def test_a_tensor_is_not_looked_into() -> None:
    weights = Weights()
    weights.note(torch.tensor(3), True, BATCH, 1.0, 2)
    assert (weights.equal, weights.nominal, weights.weight) == (0, 0, 0.0)


def test_what_the_sums_lack_is_kept_for_the_end_of_the_epoch() -> None:
    weights = Weights()
    weights.note(8, True, BATCH, 0.5, 1)
    assert (weights.nominal, weights.value, weights.weight) == (1, 0.5 * (4 - 8), 4 - 8)


def test_weights_vary_when_they_are_no_multiple_of_the_samples() -> None:
    weights = Weights()
    weights.note(16, True, BatchSize(8, 8, ()), 1.0, 2)
    assert not weights.varies
    weights.note(16, True, BATCH, 1.0, 2)
    assert weights.varies
