"""A failure of the guard itself: it says so once and steps aside, on all ranks together; strict raises."""

from __future__ import annotations

import itertools
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
from tests.distributed.evaluate import guards, recorded_warnings
from tests.distributed.evaluate import make_trainer as make_ddp_trainer
from tests.distributed.harness import Pool

from .programs import Restarting, Right, Sharded, floats, make_trainer, merged, reference
from .test_no_trace import traces

# one part for each concern: a batch, a log call, an update, a value, the ranks' meeting, the end of the epoch
PARTS: dict[str, tuple[type, str]] = {
    "batch": (StageRecord, "start_batch"),
    "log": (LogWatch, "_note"),
    "update": (MetricWatch, "_note_update"),
    "reset": (MetricWatch, "_note_reset"),
    "sources": (SourceFinder, "in_stage"),
    "message": (FactCollector, "message"),
    "end": (Epochs, "end"),
}
NIGHTLY = pytest.mark.nightly
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


# --- two processes ----------------------------------------------------------------------------------------------


def fail_on(rank: int | None, part: str, mode: str) -> dict[str, Any]:
    """Validate on this rank, where one rank's guard fails."""
    guard, module = guards(mode, {}), Sharded()
    trainer = make_ddp_trainer(guard, False)
    owner, name = PARTS[part]
    original = getattr(owner, name)
    if trainer.global_rank == rank:
        setattr(owner, name, broken)
    try:
        with recorded_warnings() as warned:
            [returned] = trainer.validate(module, verbose=False)
    finally:
        setattr(owner, name, original)
    return {
        "mrr": returned["mrr"],
        "said": [one["text"] for one in warned if "GuardWarning" in one["categories"]],
        "findings": [(finding.code, finding.ranks) for each in guard for finding in each.findings],
        "traces": traces(trainer, module),
    }


def plain_numbers(pool: Pool) -> list[float]:
    outcomes = pool.run(f"{__name__}:fail_on", rank=None, part="batch", mode="none")
    return [outcome.value["mrr"] for outcome in outcomes]


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("part", "rank", "mode"),
    [
        pytest.param(part, rank, mode, marks=() if part == "log" or (rank, mode) == (1, "correct") else NIGHTLY)
        for part, rank, mode in itertools.product(("batch", "log", "update", "sources"), (0, 1), ("warn", "correct"))
    ],
)
def test_all_ranks_step_aside_together(pool: Pool, part: str, rank: int, mode: str) -> None:
    outcomes = pool.run(f"{__name__}:fail_on", rank=rank, part=part, mode=mode)
    assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
    assert [outcome.value["mrr"] for outcome in outcomes] == plain_numbers(pool)
    first, second = (outcome.value for outcome in outcomes)
    assert first["findings"] == second["findings"] == [("LRG901", (rank,))]
    [said] = first["said"]
    assert "RuntimeError: out of order" in said
    assert not second["said"]
    assert first["traces"] == second["traces"] == []


@pytest.mark.timeout(90)
@pytest.mark.parametrize("part", ["batch", "log", "sources"])
def test_strict_raises_on_every_rank(pool: Pool, part: str) -> None:
    outcomes = pool.run(f"{__name__}:fail_on", rank=1, part=part, mode="strict")
    for outcome in outcomes:
        assert outcome.status == "raised", str(outcome)
        assert "GuardError" in outcome.error_types
        assert "LRG901" in outcome.error
        assert "out of order" in outcome.error
