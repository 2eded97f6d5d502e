"""Which keys are wrong, corrected, right and unchecked."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lightning_retrieval_guard.findings import Effect, Finding, Numbers, Severity
from lightning_retrieval_guard.report.contents import Report
from lightning_retrieval_guard.report.verdict import KeyVerdict, State, judge_keys, verdict_sentence

from .test_findings import EFFECT, FINDING

KEY = FINDING.key
NOTE = replace(FINDING, severity=Severity.NOTE)
WRONG, CORRECTED, RIGHT, UNCHECKED = State


def judged(numbers: Numbers, *findings: Finding) -> KeyVerdict:
    [verdict] = judge_keys(Report("warn", 2, findings, {KEY: numbers}))
    return verdict


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
def test_numbers_and_findings_decide(numbers: Numbers, findings: tuple[Finding, ...], state: State) -> None:
    verdict = judged(numbers, *findings)
    assert (verdict.state, verdict.earlier) == (state, False)


def test_a_finding_at_another_key_does_not_count() -> None:
    other = replace(FINDING, key="other")
    verdict = judged(Numbers(0.5, None), other, NOTE, other)
    assert (verdict.state, verdict.findings) == (UNCHECKED, (1,))


@pytest.mark.parametrize(("corrected", "state"), [(False, WRONG), (True, CORRECTED)])
def test_what_an_earlier_epoch_logged_wrong_stays_so(corrected: bool, state: State) -> None:
    # as the log keeps it: the severity of the first epoch with the effect of the last
    kept = replace(FINDING, effect=Effect(0.5, 0.5), corrected=corrected)
    verdict = judged(Numbers(0.5, 0.5, corrected), kept)
    assert (verdict.state, verdict.earlier) == (state, True)


def test_a_key_of_a_finding_counts_where_the_run_ended_before_it_was_known() -> None:
    findings = (FINDING.with_effect(EFFECT), replace(FINDING, key="no numbers"))
    [verdict] = judge_keys(Report("strict", 2, findings))
    assert (verdict.name, verdict.numbers, verdict.state) == (KEY, Numbers(27 / 128, 27 / 64), WRONG)


def test_keys_stand_in_the_order_of_logging() -> None:
    keys = dict.fromkeys(("b", "a"), Numbers(0.5, 0.5))
    assert [key.name for key in judge_keys(Report("warn", 1, (), keys))] == ["b", "a"]


@pytest.mark.parametrize(
    ("states", "sentence"),
    [
        ([WRONG], "The logged key is wrong."),
        ([CORRECTED], "The logged key was corrected."),
        ([RIGHT], "The logged key is right."),
        ([UNCHECKED], "The logged key could not be checked."),
        ([RIGHT] * 3, "All 3 keys are right."),
        ([CORRECTED] * 2, "All 2 keys were corrected."),
        ([UNCHECKED] * 2, "All 2 keys could not be checked."),
        ([RIGHT, WRONG], "1 of 2 keys is wrong, 1 is right."),
        (
            [UNCHECKED, RIGHT, RIGHT, CORRECTED, WRONG, WRONG],
            "2 of 6 keys are wrong, 1 was corrected, 2 are right, 1 could not be checked.",
        ),
        ([CORRECTED, CORRECTED, RIGHT], "2 of 3 keys were corrected, 1 is right."),
    ],
)
def test_the_sentence_counts_them(states: list[State], sentence: str) -> None:
    keys = [KeyVerdict(str(place), Numbers(None, None), state, False, ()) for place, state in enumerate(states)]
    assert verdict_sentence(keys, 0) == sentence


def test_without_keys_the_sentence_tells_of_findings() -> None:
    assert verdict_sentence([], 0) == "Nothing was logged."
    assert verdict_sentence([], 2) == "No logged number is known, but there are findings."
