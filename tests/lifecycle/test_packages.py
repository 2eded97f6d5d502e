"""The guard is a callback of `lightning`, and works with modules, trainers and callbacks of both packages."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import lightning.pytorch as lightning
import pytest
import pytorch_lightning
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import GuardWarning, RetrievalGuard
from lightning_retrieval_guard._compat import REFUSED_CALLBACKS
from tests.distributed.programs.data import rows_of

from .programs import RestartingIds, floats, make_trainer, merged, reference, restarting_ids

PACKAGES = pytest.mark.parametrize("package", [lightning, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
CALLBACKS = pytest.mark.parametrize("other", [lightning, pytorch_lightning], ids=["lightning", "pytorch_lightning"])


def callback_that_logs(package: ModuleType) -> Any:
    """Has a metric of its own, with ids that restart, and logs it with `log` and `log_dict`."""

    class Logs(package.Callback):
        def __init__(self) -> None:
            self.metric = RetrievalMRR()

        def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            self.metric.update(*rows_of(batch, restarting_ids(batch)))

        def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
            self.log("callback/log", self.metric.compute())
            self.log_dict({"callback/log_dict": self.metric.compute()})
            self.metric.reset()

    return Logs()


def validate(package: ModuleType, other: ModuleType, guard: RetrievalGuard | None) -> dict[str, float]:
    if other is not package and REFUSED_CALLBACKS.shown_by(package.__name__.partition(".")[0]):
        pytest.skip("this version refuses callbacks of the other package")
    module = type("Module", (RestartingIds, package.LightningModule), {})()
    guards = [] if guard is None else [guard]
    trainer = make_trainer(callback_that_logs(other), *guards, package=package)
    [returned] = trainer.validate(module, verbose=False)
    assert floats(trainer.callback_metrics) == returned
    return returned


KEYS = ("mrr", "callback/log", "callback/log_dict")


@CALLBACKS
@PACKAGES
def test_correct_logs_the_reference(package: ModuleType, other: ModuleType) -> None:
    guard = RetrievalGuard(mode="correct")
    with pytest.warns(GuardWarning, match="LRG301"):
        shown = validate(package, other, guard)
    assert shown == {key: pytest.approx(reference(), abs=1e-6) for key in KEYS}
    assert {finding.key for finding in guard.findings if finding.corrected} == set(KEYS)


@CALLBACKS
@PACKAGES
def test_warn_says_it_and_changes_nothing(package: ModuleType, other: ModuleType) -> None:
    guard = RetrievalGuard()
    plain = validate(package, other, None)
    with pytest.warns(GuardWarning, match="LRG301"):
        shown = validate(package, other, guard)
    assert shown == plain == dict.fromkeys(KEYS, merged())
    effects = {finding.key: finding.effect for finding in guard.findings}
    assert effects.keys() == set(KEYS)
    for effect in effects.values():
        assert (effect.logged, effect.reference) == pytest.approx((merged(), reference()), abs=1e-6)
