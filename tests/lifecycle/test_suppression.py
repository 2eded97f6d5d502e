"""Comments and blocks that keep rules quiet, in real runs on one process, and LRG902 where they were of no use."""

from __future__ import annotations

import json
import linecache
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from lightning_retrieval_guard import Finding, GuardError, GuardWarning, RetrievalGuard
from lightning_retrieval_guard.watch.log_calls import LogWatch
from tests.distributed.programs.data import Batch, rows_of

from .programs import Restarting, floats, make_trainer, merged, reference, restarting_ids

RIGHT = pytest.approx(reference(), abs=1e-6)
MERGED = pytest.approx(merged(), abs=1e-6)


class Commented(Restarting):
    """The comment stands on the line of the call."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch)))
        self.log("mrr", self.metric)  # lrg: ignore[LRG301]

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("tested", self.metric)  # lrg: ignore[LRG203]


class OverLines(Restarting):
    """Several codes, a prefix among them, on any line of the call."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch)))
        self.log(
            "mrr",
            self.metric,  # lrg: ignore[LRG203, LRG30]
        )


class Bare(Restarting):
    """Every rule is silent; the value is computed in the hook at the end."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch)))

    def on_validation_epoch_end(self) -> None:
        self.log("mrr", self.metric.compute())  # lrg: ignore
        self.metric.reset()


class Wrapped(Restarting):
    """The call stands in a block of the guard, or of another."""

    def __init__(self, guard: RetrievalGuard, *codes: str) -> None:
        super().__init__()
        self.quiet = lambda: guard.ignore(*codes)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch)))
        with self.quiet():
            self.log("mrr", self.metric)


def validated(guard: RetrievalGuard, module: Any) -> dict[str, float]:
    [returned] = make_trainer(guard).validate(module, verbose=False)
    return returned


def about(findings: list[Finding], code: str) -> list[Finding]:
    return [finding for finding in findings if finding.code == code]


QUIET = pytest.mark.parametrize("program", [Commented, OverLines, Bare])


@QUIET
def test_it_is_silent_and_changes_nothing(program: type[Restarting]) -> None:
    guard = RetrievalGuard()
    assert validated(guard, program()) == {"mrr": MERGED}
    assert not about(guard.findings, "LRG301")


@QUIET
def test_it_is_not_corrected(program: type[Restarting], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    guard = RetrievalGuard(mode="correct", report=report)
    assert validated(guard, program()) == {"mrr": MERGED}
    assert not about(guard.findings, "LRG301")
    document = json.loads(report.read_text())
    [key] = document["keys"].values()
    assert (key["logged"], key["reference"]) == (MERGED, None)
    assert "LRG301" not in {finding["code"] for finding in document["findings"]}


@QUIET
def test_it_does_not_raise(program: type[Restarting]) -> None:
    assert validated(RetrievalGuard(mode="strict"), program()) == {"mrr": MERGED}


def test_other_codes_keep_their_rules_only() -> None:
    guard = RetrievalGuard(mode="correct")
    with pytest.warns(GuardWarning, match="LRG301"):
        assert validated(guard, Wrapped(guard, "LRG203", "LRG1")) == {"mrr": RIGHT}


# --- blocks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
def test_a_block_around_the_call(mode: Any) -> None:
    guard = RetrievalGuard(mode=mode)
    assert validated(guard, Wrapped(guard, "LRG203", "LRG3")) == {"mrr": MERGED}
    assert not about(guard.findings, "LRG301")


def test_a_block_around_the_run() -> None:
    guard = RetrievalGuard(mode="strict")
    with guard.ignore("LRG301"):
        assert validated(guard, Restarting()) == {"mrr": MERGED}
    assert not guard.findings
    with pytest.raises(GuardError, match="LRG301"):
        validated(guard, Restarting())


class InSomeSteps(Wrapped):
    """The first call stands in the block, the others do not."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch)))
        with self.quiet() if batch_idx == 0 else nullcontext():
            self.log("mrr", self.metric)


def test_a_block_around_some_of_the_calls_is_not_enough() -> None:
    guard = RetrievalGuard(mode="strict")
    with pytest.raises(GuardError, match="LRG301"):
        validated(guard, InSomeSteps(guard, "LRG301"))


# --- of no use --------------------------------------------------------------------------------------------------


def test_what_silenced_nothing_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    guard = RetrievalGuard(report=report)
    validated(guard, OverLines())
    [finding] = guard.findings
    assert (finding.code, finding.severity, finding.path) == ("LRG902", "note", __file__)
    assert linecache.getline(finding.path, finding.line).strip().endswith("# lrg: ignore[LRG203, LRG30]")
    assert finding.text() == (
        "LRG902 unused-suppression: LRG203 in '# lrg: ignore[LRG203, LRG30]' silenced nothing in this run on 1 rank."
        " Take it away, or name the rule that it is meant for."
    )
    assert re.search(r"^RetrievalGuard: .*, 1 note\b", capsys.readouterr().err, re.MULTILINE)
    assert [finding["code"] for finding in json.loads(report.read_text())["findings"]] == ["LRG902"]


def test_a_comment_at_a_call_that_never_ran_is_no_finding() -> None:
    guard = RetrievalGuard()
    validated(guard, Commented())
    assert not guard.findings


def test_a_block_that_silenced_nothing_is_a_note() -> None:
    guard = RetrievalGuard(ignore=["LRG301"])
    validated(guard, Wrapped(guard, "LRG203"))
    [finding] = guard.findings
    assert finding.code == "LRG902"
    assert finding.message.startswith("LRG203 in 'ignore(LRG203)' silenced nothing")
    assert "guard.ignore(*codes)" in linecache.getline(finding.path, finding.line)


@pytest.mark.parametrize("chosen", [{"ignore": ["LRG301", "LRG902"]}, {"select": ["LRG1", "LRG902"]}], ids=str)
def test_rules_that_are_switched_off_are_not_missed(chosen: dict[str, Any]) -> None:
    guard = RetrievalGuard(**chosen)
    validated(guard, Commented())
    assert not guard.findings


class Failing(Commented):
    """The run ends early."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        raise KeyError


def test_a_run_that_ends_early_is_not_judged() -> None:
    guard = RetrievalGuard()
    with pytest.raises(KeyError):
        validated(guard, Failing())
    assert not guard.findings


class RightLater(Restarting):
    """Ids restart until they are told not to, under the same comment."""

    restarts = True

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch) if self.restarts else None))
        self.log("mrr", self.metric)  # lrg: ignore[LRG301]


def test_what_was_of_use_in_a_run_before_is_not_missed() -> None:
    guard, module = RetrievalGuard(), RightLater()
    validated(guard, module)
    module.restarts = False
    validated(guard, module)
    assert not guard.findings
    fresh = RetrievalGuard()
    validated(fresh, module)
    assert [finding.code for finding in fresh.findings] == ["LRG902"]


# --- the guard itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_comment_does_not_silence_a_failure_of_the_guard(monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(LogWatch, "_note_weight", broken)
    monkeypatch.setattr(LogWatch, "_origin_of_object", broken)
    guard = RetrievalGuard(mode=mode)
    trainer = make_trainer(guard)
    with pytest.warns(GuardWarning, match="LRG901"):
        trainer.validate(BareObject(), verbose=False)
    assert floats(trainer.callback_metrics) == {"mrr": merged()}
    assert [finding.code for finding in guard.findings] == ["LRG901"]


class BareObject(Restarting):
    """Every rule that a comment can silence is silent."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch)))
        self.log("mrr", self.metric)  # lrg: ignore
