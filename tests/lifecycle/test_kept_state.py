"""LRG401: a metric holds what it was fed in another epoch. LRG404 is in tests/programs and tests/distributed."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import MaxMetric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR

from lightning_retrieval_guard import RetrievalGuard
from tests.distributed.harness import Pool
from tests.distributed.programs.data import Batch, rows_of
from tests.distributed.ranks import on_ranks

from .programs import BATCH, QUERIES, Trainable, make_trainer

pytestmark = pytest.mark.timeout(90)
EPOCHS = 3


def moved(batch: Batch, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of a batch with other scores in each epoch."""
    scores, target, ids = rows_of(batch)
    return scores * (1 + 2.7 * epoch) % 1 + 0.01, target, ids


class NeverReset(Trainable, LightningModule):
    """Scores change from epoch to epoch, and nobody resets the metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = RetrievalMRR()
        self.several = MetricCollection({"first": RetrievalMRR(), "hit": RetrievalHitRate(top_k=1)})
        self.accuracy = BinaryAccuracy()
        self.best = MaxMetric()
        self.shown: list[dict[str, float]] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores, target, ids = moved(batch, len(self.shown))
        self.metric.update(scores, target, ids)
        self.several.update(scores, target, indexes=ids)
        self.accuracy.update(scores.clamp(max=1), target)

    def on_validation_epoch_end(self) -> None:
        value = self.metric.compute()
        if not self.trainer.sanity_checking:
            self.best.update(value)
        self.log_dict({"mrr": value, "accuracy": self.accuracy.compute(), "best": self.best.compute()})
        self.log_dict(self.several.compute())

    def on_validation_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.shown.append({name: float(value) for name, value in self.trainer.callback_metrics.items()})


class Reset(NeverReset):
    def on_validation_epoch_start(self) -> None:
        for metric in (self.metric, self.accuracy, self.several):
            metric.reset()


def fit(module: Any, *guard: RetrievalGuard, sanity: int = 0, **options: Any) -> list[dict[str, float]]:
    """The numbers of every validation."""
    trainer = make_trainer(*guard, max_epochs=EPOCHS, num_sanity_val_steps=sanity, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module)
    shown: list[dict[str, float]] = module.shown
    return shown


@pytest.fixture(scope="module")
def fresh() -> list[dict[str, float]]:
    return fit(Reset())


def above_note(guard: RetrievalGuard) -> dict[str, Any]:
    return {f"{finding.code} {finding.key}": finding for finding in guard.findings if finding.severity != "note"}


STALE = {f"LRG401 {key}" for key in ("mrr", "first", "hit", "accuracy")}


@pytest.mark.parametrize("sanity", [0, 2])
def test_warn_tells_of_stale_rows(fresh: list[dict[str, float]], sanity: int) -> None:
    guard = RetrievalGuard()
    plain = fit(NeverReset(), sanity=sanity)
    assert fit(NeverReset(), guard, sanity=sanity) == plain
    findings = above_note(guard)
    assert set(findings) == STALE
    for key in ("mrr", "first", "hit"):
        effect = findings[f"LRG401 {key}"].effect
        assert effect.logged == pytest.approx(plain[-1][key], abs=1e-6)
        assert effect.reference == pytest.approx(fresh[-1][key], abs=1e-6)
    first = findings["LRG401 mrr"]
    assert "still counts" in first.message
    assert "rows of earlier epochs" in first.message
    assert "updates of earlier epochs" in findings["LRG401 accuracy"].message


def test_the_first_epoch_after_the_sanity_check_tells_of_it() -> None:
    guard = RetrievalGuard()
    trainer = make_trainer(guard, max_epochs=1, num_sanity_val_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(NeverReset())
    assert "rows of the sanity check." in above_note(guard)["LRG401 mrr"].message


@pytest.mark.parametrize("sanity", [0, 2])
def test_correct_drops_them(fresh: list[dict[str, float]], sanity: int) -> None:
    guard = RetrievalGuard("correct")
    shown = fit(NeverReset(), guard, sanity=sanity)
    for shown_value, right in zip(shown, fresh, strict=True):
        assert shown_value == pytest.approx(right, abs=1e-6)
    findings = above_note(guard)
    assert set(findings) == STALE
    assert all(finding.corrected and finding.effect is None for finding in findings.values())
    assert "dropped before they could count" in findings["LRG401 mrr"].message


class Knowing(NeverReset):
    """The user wants all epochs together."""

    def on_validation_epoch_end(self) -> None:
        self.log("mrr", self.metric.compute())  # lrg: ignore[LRG401]


def test_what_the_user_wants_to_keep_is_kept() -> None:
    for guard in (RetrievalGuard("correct", ignore=["LRG4"]), RetrievalGuard("correct")):
        plain, shown = fit(Knowing()), fit(Knowing(), guard)
        assert [shown_value["mrr"] for shown_value in shown] == pytest.approx(
            [shown_value["mrr"] for shown_value in plain], abs=1e-6
        )
        assert not any(key.endswith("mrr") for key in above_note(guard))


class Derived(NeverReset):
    """Shows nothing of its metrics as they compute it, where a finding could stand."""

    def __init__(self) -> None:
        super().__init__()
        self.blend = 0.5 * self.accuracy

    def on_validation_epoch_end(self) -> None:
        several = self.several.compute()
        self.log("several", 1 - several["first"])
        self.log_dict({"mrr": 1 - self.metric.compute(), "accuracy": 1 - self.accuracy.compute()})
        self.log("blend", self.blend.compute())


class ShownToo(Derived):
    """Shows one member of the group by itself, and what it makes of the other one."""

    def on_validation_epoch_end(self) -> None:
        several = self.several.compute()
        self.log_dict({"hit": several["hit"], "several": 1 - several["first"]})
        self.log_dict({"accuracy": self.accuracy.compute(), "blend": self.blend.compute()})


@pytest.mark.parametrize("program", [Derived, ShownToo])
def test_what_the_program_makes_of_stale_values_stays(program: type[NeverReset]) -> None:
    plain, guard = fit(program(), sanity=2), RetrievalGuard("correct")
    found = fit(program(), guard, sanity=2)
    changed = {name for one, other in zip(plain, found, strict=True) for name in one if one[name] != other[name]}
    assert changed == ({"hit"} if program is ShownToo else set())
    assert {finding.key for finding in above_note(guard).values() if finding.corrected} == changed


class CountsByState(NeverReset):
    """A compute group of metrics that keep states: the first one is updated for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.several = MetricCollection([BinaryAccuracy(), BinaryF1Score()])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores, target, _ = moved(batch, len(self.shown))
        self.several.update(scores.clamp(max=1), target)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.several.compute())


def test_every_member_of_a_group_has_a_finding() -> None:
    guard, plain = RetrievalGuard("correct"), fit(CountsByState())
    shown, findings = fit(CountsByState(), guard), above_note(guard)
    assert {key for key, value in shown[-1].items() if value != plain[-1][key]} == {"BinaryAccuracy", "BinaryF1Score"}
    assert {finding.key for finding in findings.values() if finding.corrected} == {"BinaryAccuracy", "BinaryF1Score"}


class ByBatch(CountsByState):
    """Logs values of single batches, which do not depend on what the metric holds, in each epoch."""

    derives = False

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores, target, _ = moved(batch, len(self.shown))
        self.log("f1", self.several["BinaryF1Score"](scores.clamp(max=1), target))

    def on_validation_epoch_end(self) -> None:
        if self.derives:
            self.log("error", 1 - self.several["BinaryF1Score"].compute())


class ByBatchAndDerived(ByBatch):
    derives = True


def test_what_nobody_computes_is_dropped_for_the_value_of_the_epoch() -> None:
    for program, is_corrected in ((ByBatch, True), (ByBatchAndDerived, False)):
        guard, plain = RetrievalGuard("correct"), fit(program())
        shown = fit(program(), guard)
        assert (shown[-1]["f1"] != plain[-1]["f1"]) == is_corrected
        assert shown[-1].get("error") == plain[-1].get("error")


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
def test_a_metric_that_is_reset_is_right(fresh: list[dict[str, float]], mode: Any) -> None:
    guard = RetrievalGuard(mode)
    for shown_value, right in zip(fit(Reset(), guard, sanity=2), fresh, strict=True):
        assert shown_value == pytest.approx(right, abs=1e-6)
    assert not above_note(guard)


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_two_ranks(pool: Pool, fresh: list[dict[str, float]], mode: str) -> None:
    options = {"method": "fit", "max_epochs": EPOCHS, "num_sanity_val_steps": 1}
    for rank in on_ranks(pool, NeverReset, mode, keeps=["shown"], **options):
        assert "LRG401" in {finding.code for finding in rank.findings}
        assert (rank.kept["shown"][-1] == pytest.approx(fresh[-1], abs=1e-6)) == (mode == "correct")


class Window(NeverReset):
    """A metric of the training, logged and reset every third step, whatever the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.window: list[float] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.metric.update(*moved(batch, self.global_step))
        if self.global_step % 3 == 2:
            self.window.append(float(self.metric.compute()))
            self.metric.reset()
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        pass


def test_a_training_may_count_on_from_epoch_to_epoch() -> None:
    plain, guarded, guard = Window(), Window(), RetrievalGuard("correct")
    fit(plain)
    fit(guarded, guard)
    assert guarded.window == pytest.approx(plain.window, abs=1e-6)
    assert len(plain.window) == -(-QUERIES // BATCH) * EPOCHS // 3
    assert not guard.findings
