"""The registry of rules: codes, ranges, file names, severities and documentation."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import lightning_retrieval_guard
from lightning_retrieval_guard.rules import REGISTRY, Rule
from lightning_retrieval_guard.rules.documentation import HEADINGS, documentation, sections

RULES = Path(lightning_retrieval_guard.__file__).parent / "rules"

# 1 weights, 2 synchronisation, 3 ids and scores, 4 state and samples, 5 values, 9 the guard itself
RANGES = "123459"

# What a rule says before the effect is measured.
SEVERITIES = {
    "LRG101": "warning",
    "LRG102": "warning",
    "LRG103": "warning",
    "LRG104": "error",
    "LRG201": "error",
    "LRG202": "error",
    "LRG203": "error",
    "LRG204": "error",
    "LRG205": "error",
    "LRG206": "error",
    "LRG207": "note",
    "LRG301": "error",
    "LRG302": "error",
    "LRG303": "warning",
    "LRG304": "warning",
    "LRG305": "warning",
    "LRG306": "error",
    "LRG401": "error",
    "LRG402": "error",
    "LRG403": "warning",
    "LRG404": "error",
    "LRG405": "warning",
    "LRG406": "error",
    "LRG501": "warning",
    "LRG901": "warning",
    "LRG902": "note",
}

each_rule = pytest.mark.parametrize("rule", REGISTRY.values(), ids=REGISTRY)


def test_the_registry_is_public() -> None:
    assert lightning_retrieval_guard.rules is REGISTRY


def test_every_rule_file_is_registered_once_and_in_order() -> None:
    classes = [type(rule) for rule in REGISTRY.values()]
    files = sorted(path.stem for path in RULES.glob("lrg*.py"))
    assert [cls.__module__.rpartition(".")[2] for cls in classes] == files
    assert list(REGISTRY) == sorted(REGISTRY)
    assert len({rule.slug for rule in REGISTRY.values()}) == len(classes)


@each_rule
def test_the_code_is_in_a_written_range(rule: Rule) -> None:
    assert re.fullmatch(rf"LRG[{RANGES}]\d\d", rule.code)
    assert REGISTRY[rule.code] is rule


@each_rule
def test_the_file_is_named_after_code_and_slug(rule: Rule) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.slug)
    name = f"{rule.code.lower()}_{rule.slug.replace('-', '_')}"
    assert type(rule).__module__ == f"lightning_retrieval_guard.rules.{name}"
    assert type(rule).__name__ == rule.slug.title().replace("-", "")


@each_rule
def test_the_severity_is_the_written_one(rule: Rule) -> None:
    assert rule.severity.value == SEVERITIES[rule.code]


@each_rule
def test_it_is_documented_under_all_headings(rule: Rule) -> None:
    text = documentation(rule)
    assert text.splitlines()[0] == f"{rule.code} {rule.slug}"
    parts = sections(rule)
    assert tuple(parts) == HEADINGS
    for heading, body in parts.items():
        assert body, f"{heading} is empty"
    assert inspect.getdoc(type(rule))


def test_rules_that_could_hang_speak_before_lightning_combines_ranks() -> None:
    assert {code for code, rule in REGISTRY.items() if rule.spec.precedes_reduction} == {"LRG205", "LRG206"}
