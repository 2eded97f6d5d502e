"""Findings of one cause together, and which keys are wrong, corrected, right and unchecked."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from lightning_retrieval_guard.findings import Effect, Finding, Numbers, Severity
from lightning_retrieval_guard.report.faults import KeyState, KeyVerdict, group, judge_keys, ratio_text, verdict

from .test_findings import EFFECT, FINDING

KEY = FINDING.key
NOTE = replace(FINDING, severity=Severity.NOTE)
WRONG, CORRECTED, RIGHT, UNCHECKED = KeyState


def judged(numbers: Numbers, *findings: Finding) -> KeyVerdict:
    [judged] = judge_keys({KEY: numbers}, findings)
    return judged


@pytest.mark.parametrize(
    ("numbers", "findings", "state"),
    [
        (Numbers(0.5, 0.5), (), RIGHT),
        (Numbers(0.5, 0.5), (NOTE,), RIGHT),
        (Numbers(0.5, 0.5), (FINDING,), RIGHT),  # both numbers were seen, and are the same
        (Numbers(0.5, 0.5, corrected=True), (), RIGHT),
        (Numbers(math.nan, math.nan), (), RIGHT),
        (Numbers(0.5, 0.6), (), WRONG),
        (Numbers(0.5, math.nan), (), WRONG),
        (Numbers(0.5, 0.6), (NOTE,), WRONG),
        (Numbers(0.5, 0.6), (FINDING,), WRONG),
        (Numbers(0.5, 0.6, corrected=True), (FINDING,), CORRECTED),
        (Numbers(0.5, 0.6, corrected=True), (), CORRECTED),
        (Numbers(None, 0.6, corrected=True), (FINDING,), CORRECTED),
        (Numbers(None, 0.6, corrected=True), (), RIGHT),  # the guard put it there, and nothing was wrong
        (Numbers(None, 0.6), (FINDING,), WRONG),
        (Numbers(None, 0.6), (NOTE,), UNCHECKED),
        (Numbers(0.5, None), (), UNCHECKED),
        (Numbers(0.5, None), (NOTE,), UNCHECKED),
        (Numbers(0.5, None), (FINDING,), WRONG),
        (Numbers(None, None), (), UNCHECKED),
    ],
)
def test_numbers_and_findings_decide(numbers: Numbers, findings: tuple[Finding, ...], state: KeyState) -> None:
    key = judged(numbers, *findings)
    assert (key.state, key.earlier) == (state, False)


def test_a_finding_at_another_key_does_not_count() -> None:
    other = replace(FINDING, key="other")
    assert judged(Numbers(0.5, None), other, NOTE, other).state is UNCHECKED


def test_a_key_has_the_codes_of_what_is_more_than_a_note_once() -> None:
    findings = (FINDING, NOTE, replace(FINDING, line=3), replace(FINDING, code="LRG203"))
    assert judged(Numbers(0.5, None), *findings).codes == ("LRG201", "LRG203")


@pytest.mark.parametrize(("corrected", "state"), [(False, WRONG), (True, CORRECTED)])
def test_what_an_earlier_epoch_logged_wrong_stays_so(corrected: bool, state: KeyState) -> None:
    # as the log keeps it: the severity of the first epoch with the effect of the last
    kept = replace(FINDING, effect=Effect(0.5, 0.5), corrected=corrected)
    key = judged(Numbers(0.5, 0.5, corrected), kept)
    assert (key.state, key.earlier) == (state, True)


def test_a_key_of_a_finding_counts_where_the_run_ended_before_it_was_known() -> None:
    findings = (FINDING.with_effect(EFFECT), replace(FINDING, key="no numbers"))
    [judged] = judge_keys({}, findings)
    assert (judged.name, judged.numbers, judged.state) == (KEY, Numbers(27 / 128, 27 / 64), WRONG)


def test_keys_stand_in_the_order_of_logging() -> None:
    keys = dict.fromkeys(("b", "a"), Numbers(0.5, 0.5))
    assert [key.name for key in judge_keys(keys, ())] == ["b", "a"]


# --- faults ---------------------------------------------------------------------------------------------------


def test_findings_of_one_rule_line_and_fix_are_one_fault_whatever_their_key() -> None:
    findings = [FINDING, replace(FINDING, key="other", message="another text"), replace(FINDING, stage="test")]
    [fault] = group(findings)
    assert (fault.id, fault.findings) == ("LRG201-1", tuple(findings))


@pytest.mark.parametrize("changed", [{"code": "LRG203"}, {"line": 213}, {"path": "src/other.py"}, {"fix": "Do not."}])
def test_another_rule_line_or_fix_is_another_fault(changed: dict[str, Any]) -> None:
    assert len(group([FINDING, replace(FINDING, key="other", **changed)])) == 2


def test_errors_come_first_among_faults_and_within_each() -> None:
    warning = replace(FINDING, severity=Severity.WARNING, line=1)
    right = replace(NOTE, key="right")
    faults = group([replace(NOTE, line=9), warning, right, FINDING])
    assert [fault.id for fault in faults] == ["LRG201-1", "LRG201-2", "LRG201-3"]
    assert [fault.severity for fault in faults] == [Severity.ERROR, Severity.WARNING, Severity.NOTE]
    assert faults[0].findings == (FINDING, right)
    assert faults[0].serious == (FINDING,)


def test_a_fault_is_corrected_where_every_wrong_number_was_replaced() -> None:
    corrected = replace(FINDING, corrected=True)
    assert group([corrected, replace(NOTE, key="right")])[0].corrected
    assert not group([corrected, replace(FINDING, key="other")])[0].corrected


@pytest.mark.parametrize(
    ("scales", "effect", "world_size", "words"),
    [
        (True, Effect(0.25, 0.5), 2, "1/2: the number of ranks"),
        (True, Effect(1.5, 0.5), 3, "3 times: the number of ranks"),
        (True, Effect(0.3, 0.5), 2, ""),
        (True, None, 2, ""),
        (False, Effect(0.25, 0.5), 2, ""),  # by chance
    ],
)
def test_a_ratio_is_told_where_the_rule_says_that_it_is_the_mechanism(
    scales: bool, effect: Effect | None, world_size: int, words: str
) -> None:
    finding = replace(FINDING, scales_by_ranks=scales, effect=effect, world_size=world_size)
    assert ratio_text(finding) == words


# --- the verdict ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "findings", "sentence"),
    [
        ([], [], "no epoch value logged, nothing found"),
        ([RIGHT], [], "1 key watched, nothing found"),
        ([RIGHT, UNCHECKED], [], "2 keys watched, nothing found"),
        ([RIGHT], [NOTE], "1 key watched, nothing found, 1 note"),
        (
            [RIGHT, RIGHT],
            [NOTE, replace(NOTE, key="other"), replace(NOTE, line=1)],
            "2 keys watched, nothing found, 2 notes",
        ),
        ([WRONG], [FINDING, replace(NOTE, key="other")], "1 fault, 1 of 1 key wrong"),
        ([WRONG] * 20 + [RIGHT] * 2, [FINDING], "1 fault, 20 of 22 keys wrong"),
        ([CORRECTED, CORRECTED, UNCHECKED], [FINDING], "1 fault, 2 of 3 keys corrected"),
        (
            [WRONG, CORRECTED, RIGHT],
            [FINDING, replace(FINDING, line=1), replace(NOTE, line=2)],
            "2 faults, 1 of 3 keys wrong, 1 corrected, 1 note",
        ),
        ([], [FINDING], "1 fault"),
        ([RIGHT], [FINDING], "1 fault"),
        ([WRONG, RIGHT], [], "1 of 2 keys wrong"),  # the rule is ignored
    ],
)
def test_the_verdict_counts_faults_and_keys(states: list[KeyState], findings: list[Finding], sentence: str) -> None:
    keys = [KeyVerdict(str(index), Numbers(None, None), state, False, ()) for index, state in enumerate(states)]
    assert verdict(keys, findings) == sentence
