"""Findings are kept, merged, and said once, at the user's line."""

import logging
import warnings
from dataclasses import astuple, replace

import pytest

from lightning_retrieval_guard.findings import Effect, Finding, GuardWarning, Numbers, Severity
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


def on_one_line(warning: warnings.WarningMessage) -> str:
    return " ".join(str(warning.message).split())


def test_the_warning_stands_at_the_users_line() -> None:
    (warning,) = said([WRONG])
    assert warning.category is GuardWarning
    assert (warning.filename, warning.lineno) == ("src/module.py", 212)
    assert on_one_line(warning).startswith("LRG201 gathered-before-sync: 'val_recall' on 2 ranks")


def test_the_same_rule_key_and_line_is_said_once() -> None:
    assert len(said([WRONG, WRONG], [WRONG])) == 1


def test_all_keys_of_a_fault_are_one_warning() -> None:
    (warning,) = said([WRONG, replace(WRONG, key="other")])
    assert "val_recall" in str(warning.message)
    assert "other" in str(warning.message)
    assert len(said([WRONG, replace(WRONG, key="other", line=1)])) == 2


def test_errors_are_said_before_warnings() -> None:
    first, second = said([replace(WRONG, severity=Severity.WARNING, line=1), WRONG])
    assert (first.lineno, second.lineno) == (212, 1)


SANITY = replace(WRONG, stage="sanity_check", effect=Effect(0.0, 0.125))


def test_the_sanity_check_names_a_fault_and_the_first_epoch_has_the_numbers() -> None:
    log = FindingLog()
    (named,) = said([SANITY], [SANITY], log=log)
    words = "seen in the sanity check; the numbers follow after the first epoch."
    assert on_one_line(named) == f"LRG201 gathered-before-sync: {words}"
    assert [finding.effect for finding in log.findings] == [None]
    (warning,) = said([WRONG], [WRONG], log=log)
    assert "0.2109" in str(warning.message)
    assert log.findings == [replace(WRONG, count=2)]


def test_what_has_no_effect_says_why_in_the_sanity_check_too() -> None:
    (named,) = said([replace(SANITY, effect=None)])
    assert "1024 rows" in str(named.message)


def test_what_only_the_sanity_check_saw_is_a_note_where_the_epoch_shows_none() -> None:
    log = FindingLog()
    said([SANITY], [NOTE], log=log)
    assert log.findings == [NOTE]


@pytest.mark.parametrize("changed", [{"code": "LRG203"}, {"key": "other"}, {"line": 213}, {"path": "src/other.py"}])
def test_another_rule_key_or_line_is_said_later_too(changed: dict) -> None:
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
    assert "0.2109" in str(warning.message)


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


def test_what_was_corrected_in_one_epoch_and_not_in_another_is_not_corrected() -> None:
    corrected = replace(WRONG, corrected=True)
    assert merged(corrected, corrected).corrected
    assert merged(corrected, NOTE).corrected
    assert merged(NOTE, corrected).corrected
    assert not merged(corrected, FINDING).corrected
    assert not merged(FINDING, corrected).corrected


def test_a_number_that_was_replaced_is_none_that_was_logged() -> None:
    assert merged(replace(WRONG, corrected=True), FINDING).effect is None
    assert merged(replace(WRONG, corrected=True), NOTE).effect == EFFECT


# --- the end of a run -----------------------------------------------------------------------------------------


def closed(log: FindingLog, capsys: pytest.CaptureFixture[str]) -> str:
    log.end_run()
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_one_line_closes_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    log = FindingLog()
    log.add([WRONG, replace(WRONG, key="other")], say=False)
    numbers = {"val_recall": Numbers(*astuple(EFFECT)), "other": Numbers(0.1, 0.2), "loss": Numbers(0.5, None)}
    log.end_epoch("validate", numbers, 0, 10)
    assert closed(log, capsys) == "RetrievalGuard: 1 fault, 2 of 3 keys wrong\n"
    log.report = "a\x1b.html"
    assert closed(log, capsys) == "RetrievalGuard: 1 fault, 2 of 3 keys wrong. Report: a?.html\n"
    log.earlier = "a-1.html"
    assert closed(log, capsys).endswith("Report: a?.html. An earlier one is now a-1.html\n")


def test_the_next_run_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    log = FindingLog()
    log.add([WRONG], say=False)
    log.end_epoch("validate", {"val_recall": Numbers(*astuple(EFFECT))}, 0, 10)
    log.start_run()
    log.end_epoch("test", {"test_recall": Numbers(0.5, 0.5)}, 0, 10)
    assert closed(log, capsys) == "RetrievalGuard: 1 key watched, nothing found\n"
    assert log.findings == [WRONG]


def test_the_sanity_check_has_no_numbers() -> None:
    log = FindingLog()
    log.end_epoch("sanity_check", {"k": Numbers(0.5, 0.5)}, 0, 0)
    assert log.history == {}
    log.end_epoch("validate", {"k": Numbers(0.5, 0.6)}, 0, 10)
    log.end_epoch("validate", {"k": Numbers(0.7, 0.8)}, 1, 20)
    assert [(one.epoch, one.global_step, one.numbers.logged) for one in log.history["k"]] == [
        (0, 10, 0.5),
        (1, 20, 0.7),
    ]


def test_the_error_of_a_run_that_is_stopped_has_every_fault_at_its_line() -> None:
    log = FindingLog()
    text = log.stop([WRONG, replace(WRONG, key="other"), replace(WRONG, line=3, code="LRG203")])
    heads = [line for line in text.splitlines() if not line.startswith(" ")]
    assert [head[: head.index("gath")] for head in heads] == ["src/module.py:212: LRG201 ", "src/module.py:3: LRG203 "]
    assert log.stopped == ("LRG201", "LRG203")
    assert len(log.findings) == 3
