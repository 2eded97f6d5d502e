"""What Lightning and torchmetrics do wrong by themselves, as far as a correction of the guard depends on it.

A test that fails here says that the installed version has been put right: give the fault in `_compat.py` an upper end.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from lightning.pytorch import LightningModule
from packaging.specifiers import SpecifierSet
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import _compat

from .evaluate import Recorder, guards, make_trainer, recorded_warnings
from .harness import Pool
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(90)


class Plain(LightningModule):
    """Seven samples, one a batch, on two ranks."""

    def val_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(4 - self.global_rank))


class LogsOne(Plain):
    """The constant one, weighted by samples."""

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("one", 1.0, batch_size=len(batch), sync_dist=True)


class LogsInOppositeOrder(Plain):
    """Two constants that are the same on both ranks."""

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        for name, value in sorted({"a": 0.1, "b": 0.9}.items(), reverse=self.global_rank == 1):
            self.log(name, value, batch_size=1.0, sync_dist=True)


class UpdatesUnevenly(Plain):
    """Four updates on one rank and three on the other, each with the answer in the first place."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = RetrievalMRR()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.metric.update(torch.tensor([0.9, 0.1]), torch.tensor([1, 0]), batch.repeat(2) * 2 + self.global_rank)

    def on_validation_epoch_end(self) -> None:
        self.log("mrr", self.metric.compute())


def shown(pool: Pool, program: type[Plain], **options: Any) -> list[dict[str, float]]:
    """What a program logs without a guard."""
    return [rank.numbers for rank in on_ranks(pool, program, use_distributed_sampler=False, **options)]


def test_integer_weights_are_floored(pools: Mapping[int, Pool]) -> None:
    right = [{"one": pytest.approx(1.0)}] * 2
    assert (shown(pools[2], LogsOne) != right) == _compat.FLOORED_WEIGHTS.shown_by("lightning")


def test_keys_are_combined_by_their_order_alone(pools: Mapping[int, Pool]) -> None:
    right = [{"a": pytest.approx(0.1), "b": pytest.approx(0.9)}] * 2
    assert (shown(pools[2], LogsInOppositeOrder) != right) == _compat.ORDER_PAIRS_KEYS.shown_by("lightning")


def test_every_update_is_gathered_by_itself(pools: Mapping[int, Pool]) -> None:
    try:
        works = shown(pools[2], UpdatesUnevenly, timeout=10.0, grace=1.0) == [{"mrr": 1.0}] * 2
    except AssertionError:  # a rank failed, or waits for ever
        works = False
    assert works != _compat.UNEVEN_LISTS.shown_by("torchmetrics")


def judge(program: type[Plain], fault: str | None) -> set[str]:
    """What the guard finds in a program, where upstream has put a fault right."""
    fault_before = getattr(_compat, fault) if fault else None
    if fault:
        setattr(_compat, fault, _compat.Fault("", SpecifierSet("<1")))
    try:
        guard = guards("correct", {})
        with recorded_warnings():
            make_trainer(guard, Recorder(), use_distributed_sampler=False).validate(program(), verbose=False)
        return {finding.code for each in guard for finding in each.findings}
    finally:
        if fault:
            setattr(_compat, fault, fault_before)


@pytest.mark.parametrize(
    ("program", "fault", "code"),
    [
        (LogsOne, "FLOORED_WEIGHTS", "LRG104"),
        (LogsInOppositeOrder, "ORDER_PAIRS_KEYS", "LRG206"),
        (UpdatesUnevenly, "UNEVEN_LISTS", "LRG205"),
    ],
)
def test_a_fault_that_is_put_right_is_no_finding(
    pools: Mapping[int, Pool], program: type[Plain], fault: str, code: str
) -> None:
    for right in (None, fault):
        found = pools[2].values(f"{__name__}:judge", program=program, fault=right)
        assert found == [set() if right else {code}] * 2


def test_callbacks_of_the_other_package_are_refused() -> None:
    try:
        pytorch_lightning.Trainer(accelerator="cpu", logger=False, callbacks=[lightning.pytorch.Callback()])
    except (TypeError, ValueError):
        refused = True
    else:
        refused = False
    assert refused == _compat.REFUSED_CALLBACKS.shown_by("pytorch_lightning")


class Passes(TorchFunctionMode):
    """Calls every function as it is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_compiled_code_fails_under_a_function_mode() -> None:
    @functools.partial(torch.compile, fullgraph=True, backend="eager")
    def mean_of_rows(rows: Tensor) -> Tensor:
        return rows.sum() / rows.size(0)

    expected = pytest.raises(Exception, match="torch") if _compat.TRACED_MODES.shown_by("torch") else nullcontext()
    with expected, Passes():
        mean_of_rows(torch.ones(3))
