"""A run that the guard cannot join: other ranks than torch.distributed connects, or another Lightning."""

from __future__ import annotations

from typing import Any

import pytest
import torch.distributed as dist
from torchmetrics import Metric

from lightning_retrieval_guard import GuardError, GuardWarning, RetrievalGuard, _compat

from .programs import Right, in_words, make_trainer, reference


class Connected(RetrievalGuard):
    """Lets only the guard see the other rank, so that the run itself is that of one process."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dist, "is_initialized", lambda: True)
            patch.setattr(dist, "get_world_size", lambda *_: 2)
            super().setup(*args, **kwargs)


def test_the_guard_steps_aside_and_the_run_goes_on() -> None:
    guard = Connected(mode="correct")
    with pytest.warns(GuardWarning, match=in_words("the trainer works on 1 ranks, but torch.distributed connects 2")):
        [numbers] = make_trainer(guard).validate(Right(), verbose=False)
    assert numbers["mrr"] == pytest.approx(reference(), abs=1e-6)
    assert [finding.code for finding in guard.findings] == ["LRG901"]


def test_strict_refuses_to_start() -> None:
    with pytest.raises(GuardError, match=r"LRG901 .*connects 2"):
        make_trainer(Connected(mode="strict")).validate(Right(), verbose=False)


class Elsewhere(RetrievalGuard):
    """Meets a Lightning that has moved one of the names that the guard patches."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_compat, "evaluation_loops", _moved)
            super().setup(*args, **kwargs)


def _moved(_: Any) -> Any:
    raise AttributeError("'Trainer' object has no attribute 'validate_loop'")


def test_a_name_that_has_moved_costs_the_guard_only() -> None:
    guard, module = Elsewhere(mode="correct"), Right()
    before = {name: vars(Metric).get(name) for name in ("__init__", "__call__", "reset", "__setstate__")}
    with pytest.warns(GuardWarning, match=in_words("no attribute 'validate_loop'")):
        [numbers] = make_trainer(guard).validate(module, verbose=False)
    assert numbers["mrr"] == pytest.approx(reference(), abs=1e-6)
    assert {name: vars(Metric).get(name) for name in before} == before
    assert "on_validation_epoch_end" not in vars(module)
