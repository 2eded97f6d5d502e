"""A failure of the guard itself: it says so once and steps aside, on all ranks together; strict raises."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from lightning_retrieval_guard import GuardError, GuardWarning, RetrievalGuard
from lightning_retrieval_guard.report.log import FindingLog
from lightning_retrieval_guard.run.collect import FactCollector
from lightning_retrieval_guard.run.epochs import Epochs
from lightning_retrieval_guard.run.sources import SourceFinder
from lightning_retrieval_guard.watch.log_calls import LogWatch
from lightning_retrieval_guard.watch.metrics import MetricWatch
from lightning_retrieval_guard.watch.stage import StageRecord
from tests.distributed.harness import Pool
from tests.distributed.ranks import on_ranks

from .programs import Restarting, Right, Sharded, floats, make_trainer, merged, reference
from .test_no_trace import traces

# one part for each concern: a batch, a log call, an update, a value, the ranks' meeting, the end of the epoch
PARTS: dict[str, tuple[type, str]] = {
    "batch": (StageRecord, "start_batch"),
    "log": (LogWatch, "_note"),
    "update": (MetricWatch, "note_update"),
    "reset": (MetricWatch, "note_reset"),
    "sources": (SourceFinder, "in_stage"),
    "message": (FactCollector, "message"),
    "end": (Epochs, "end"),
}
FAILING = pytest.mark.parametrize("part", PARTS)


def broken(*_: Any, **__: Any) -> None:
    raise RuntimeError("out of order")


@pytest.mark.parametrize("mode", ["warn", "correct"])
@FAILING
def test_one_process_steps_aside(monkeypatch: pytest.MonkeyPatch, part: str, mode: Any) -> None:
    monkeypatch.setattr(*PARTS[part], broken)
    guard, module = RetrievalGuard(mode=mode, ignore=["LRG301"]), Restarting()
    trainer = make_trainer(guard, max_epochs=2)
    with pytest.warns(GuardWarning) as said:
        trainer.fit(module)
    [warning] = [one for one in said if one.category is GuardWarning]
    sentence = "LRG901 guard-disabled: the guard failed and stepped aside (RuntimeError: out of order)"
    assert sentence in " ".join(str(warning.message).split())
    assert floats(trainer.callback_metrics)["mrr"] == merged()
    [finding] = guard.findings
    assert (finding.code, finding.severity, finding.count) == ("LRG901", "warning", 1)
    assert traces(trainer, module) == []


@FAILING
def test_strict_raises(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr(*PARTS[part], broken)
    with pytest.raises(GuardError, match=r"LRG901 guard-disabled: .*RuntimeError: out of order"):
        make_trainer(RetrievalGuard(mode="strict")).validate(Right(), verbose=False)


def test_a_run_with_a_new_trainer_starts_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = RetrievalGuard(mode="correct")
    with monkeypatch.context() as patch:
        patch.setattr(StageRecord, "start_batch", broken)
        with pytest.warns(GuardWarning, match="LRG901"):
            make_trainer(guard).validate(Restarting(), verbose=False)
    with pytest.warns(GuardWarning, match="LRG301"):
        [returned] = make_trainer(guard).validate(Restarting(), verbose=False)
    assert returned["mrr"] == pytest.approx(reference(), abs=1e-6)


def test_saying_may_fail_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FindingLog, "end_run", broken)
    trainer = make_trainer(RetrievalGuard())
    with pytest.warns(GuardWarning) as said:
        trainer.validate(Restarting(), verbose=False)
    assert ["LRG901" in str(one.message) for one in said if one.category is GuardWarning] == [False, True]
    assert floats(trainer.callback_metrics) == {"mrr": merged()}


# --- two processes; what becomes of other failures stands in tests/faults -----------------------------------------


class Broken(Sharded):
    """A part of the guard raises on one rank."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.patch = rank, pytest.MonkeyPatch()

    def on_validation_start(self) -> None:
        if self.global_rank == self.rank:
            self.patch.setattr(*PARTS["log"], broken)

    def on_validation_end(self) -> None:
        self.patch.undo()


@pytest.mark.timeout(90)
@pytest.mark.parametrize("mode", ["warn", "correct"])
@pytest.mark.parametrize("rank", [0, 1])
def test_all_ranks_step_aside_together(pool: Pool, rank: int, mode: str) -> None:
    plain, (first, second) = on_ranks(pool, Sharded), on_ranks(pool, partial(Broken, rank), mode)
    assert [first.numbers, second.numbers] == [one.numbers for one in plain]
    assert [(finding.code, finding.ranks) for finding in first.findings] == [("LRG901", (rank,))]
    assert second.findings == first.findings
    [said] = first.said
    assert "RuntimeError: out of order" in said
    assert not second.said
