"""In a step the guard waits for no device: it adds no copy to the host and reads no scalar."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torchmetrics import MeanMetric

from tests.distributed.counting import Step, counted_waits
from tests.distributed.evaluate import guards, make_trainer, recorded_warnings
from tests.distributed.harness import Pool
from tests.distributed.programs.data import Batch
from tests.distributed.ranks import once

from .ways import WAYS, AtEnd

pytestmark = pytest.mark.timeout(90)


class PlainValues(AtEnd):
    """Tensors, floats, a metric of another kind, and a weight that is a tensor."""

    def __init__(self, updates: int, split: bool) -> None:
        super().__init__(updates, split)
        self.mean = MeanMetric()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        score = batch["score"].mean()
        self.mean.update(score)
        self.log("tensor", score, batch_size=self.size, sync_dist=True)
        self.log("weighted", score, batch_size=batch["mask"].sum(), sync_dist=True)
        self.log_dict({"float": 1.0, "mean": self.mean}, sync_dist=True)
        self.log("step", score, on_step=True, on_epoch=True, sync_dist=False, prog_bar=True)
        if batch_idx % 2:
            self.log("forward", self.metric(*self.rows(batch)), batch_size=self.size)


PROGRAMS = {**WAYS, "PlainValues": PlainValues}


def waits(program: str, mode: str) -> dict[str, int]:
    """Validate on this rank; what waited in steps."""
    step = Step()
    trainer = make_trainer(step.around(*guards(mode, {"ignore": ["LRG1"]})), False)
    module = type(program, (PROGRAMS[program],), {"size": 12})(4, False)
    with recorded_warnings(), counted_waits(step) as counts:
        trainer.validate(module, verbose=False)
    return dict(counts)


def counts(pool: Pool, program: str, mode: str) -> list[Counter[str]]:
    return [Counter(waits) for waits in once(pool, f"{__name__}:waits", program=program, mode=mode)]


@pytest.mark.parametrize("mode", ["warn", "correct"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_guard_adds_no_wait(pool: Pool, program: str, mode: str) -> None:
    for plain, guarded in zip(counts(pool, program, "none"), counts(pool, program, mode), strict=True):
        assert not guarded - plain


def test_waits_are_seen() -> None:
    """The counter counts in steps alone."""
    step = Step()
    with counted_waits(step) as seen:
        float(torch.tensor(1.0))
        step.in_step = True
        float(torch.tensor(1.0))
        bool(torch.tensor(1.0) > 0)
        torch.ones(2).tolist()
        torch.ones(2).cpu()
        torch.ones(2).to(torch.float64)
        torch.ones(2).to("meta")
    assert seen == {"aten::_local_scalar_dense": 2, "tolist": 1, "cpu": 1, "aten::_to_copy": 1}
    assert "tolist" not in vars(torch.Tensor)


def test_a_program_that_waits_is_told_apart(pool: Pool) -> None:
    """The programs above wait by themselves, and the counter sees it."""
    assert any(counts(pool, "PlainValues", "none")[0].values())
