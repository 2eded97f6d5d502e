"""Findings of one cause together, and what is known of the number at each key."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lightning_retrieval_guard.findings import Finding, Numbers, Severity, same_number
from lightning_retrieval_guard.report.text import several

_SEVERITIES = list(Severity)  # the worst first


@dataclass(frozen=True)
class Fault:
    """The findings of one rule at one line with one fix, each at a key of its own."""

    id: str  # in its report, such as "LRG201-1"
    findings: tuple[Finding, ...]  # those that matter most first

    @property
    def first(self) -> Finding:
        """The finding that is shown for all."""
        return self.findings[0]

    @property
    def severity(self) -> Severity:
        """That of the worst finding."""
        return self.first.severity

    @property
    def serious(self) -> tuple[Finding, ...]:
        """The findings that are more than a note."""
        return tuple(finding for finding in self.findings if finding.is_serious)

    @property
    def corrected(self) -> bool:
        """Whether every number that was wrong was replaced."""
        return all(finding.corrected for finding in self.serious)


def group(findings: Iterable[Finding]) -> list[Fault]:
    """Faults in order of severity, and then as they were found."""
    alike: dict[tuple[str, str, int, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.code, finding.path, finding.line, finding.fix), []).append(finding)
    ordered = sorted(
        (sorted(members, key=_order) for members in alike.values()), key=lambda members: _order(members[0])
    )
    counts: Counter[str] = Counter()
    faults = []
    for first, *others in ordered:
        counts[first.code] += 1
        faults.append(Fault(f"{first.code}-{counts[first.code]}", (first, *others)))
    return faults


def _order(finding: Finding) -> int:
    return _SEVERITIES.index(finding.severity)


def failing(findings: Iterable[Finding], at_least: str) -> list[Finding]:
    """Those that are as bad as ``"error"`` or ``"warning"``; a number that was corrected is right."""
    bad = _SEVERITIES[: _SEVERITIES.index(Severity(at_least)) + 1]
    return [finding for finding in findings if finding.severity in bad and not finding.corrected]


def ratio_text(finding: Finding) -> str:
    """Such as ``"1/2: the number of ranks"``, where that is why the number is wrong; else nothing."""
    if finding.effect is None or not finding.scales_by_ranks:
        return ""
    factor = finding.effect.factor(finding.world_size)
    return f"{factor.replace(' of', '').replace(' x', ' times')}: the number of ranks" if factor else ""


class KeyState(str, enum.Enum):
    """What is known of the number of a key."""

    WRONG = "wrong"
    CORRECTED = "corrected"
    RIGHT = "right"
    UNCHECKED = "unchecked"


@dataclass(frozen=True)
class KeyVerdict:
    """One logged key."""

    name: str
    numbers: Numbers  # of its last epoch
    state: KeyState  # what is known of them
    earlier: bool  # whether the last numbers are the same, and an epoch before had others
    codes: tuple[str, ...]  # of the findings at it that are more than a note


def judge_keys(keys: Mapping[str, Numbers], findings: Iterable[Finding]) -> list[KeyVerdict]:
    """Every logged key, and every other one that a finding has numbers of, in the order of logging."""
    at_key: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.is_serious:
            at_key.setdefault(finding.key, []).append(finding)
    # A run may have ended before the numbers of a key were complete.
    shown = dict(keys)
    for finding in (finding for serious in at_key.values() for finding in serious):
        if effect := finding.effect:
            shown.setdefault(finding.key, Numbers(effect.logged, effect.reference, finding.corrected))
    return [_judge(name, numbers, at_key.get(name, [])) for name, numbers in shown.items()]


def _judge(name: str, numbers: Numbers, serious: Sequence[Finding]) -> KeyVerdict:
    logged, reference, _ = numbers
    agree = logged is not None and reference is not None and same_number(logged, reference)
    # A finding keeps the severity of an epoch that was wrong, and the effect of the last one.
    earlier = agree and any(finding.effect is not None and finding.effect.is_nil for finding in serious)
    if agree and not earlier:
        state = KeyState.RIGHT
    else:
        state = _state(numbers, bool(serious))
    return KeyVerdict(name, numbers, state, earlier, tuple(dict.fromkeys(finding.code for finding in serious)))


def _state(numbers: Numbers, has_findings: bool) -> KeyState:
    """Of numbers that do not agree, or did not in an earlier epoch."""
    if numbers.reference is None:
        return KeyState.WRONG if has_findings else KeyState.UNCHECKED
    if numbers.logged is None and not has_findings:
        # A value that only the guard computed, and that no rule found wrong, is right.
        return KeyState.RIGHT if numbers.corrected else KeyState.UNCHECKED
    return KeyState.CORRECTED if numbers.corrected else KeyState.WRONG


def verdict(keys: Sequence[KeyVerdict], findings: Iterable[Finding]) -> str:
    """What was found, in a few words, such as ``"1 fault, 20 of 22 keys wrong"``; notes are only counted."""
    groups = group(findings)
    faults = sum(bool(fault.serious) for fault in groups)
    notes = len(groups) - faults
    counts = Counter(key.state for key in keys)
    states = [state for state in (KeyState.WRONG, KeyState.CORRECTED) if counts[state]]
    clauses = [several(faults, "fault")] if faults else []
    for state in states:
        of_all = f" of {several(len(keys), 'key')}" if state is states[0] else ""
        clauses.append(f"{counts[state]}{of_all} {state.value}")
    if not clauses:
        clauses = [f"{several(len(keys), 'key')} watched" if keys else "no epoch value logged", "nothing found"]
    return ", ".join([*clauses, *([several(notes, "note")] if notes else [])])
