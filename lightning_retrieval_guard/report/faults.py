"""Findings of one cause together, and what is known of the number at each key."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lightning_retrieval_guard.findings import Finding, Numbers, Severity, same_number

_RANK = {severity: rank for rank, severity in enumerate(Severity)}


@dataclass(frozen=True)
class Fault:
    """The findings of one rule at one line with one fix, each at a key of its own.

    Attributes:
        id: Of the fault in its report, such as ``"LRG201-1"``.
        findings: Those that matter most first.
    """

    id: str
    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        """The finding that speaks for all."""
        return self.findings[0]

    @property
    def severity(self) -> Severity:
        """That of the worst finding."""
        return self.first.severity

    @property
    def serious(self) -> tuple[Finding, ...]:
        """The findings that are more than a note."""
        return tuple(finding for finding in self.findings if finding.severity is not Severity.NOTE)

    @property
    def corrected(self) -> bool:
        """Whether every number that was wrong was replaced."""
        return all(finding.corrected for finding in self.serious)


def group(findings: Iterable[Finding]) -> list[Fault]:
    """Faults in order of severity, and then as they were found."""
    alike: dict[tuple[str, str, int, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.code, finding.path, finding.line, finding.fix), []).append(finding)
    ordered = [sorted(members, key=lambda finding: _RANK[finding.severity]) for members in alike.values()]
    ordered.sort(key=lambda members: _RANK[members[0].severity])
    counts: dict[str, int] = {}
    faults = []
    for members in ordered:
        code = members[0].code
        counts[code] = counts.get(code, 0) + 1
        faults.append(Fault(f"{code}-{counts[code]}", tuple(members)))
    return faults


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
    """One logged key.

    Attributes:
        name: The key.
        numbers: Of its last epoch.
        state: What is known of them.
        earlier: Whether the last numbers are the same, and an epoch before had others.
        codes: Of the findings at it that are more than a note.
    """

    name: str
    numbers: Numbers
    state: KeyState
    earlier: bool
    codes: tuple[str, ...]


def judge_keys(keys: Mapping[str, Numbers], findings: Sequence[Finding]) -> list[KeyVerdict]:
    """Every logged key, and every other one that a finding has numbers of, in the order of logging."""
    at_key: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.severity is not Severity.NOTE:
            at_key.setdefault(finding.key, []).append(finding)
    shown = dict(keys)
    for serious in at_key.values():
        for finding in serious:
            if finding.effect is not None:
                effect = finding.effect
                shown.setdefault(finding.key, Numbers(effect.logged, effect.reference, finding.corrected))
    return [_judge(name, numbers, at_key.get(name, [])) for name, numbers in shown.items()]


def _judge(name: str, numbers: Numbers, serious: Sequence[Finding]) -> KeyVerdict:
    # a finding keeps the severity of an epoch that was wrong, and the effect of the last one
    earlier = _agree(numbers) and any(finding.effect is not None and finding.effect.is_nil for finding in serious)
    codes = tuple(dict.fromkeys(finding.code for finding in serious))
    return KeyVerdict(name, numbers, _state(numbers, bool(serious), earlier), earlier, codes)


def _agree(numbers: Numbers) -> bool:
    if numbers.logged is None or numbers.reference is None:
        return False
    return same_number(numbers.logged, numbers.reference)


def _state(numbers: Numbers, serious: bool, earlier: bool) -> KeyState:
    if numbers.reference is None:
        return KeyState.WRONG if serious else KeyState.UNCHECKED
    if _agree(numbers) and not earlier:
        return KeyState.RIGHT
    if numbers.logged is None and not serious:
        return KeyState.RIGHT if numbers.corrected else KeyState.UNCHECKED
    return KeyState.CORRECTED if numbers.corrected else KeyState.WRONG


def verdict(keys: Sequence[KeyVerdict], findings: Sequence[Finding]) -> str:
    """What was found, in a few words, such as ``"1 fault, 20 of 22 keys wrong"``; notes are only counted.

    Args:
        keys: All keys.
        findings: All findings.
    """
    groups = group(findings)
    faults = sum(bool(fault.serious) for fault in groups)
    notes = sum(not fault.serious for fault in groups)
    parts = [several(faults, "fault")] if faults else []
    for state in (KeyState.WRONG, KeyState.CORRECTED):
        count = sum(key.state is state for key in keys)
        of_all = "" if any(" of " in part for part in parts) else f" of {several(len(keys), 'key')}"
        parts += [f"{count}{of_all} {state.value}"] if count else []
    if not parts:
        parts = [f"{several(len(keys), 'key')} watched" if keys else "no epoch value logged", "nothing found"]
    return ", ".join([*parts, *([several(notes, "note")] if notes else [])])


def several(count: int, noun: str) -> str:
    """A number with its noun, in the plural where it must be."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
