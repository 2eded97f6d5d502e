"""Findings are kept, merged, and said once, at the user's line."""

import logging
import warnings
from dataclasses import replace

import pytest

from lightning_retrieval_guard.findings import Effect, Finding, GuardWarning, Severity
from lightning_retrieval_guard.report.log import FindingLog

from .test_findings import EFFECT, FINDING

WRONG = FINDING.with_effect(EFFECT)
NOTE = replace(FINDING, severity=Severity.NOTE)


def said(*rounds: list[Finding], say: bool = True, log: FindingLog | None = None) -> list[warnings.WarningMessage]:
    log = log or FindingLog()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for findings in rounds:
            log.add(findings, say=say)
    return caught


def test_the_warning_stands_at_the_users_line() -> None:
    (warning,) = said([WRONG])
    assert warning.category is GuardWarning
    assert (warning.filename, warning.lineno) == ("src/module.py", 212)
    assert str(warning.message) == WRONG.text()


def test_the_same_rule_key_and_line_is_said_once() -> None:
    assert len(said([WRONG, WRONG], [WRONG])) == 1


@pytest.mark.parametrize("changed", [{"code": "LRG203"}, {"key": "other"}, {"line": 213}, {"path": "src/other.py"}])
def test_another_rule_key_or_line_is_said_too(changed: dict) -> None:
    assert len(said([WRONG], [replace(WRONG, **changed)])) == 2


def test_a_second_run_says_it_again_under_pythons_default_filter() -> None:
    assert len(said([WRONG])) == len(said([WRONG])) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        FindingLog().add([WRONG], say=True)
        FindingLog().add([WRONG], say=True)
    assert len(caught) == 2


def test_notes_and_silent_processes_do_not_warn() -> None:
    assert not said([NOTE])
    log = FindingLog()
    assert not said([WRONG], say=False, log=log)
    assert log.findings == [WRONG]


def test_a_note_that_becomes_an_error_is_said() -> None:
    (warning,) = said([NOTE], [WRONG])
    assert "Logged 0.2109" in str(warning.message)


def test_turned_into_an_error_it_raises_and_is_kept() -> None:
    log = FindingLog()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GuardWarning)
        with pytest.raises(GuardWarning, match="LRG201"):
            log.add([WRONG], say=True)
    assert log.findings == [WRONG]


def test_all_findings_are_kept_when_the_first_one_raises() -> None:
    log = FindingLog()
    with pytest.raises(GuardWarning):
        log.add([WRONG, replace(WRONG, key="other")], say=True)
    assert [finding.key for finding in log.findings] == ["val_recall", "other"]


def test_logging_captures_it(caplog: pytest.LogCaptureFixture) -> None:
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            FindingLog().add([WRONG], say=True)
    finally:
        logging.captureWarnings(False)
    assert "src/module.py:212" in caplog.text
    assert "LRG201" in caplog.text


def merged(*findings: Finding) -> Finding:
    log = FindingLog()
    for finding in findings:
        log.add([finding], say=False)
    (one,) = log.findings
    return one


def test_epochs_are_counted_and_ranks_joined() -> None:
    one = merged(WRONG, replace(WRONG, ranks=(2,)), WRONG)
    assert (one.count, one.ranks) == (3, (0, 1, 2))


def test_the_latest_numbers_are_kept() -> None:
    assert merged(WRONG, replace(FINDING, effect=Effect(0.1, 0.2))).effect == Effect(0.1, 0.2)
    assert merged(WRONG, FINDING).effect == EFFECT


def test_what_was_wrong_once_stays_wrong() -> None:
    assert merged(WRONG, FINDING.with_effect(Effect(0.5, 0.5))).severity is Severity.ERROR
    assert merged(NOTE, WRONG).severity is Severity.ERROR
    assert merged(replace(WRONG, corrected=True), WRONG).corrected


def test_a_table_shows_each_finding_once(capsys: pytest.CaptureFixture[str]) -> None:
    log = FindingLog()
    log.print_table("validate")
    assert capsys.readouterr() == ("", "")
    log.add([WRONG], say=False)
    log.print_table("validate")
    out, err = capsys.readouterr()
    assert out == ""
    assert "val_recall" in err
    log.add([WRONG, replace(WRONG, key="other")], say=False)
    log.print_table("test")
    err = capsys.readouterr().err
    assert "findings of test" in err
    assert "other" in err
    assert "val_recall" not in err
