"""What a program can act on: findings in the caller of forked runs, an error, a fixture, a report in the log folder."""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_retrieval_guard import GuardError, GuardWarning, RetrievalGuard

from .programs import Restarting, Right, make_trainer

pytest_plugins = ["pytester"]
SAID = pytest.warns(GuardWarning, match="LRG301")


def validated(guard: RetrievalGuard, module: Any, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GuardWarning)
        make_trainer(guard, **options).validate(module, verbose=False)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("strategy", "runs"), [("ddp_fork", 2), ("ddp_spawn", 1)])
def test_the_process_that_called_the_trainer_has_the_findings(strategy: str, runs: int) -> None:
    guard = RetrievalGuard()
    for count in range(1, runs + 1):
        validated(guard, Restarting(), devices=2, strategy=strategy)
        [finding] = guard.findings
        assert (finding.code, finding.ranks, finding.count) == ("LRG301", (0, 1), count)
        assert finding.effect is not None
        assert not finding.effect.is_nil
    assert repr(guard) == "RetrievalGuard(mode='warn'): 1 fault, 1 of 1 key wrong"


class LogsTheLoss(Restarting):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("loss", batch["score"].mean(), on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore::lightning_retrieval_guard.GuardWarning")
def test_it_has_the_last_epoch_of_a_fit_that_writes_a_report(tmp_path: Path) -> None:
    guard = RetrievalGuard(report=tmp_path / "report.json")
    make_trainer(guard, devices=2, strategy="ddp_fork", max_epochs=2).fit(LogsTheLoss())
    # a rank's own loss of the training is no result, so it is not called wrong
    assert repr(guard) == "RetrievalGuard(mode='warn'): 1 fault, 1 of 2 keys wrong"
    [finding] = guard.findings
    assert (finding.stage, finding.count) == ("validate", 2)
    document = json.loads((tmp_path / "report.json").read_text())
    assert {key: len(numbers["history"]) for key, numbers in document["keys"].items()} == {"mrr": 2, "loss": 2}
    assert document["keys"]["loss"]["reference"] is None


@pytest.mark.timeout(120)
def test_it_has_those_for_which_a_strict_run_ended_too() -> None:
    guard = RetrievalGuard("strict")
    with pytest.raises(Exception, match="LRG301") as raised:
        validated(guard, Restarting(), devices=2, strategy="ddp_fork")
    # what is patched stays in between, and nothing of what judges
    modules = re.findall(r"lightning_retrieval_guard/(.*?)\.py", str(raised.value))
    assert set(modules) == {"watch/patches", "run/session"}
    assert len(modules) == 2
    assert "lightning_retrieval_guard.GuardError: " in str(raised.value)
    assert [finding.code for finding in guard.findings] == ["LRG301"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="an older Python raises again with the traceback of before")
@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_the_error_of_a_strict_run_shows_the_program_and_lightning_alone(stage: str) -> None:
    with pytest.raises(GuardError, match="LRG301") as raised:
        getattr(make_trainer(RetrievalGuard("strict"), max_epochs=1), stage)(Restarting())
    modules = {entry.frame.f_globals["__name__"].partition(".")[0] for entry in raised.traceback}
    assert modules == {"tests", "lightning"}


def test_findings_can_be_raised() -> None:
    guard = RetrievalGuard()
    guard.raise_for_findings()
    validated(guard, Right())
    guard.raise_for_findings()
    validated(guard, Restarting())
    for least in ("warning", "error"):
        with pytest.raises(GuardError, match=r"programs\.py:\d+: LRG301 restarting-query-ids"):
            guard.raise_for_findings(least)
    with pytest.raises(ValueError, match="at_least='note' is not one of 'warning', 'error'"):
        guard.raise_for_findings("note")


def test_what_was_corrected_is_not_raised() -> None:
    guard = RetrievalGuard("correct")
    validated(guard, Restarting())
    assert [finding.corrected for finding in guard.findings] == [True]
    guard.raise_for_findings()


def test_a_report_may_stand_in_the_folder_of_the_logger(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="runs")
    validated(RetrievalGuard(report="{log_dir}/guard/report.json"), Restarting(), logger=logger)
    report = Path(logger.log_dir, "guard", "report.json")
    assert [finding["code"] for finding in json.loads(report.read_text())["findings"]] == ["LRG301"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("options", [{}, {"devices": 2, "strategy": "ddp_fork"}], ids=["one device", "forked"])
def test_the_report_of_another_run_is_not_overwritten(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    path = tmp_path / "report.json"
    path.write_text("of yesterday")
    guard = RetrievalGuard(report=path)
    for _ in range(2):  # it goes on with its own
        validated(guard, Restarting(), **options)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report-1.json", "report.json"]
    assert (tmp_path / "report-1.json").read_text() == "of yesterday"
    assert json.loads(path.read_text())["findings"][0]["count"] == 2
    last = [line for line in capfd.readouterr().err.splitlines() if line.startswith("RetrievalGuard: ")]
    sentence = f"Report: {path}. An earlier one is now {tmp_path / 'report-1.json'}"
    assert last == [f"RetrievalGuard: 1 fault, 1 of 1 key wrong. {sentence}"] * 2


FIXTURE = """
    import warnings
    from lifecycle.programs import Restarting, Right, make_trainer

    def run(guard, module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make_trainer(guard).validate(module, verbose=False)

    def test_right(retrieval_guard):
        run(retrieval_guard, Right())

    def test_wrong(retrieval_guard):
        run(retrieval_guard, Restarting())
"""


def test_the_fixture_fails_the_test_of_a_wrong_program(pytester: pytest.Pytester) -> None:
    pytester.syspathinsert(Path(__file__).parents[1])
    pytester.makepyfile(FIXTURE)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*GuardError: *programs.py:*: LRG301 restarting-query-ids:*"])
