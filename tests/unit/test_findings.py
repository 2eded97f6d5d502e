"""Findings: their text, their numbers and their form in the report."""

import json
import math
from dataclasses import replace

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_retrieval_guard._compat import GuardError
from lightning_retrieval_guard.findings import (
    TOLERANCE,
    Effect,
    Finding,
    GuardWarning,
    Severity,
    same_number,
    show_number,
)

FINDING = Finding(
    code="LRG201",
    rule="gathered-before-sync",
    severity=Severity.ERROR,
    key="val_recall",
    stage="validate",
    hook="validation_step",
    path="src/module.py",
    line=212,
    message="'val_recall' on 2 ranks holds the same 1024 rows on every rank, and torchmetrics combines them again.",
    fix="Pass each rank's own rows, or build the metric with sync_on_compute=False.",
    ranks=(0, 1),
    scales_by_ranks=True,
)
EFFECT = Effect(27 / 128, 27 / 64)


def test_the_text_has_verdict_numbers_and_fix_in_this_order() -> None:
    assert FINDING.with_effect(EFFECT).text() == (
        "LRG201 gathered-before-sync: 'val_recall' on 2 ranks holds the same 1024 rows on every rank, and torchmetrics"
        " combines them again. Logged 0.2109, reference 0.4219. Pass each rank's own rows, or build the metric with"
        " sync_on_compute=False."
    )


def test_without_an_effect_the_text_has_no_numbers() -> None:
    assert FINDING.text() == f"LRG201 gathered-before-sync: {FINDING.message} {FINDING.fix}"
    assert FINDING.with_effect(None) is FINDING


def test_it_is_shown_in_one_line() -> None:
    shown = repr(FINDING.with_effect(EFFECT))
    assert shown == "<LRG201 error of 'val_recall' at src/module.py:212: logged 0.2109, one device 0.4219>"
    assert repr(FINDING) == "<LRG201 error of 'val_recall' at src/module.py:212>"
    assert ": would have logged 0.2109," in repr(replace(FINDING, corrected=True, effect=EFFECT))
    assert str(FINDING) == f"src/module.py:212: {FINDING.text()}"


def test_a_corrected_number_was_not_logged() -> None:
    assert " Would have logged 0.2109, reference 0.4219. " in replace(FINDING, corrected=True, effect=EFFECT).text()


@pytest.mark.parametrize(
    ("logged", "reference", "ranks", "said"),
    [
        (27 / 128, 27 / 64, 2, "Logged 0.2109, reference 0.4219 (1/2 of the reference: the number of ranks)."),
        (0.25, 0.75, 3, "Logged 0.2500, reference 0.7500 (1/3 of the reference: the number of ranks)."),
        (1.2, 0.3, 4, "Logged 1.2000, reference 0.3000 (4 x the reference: the number of ranks)."),
        (-0.5, -0.25, 2, "Logged -0.5000, reference -0.2500 (2 x the reference: the number of ranks)."),
        (1e-9, 2e-9 * (1 + 0.9 * TOLERANCE), 2, "Logged 1e-09, reference 2e-09 (1/2 of"),
        (1e-9, 2e-9 * (1 + 1.1 * TOLERANCE), 2, "Logged 1e-09, reference 2e-09."),
        (0.25, 0.5, 3, "Logged 0.2500, reference 0.5000."),
        (0.25, 0.25, 1, "Logged 0.2500, reference 0.2500."),
        (0.0, 0.0, 2, "Logged 0.0000, reference 0.0000."),
        (0.0, 0.5, 2, "Logged 0.0000, reference 0.5000."),
        (0.5, 0.0, 2, "Logged 0.5000, reference 0.0000."),
        (math.inf, math.inf, 2, "Logged inf, reference inf."),
        (math.nan, 0.5, 2, "Logged nan, reference 0.5000."),
        (0.5, math.nan, 2, "Logged 0.5000, reference nan."),
    ],
)
def test_a_factor_that_is_the_number_of_ranks_is_named(logged: float, reference: float, ranks: int, said: str) -> None:
    finding = replace(FINDING, effect=Effect(logged, reference), world_size=ranks)
    assert f" {said}" in finding.text()
    assert said.replace("Logged", "Would have logged") in replace(finding, corrected=True).text()
    assert finding.to_dict()["effect"].keys() == {"logged", "reference"}


def test_a_finding_that_changes_nothing_is_a_note() -> None:
    assert FINDING.with_effect(EFFECT).severity is Severity.ERROR
    assert FINDING.with_effect(Effect(0.5, 0.5)).severity is Severity.NOTE
    assert FINDING.with_effect(Effect(math.nan, math.nan)).severity is Severity.NOTE
    assert FINDING.with_effect(Effect(0.5, math.nan)).severity is Severity.ERROR


def test_the_report_form_has_the_fields_of_schema_version_1() -> None:
    fields = FINDING.with_effect(EFFECT).to_dict()
    assert fields == {
        "code": "LRG201",
        "rule": "gathered-before-sync",
        "severity": "error",
        "key": "val_recall",
        "stage": "validate",
        "hook": "validation_step",
        "path": "src/module.py",
        "line": 212,
        "message": FINDING.message,
        "fix": FINDING.fix,
        "ranks": [0, 1],
        "count": 1,
        "corrected": False,
        "effect": {"logged": 27 / 128, "reference": 27 / 64},
    }
    assert json.loads(json.dumps(fields)) == fields
    assert FINDING.to_dict()["effect"] is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (0.5, 0.5, True),
        (0.5, 0.5 + 0.9 * TOLERANCE, True),
        (0.5, 0.5 + 1.1 * TOLERANCE, False),
        (1e6, 1e6 + 0.9, True),  # relative to the reference above 1
        (1e6, 1e6 + 1.1, False),
        (0.0, 1.1 * TOLERANCE, False),
        (math.nan, math.nan, True),
        (math.nan, 0.5, False),
        (0.5, math.nan, False),
        (math.inf, math.inf, True),
        (math.inf, -math.inf, False),
        (0.5, -math.inf, False),
        (math.inf, 0.5, False),
    ],
)
def test_numbers_are_the_same_up_to_the_tolerance(one: float, other: float, same: bool) -> None:
    assert same_number(one, other) is same
    assert Effect(one, other).is_nil is same


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0000"),
        (0.21094, "0.2109"),
        (-1.75, "-1.7500"),
        (0.001, "0.0010"),
        (0.0001234567, "0.0001235"),
        (1e-9, "1e-09"),
        (999999.5, "999999.5000"),
        (1234567.0, "1.235e+06"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_numbers_are_shown_with_what_tells_something(value: float, shown: str) -> None:
    assert show_number(value) == shown


def test_rule_key_and_line_make_the_identity() -> None:
    assert FINDING.identity == ("LRG201", "val_recall", "src/module.py", 212)


def test_the_error_is_one_that_lightning_knows() -> None:
    assert issubclass(GuardError, MisconfigurationException)
    assert issubclass(GuardWarning, UserWarning)
