"""What the guard keeps alive beyond the program, counted in bytes of living tensors."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalPrecisionRecallCurve

from lightning_retrieval_guard import RetrievalGuard
from lightning_retrieval_guard.epoch.combine import score_update
from lightning_retrieval_guard.epoch.query_ids import Batch
from lightning_retrieval_guard.epoch.row_facts import gather_facts
from lightning_retrieval_guard.epoch.row_table import build_table

from .programs import make_trainer

pytestmark = pytest.mark.timeout(300)
MEBIBYTE = 1 << 20
MODES = ["warn", "correct", "strict"]


@pytest.fixture(autouse=True)
def set_aside() -> None:
    """What lives already is not looked at between any two steps, nor by the tests that follow."""
    gc.collect()
    gc.freeze()


def living_bytes() -> int:
    """Of the memory of all tensors that anybody holds."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if type(thing) in (Tensor, torch.nn.Parameter)]
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in tensors}
    return sum(storages.values())


class Peak(Callback):
    """Looks between two steps, in some of them because that takes long."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.bytes = 0

    def on_validation_batch_end(self, *args: Any) -> None:
        if args[4] % self.every == 0:
            self.bytes = max(self.bytes, living_bytes())


class InEachStep(LightningModule):
    """Makes a metric in each step over a batch's similarities, with ids of the data."""

    kind: Any = RetrievalHitRate

    def __init__(self, steps: int, size: int) -> None:
        super().__init__()
        self.steps, self.size = steps, size

    def val_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(self.steps * self.size), batch_size=self.size)

    def rows(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        random = torch.Generator().manual_seed(int(batch[0]))
        scores = torch.rand(self.size, self.size, generator=random)
        return scores, torch.eye(self.size).long(), batch[:, None].expand(-1, self.size)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        metric = self.kind(**self.options())
        metric.update(*self.rows(batch))
        self.log("value", metric.compute(), batch_size=self.size)

    def options(self) -> dict[str, Any]:
        return {"top_k": 5}


class Reset(InEachStep):
    """Starts one metric anew in each step."""

    def __init__(self, steps: int, size: int) -> None:
        super().__init__(steps, size)
        self.metric = RetrievalMRR()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.metric.update(*self.rows(batch))
        value = self.metric.compute()
        self.metric.reset()
        self.log("value", value, batch_size=self.size)


class Forwarded(Reset):
    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("value", self.metric(*self.rows(batch)), batch_size=self.size)
        self.metric.reset()


def validate(program: LightningModule, *guard: RetrievalGuard, every: int = 1) -> tuple[float, int]:
    """The logged number, and the most bytes between two steps."""
    peak = Peak(every)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        [shown] = make_trainer(*guard, peak).validate(program, verbose=False)
    return shown["value"], peak.bytes


class LongQueries(InEachStep):
    """Eight queries a step, because torchmetrics takes long over many."""

    def rows(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores, target, ids = super().rows(batch)
        return scores, target, ids // (self.size // 8)


@pytest.mark.parametrize(("mode", "steps"), [("warn", 60), ("correct", 200), ("strict", 60)])
def test_steps_of_512_by_512_scores(mode: Any, steps: int) -> None:
    _, plain = validate(LongQueries(3, 512))
    guard = RetrievalGuard(mode)
    _, guarded = validate(LongQueries(steps, 512), guard, every=10)
    assert guarded - plain <= 256 * MEBIBYTE
    assert guarded - plain > 48 * MEBIBYTE  # what the rows of all steps take is more
    assert not [finding for finding in guard.findings if finding.severity != "note"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [InEachStep, Reset, Forwarded])
def test_the_number_stays_and_little_is_held(kind: type[InEachStep], mode: Any) -> None:
    steps, size = 40, 64
    number, plain = validate(kind(steps, size))
    guard = RetrievalGuard(mode, max_held_mb=0.25)
    shown, guarded = validate(kind(steps, size), guard)
    assert shown == pytest.approx(number, abs=1e-6)
    assert guarded - plain <= 0.25 * MEBIBYTE + 64 * steps * size
    assert not [finding for finding in guard.findings if finding.severity != "note"]


class Restarting(InEachStep):
    """Each batch counts its queries from zero; logged without its size, the last batch weighs too much."""

    def val_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(self.steps * self.size - self.size // 2), batch_size=self.size)

    def rows(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores, target, _ = super().rows(batch)
        count = len(batch)
        ids = torch.arange(count)[:, None].expand(-1, self.size)
        return scores[:count], target[:count], ids


@pytest.mark.parametrize("limit", [0.05, 256])
def test_values_serve_where_rows_are_gone(limit: float) -> None:
    """The same findings and the same correction, whether rows or values were kept."""
    guard = RetrievalGuard("correct", max_held_mb=limit)
    shown, _ = validate(Restarting(12, 48), guard)
    reference, queries = 0.0, 0
    program = Restarting(12, 48)
    for batch in program.val_dataloader():
        metric = RetrievalHitRate(top_k=5)
        metric.update(*program.rows(batch))
        reference, queries = reference + float(metric.compute()) * len(batch), queries + len(batch)
    assert shown == pytest.approx(reference / queries, abs=1e-6)
    assert [finding.code for finding in guard.findings if finding.severity != "note"] == ["LRG102"]


class Curves(InEachStep):
    """A metric whose value is more than a number, of which a part is logged."""

    kind = RetrievalPrecisionRecallCurve

    def options(self) -> dict[str, Any]:
        return {"max_k": 3}

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        metric = RetrievalPrecisionRecallCurve(max_k=3)
        metric.update(*self.rows(batch))
        self.log("value", metric.compute()[1][2], batch_size=self.size)


def test_what_only_rows_would_tell_has_no_reference() -> None:
    number, plain = validate(Curves(20, 64))
    guard = RetrievalGuard("correct", max_held_mb=0.1)
    shown, guarded = validate(Curves(20, 64), guard)
    assert shown == number
    assert guarded - plain <= 0.1 * MEBIBYTE + 64 * 20 * 64


def test_a_scored_query_takes_at_most_64_bytes() -> None:
    ids = torch.arange(500).repeat_interleave(20)
    scores = torch.rand(10_000, generator=torch.Generator().manual_seed(0)) - 0.5
    rows = ids, scores, (scores > 0.3).long() + (scores < -0.49).long()
    scored = score_update(rows, RetrievalMRR())
    held = sum(part.numel() * part.element_size() for part in scored.tensors)
    assert held <= 64 * 500
    table = build_table([([ids[:0]], [scores[:0]], [rows[2][:0]])], {0: scored})
    assert table is not None
    facts, _ = gather_facts(table, [Batch(500)], 1)
    whole, _ = gather_facts(build_table([([ids], [scores], [rows[2]])]), [Batch(500)], 1)
    assert facts.rows_dropped
    for name in ("rows", "queries", "fingerprint", "longest_query", "one_query_a_sample", "id_max"):
        assert getattr(facts, name) == getattr(whole, name)
