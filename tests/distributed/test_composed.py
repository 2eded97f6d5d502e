"""Metrics made of metrics: what is wrong with a part of a composition is found at the key that shows it, and corrected.

What a metric feeds to others by itself is not checked, and keeps its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall
from torchmetrics.wrappers import MinMaxMetric

from .evaluate import guards, make_trainer, recorded_warnings
from .harness import Pool
from .programs.data import Batch, queries, rows_of
from .ranks import Shown, on_ranks

pytestmark = pytest.mark.timeout(60)
QUERIES = 14  # with a short last batch, which shows ids that restart


class Composed(LightningModule):
    """Logs half of a recall and half of a reciprocal rank, as an object or from the hook."""

    def __init__(self, fault: str, as_object: bool, ignores: bool = False) -> None:
        super().__init__()
        self.fault, self.as_object, self.ignores = fault, as_object, ignores
        options = {"sync_on_compute": fault != "unsynced"}
        self.mrr, self.recall = RetrievalMRR(**options), RetrievalRecall(top_k=1, **options)
        self.both = 0.5 * self.mrr + 0.5 * self.recall

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(queries(QUERIES, empty=False), batch_size=4)

    def rows(self, batch: Batch) -> tuple[Tensor, ...]:
        preds, target, indexes = rows_of(batch)
        if self.fault == "ids":
            indexes = torch.unique_consecutive(indexes, return_inverse=True)[1]
        if self.fault == "gathered" and self.trainer.world_size > 1:
            everything: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everything, (preds, target, indexes))
            preds, target, indexes = map(torch.cat, zip(*everything, strict=True))
        return preds, target, indexes

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        rows = self.rows(batch)
        self.mrr.update(*rows)
        self.recall.update(*rows)
        if self.as_object:
            self.log_both(self.both)

    def on_validation_epoch_end(self) -> None:
        if not self.as_object:
            self.log_both(self.both.compute())
        self.both.reset()

    def log_both(self, value: Any) -> None:
        with self.trainer.callbacks[0].ignore("LRG") if self.ignores else nullcontext():
            self.log("both", value)


def shown(pool: Pool, mode: str, *arguments: Any) -> list[Shown]:
    return on_ranks(pool, partial(Composed, *arguments), mode)


def reference() -> float:
    metrics = RetrievalMRR(), RetrievalRecall(top_k=1)
    for metric in metrics:
        metric.update(*rows_of(queries(QUERIES, empty=False).columns))
    return sum(float(metric.compute()) for metric in metrics) / 2


FAULTS = {("ids", 1): "LRG301", ("ids", 2): "LRG301", ("gathered", 2): "LRG201", ("unsynced", 2): "LRG203"}
cases = pytest.mark.parametrize(
    ("fault", "world", "as_object"), [(*case, as_object) for case in FAULTS for as_object in (True, False)]
)


@cases
def test_a_fault_of_the_parts(pools: Mapping[int, Pool], fault: str, world: int, as_object: bool) -> None:
    modes = ("none", "warn", "correct")
    plain, warned, corrected = (shown(pools[world], mode, fault, as_object) for mode in modes)
    assert plain[0].numbers["both"] != pytest.approx(reference())
    for rank in range(world):
        assert warned[rank].numbers == plain[rank].numbers
        assert of_both(warned[rank]) == [(FAULTS[fault, world], False)]
        assert corrected[rank].numbers == {"both": pytest.approx(reference())}
        assert of_both(corrected[rank]) == [(FAULTS[fault, world], True)]
    for finding in corrected[0].found:
        if finding.key == "both" and finding.effect is not None:
            numbers = pytest.approx(plain[0].numbers["both"]), pytest.approx(reference())
            assert (finding.effect.logged, finding.effect.reference) == numbers


def of_both(shown: Shown) -> list[tuple[str, bool]]:
    return [(one.code, one.corrected) for one in shown.found if one.key == "both"]


@cases
def test_what_is_ignored_at_the_log_call_stays(
    pools: Mapping[int, Pool], fault: str, world: int, as_object: bool
) -> None:
    plain = shown(pools[world], "none", fault, as_object)
    ignored = shown(pools[world], "correct", fault, as_object, True)
    for one, other in zip(plain, ignored, strict=True):
        assert (other.numbers, of_both(other)) == (pytest.approx(one.numbers), [])


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("as_object", [True, False])
def test_right_parts(pools: Mapping[int, Pool], world: int, as_object: bool) -> None:
    for mode in ("warn", "correct", "strict"):
        for rank in shown(pools[world], mode, "none", as_object):
            assert (rank.numbers, of_both(rank)) == ({"both": pytest.approx(reference())}, [])


# --- metrics in metrics -----------------------------------------------------------------------------------------


class Range(LightningModule):
    """Logs the least and the best reciprocal rank so far, with ids that restart in each batch, and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.range = MinMaxMetric(RetrievalMRR())

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(queries(QUERIES, empty=False), batch_size=4)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        preds, target, indexes = rows_of(batch)
        self.range.update(preds, target, torch.unique_consecutive(indexes, return_inverse=True)[1])
        self.log("mean", preds.mean(), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        self.log("mrr", self.range.compute()["raw"])


def look_at_range(mode: str) -> dict[str, Any]:
    guard = guards(mode, {})
    with recorded_warnings():
        trainer = make_trainer(guard, False)
        trainer.validate(Range(), verbose=False)
    keys = {key: epochs[-1].numbers for each in guard for key, epochs in each._reporter.log.history.items()}
    return {
        "mrr": float(trainer.callback_metrics["mrr"]),
        "found": [one.code for each in guard for one in each.findings],
        "knows": {key: numbers.reference is not None for key, numbers in keys.items()},
    }


@pytest.mark.parametrize("world", [1, 2])
def test_what_a_metric_feeds_by_itself_is_not_checked(pools: Mapping[int, Pool], world: int) -> None:
    shown = {}
    for mode in ("none", "warn", "correct", "strict"):
        for value in pools[world].values(f"{__name__}:look_at_range", mode=mode):
            assert shown.setdefault("mrr", value["mrr"]) == value["mrr"]
            assert not value["found"]
            assert mode == "none" or value["knows"] == {"mean": True, "mrr": False}
