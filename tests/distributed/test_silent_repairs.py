"""What correct mode repairs has a finding: a metric that one rank computes alone, a `dist_sync_fn` that keeps rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR
from torchmetrics.utilities.distributed import gather_all_tensors

from .evaluate import guards, make_trainer, recorded_warnings
from .harness import Pool
from .programs.data import Batch, queries, rows_of

pytestmark = pytest.mark.timeout(60)
QUERIES = 12


class Program(LightningModule):
    alone = False

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.metric = RetrievalMRR(**options)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(queries(QUERIES, empty=False), batch_size=3)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch))

    def on_validation_epoch_end(self) -> None:
        if not self.alone or self.trainer.is_global_zero:
            self.log("mrr", self.metric.compute(), rank_zero_only=self.alone)


class ComputesAlone(Program):
    alone = True


def keep(tensor: Tensor, group: Any = None) -> list[Tensor]:
    return [tensor]


PROGRAMS = {
    "alone": ComputesAlone,
    "keeps": lambda: Program(dist_sync_fn=keep),
    "gathers": lambda: Program(dist_sync_fn=gather_all_tensors),
}


def evaluate(program: str, mode: str) -> dict[str, Any]:
    guard = guards(mode, {})
    with recorded_warnings():
        trainer = make_trainer(guard, False)
        trainer.validate(PROGRAMS[program](), verbose=False)
    shown = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {"mrr": shown.get("mrr"), "found": [(one.code, one.line, one.corrected) for one in guard[0].findings]}


def values(pool: Pool, program: str, mode: str) -> list[dict[str, Any]]:
    outcomes = pool.run(f"{__name__}:evaluate", program=program, mode=mode)
    assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
    return [outcome.value for outcome in outcomes]


def reference() -> float:
    metric = RetrievalMRR()
    metric.update(*rows_of(queries(QUERIES, empty=False).columns))
    return float(metric.compute())


LINE = Program.on_validation_epoch_end.__code__.co_firstlineno + 2


def test_a_metric_that_rank_zero_computes_alone(pools: Mapping[int, Pool]) -> None:
    first, second = values(pools[2], "alone", "correct")
    assert first == {"mrr": pytest.approx(reference()), "found": [("LRG204", LINE, True)]}
    assert second == {"mrr": None, "found": first["found"]}


def test_rows_that_the_programs_own_function_keeps(pools: Mapping[int, Pool]) -> None:
    warned, other = values(pools[2], "keeps", "warn")
    assert warned["found"] == [("LRG203", LINE, False)]
    assert warned["mrr"] != pytest.approx(other["mrr"])
    for corrected in values(pools[2], "keeps", "correct"):
        assert corrected == {"mrr": pytest.approx(reference()), "found": [("LRG203", LINE, True)]}


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
def test_rows_that_the_programs_own_function_gathers(pools: Mapping[int, Pool], mode: str) -> None:
    for value in values(pools[2], "gathers", mode):
        assert value == {"mrr": pytest.approx(reference()), "found": []}
