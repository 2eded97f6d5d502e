"""Which logged keys are wrong, corrected, right or unchecked, and that in one sentence."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_retrieval_guard.findings import Finding, Numbers, Severity, same_number
from lightning_retrieval_guard.report.contents import Report


class State(str, enum.Enum):
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
        findings: The findings at it, by their place in the report.
    """

    name: str
    numbers: Numbers
    state: State
    earlier: bool
    findings: tuple[int, ...]


def judge_keys(report: Report) -> list[KeyVerdict]:
    """Every logged key, and every other one that a finding has numbers of, in the order of logging."""
    keys = dict(report.keys)
    for finding in report.findings:
        if finding.effect is not None:
            shown = Numbers(finding.effect.logged, finding.effect.reference, finding.corrected)
            keys.setdefault(finding.key, shown)
    return [_judge(name, numbers, report.findings) for name, numbers in keys.items()]


def _judge(name: str, numbers: Numbers, findings: Sequence[Finding]) -> KeyVerdict:
    places = tuple(place for place, finding in enumerate(findings) if finding.key == name)
    serious = [findings[place] for place in places if findings[place].severity is not Severity.NOTE]
    # a finding keeps the severity of an epoch that was wrong, and the effect of the last one
    earlier = _agree(numbers) and any(found.effect is not None and found.effect.is_nil for found in serious)
    return KeyVerdict(name, numbers, _state(numbers, serious, earlier), earlier, places)


def _agree(numbers: Numbers) -> bool:
    if numbers.logged is None or numbers.reference is None:
        return False
    return same_number(numbers.logged, numbers.reference)


def _state(numbers: Numbers, serious: Sequence[Finding], earlier: bool) -> State:
    if numbers.reference is None:
        return State.WRONG if serious else State.UNCHECKED
    if _agree(numbers) and not earlier:
        return State.RIGHT
    if numbers.logged is None and not serious:
        return State.RIGHT if numbers.corrected else State.UNCHECKED
    return State.CORRECTED if numbers.corrected else State.WRONG


# in the order in which the sentence tells of them, with the verbs for one and for several
_VERBS = {
    State.WRONG: ("is wrong", "are wrong"),
    State.CORRECTED: ("was corrected", "were corrected"),
    State.RIGHT: ("is right", "are right"),
    State.UNCHECKED: ("could not be checked", "could not be checked"),
}


def verdict_sentence(keys: Sequence[KeyVerdict], findings: int) -> str:
    """How many keys are wrong, corrected, right and unchecked.

    Args:
        keys: All keys.
        findings: The number of findings.
    """
    if not keys:
        return "No logged number is known, but there are findings." if findings else "Nothing was logged."
    counts = {state: sum(key.state is state for key in keys) for state in _VERBS}
    told = {state: count for state, count in counts.items() if count}
    if len(told) == 1:
        [state] = told
        return f"The logged key {_VERBS[state][0]}." if len(keys) == 1 else f"All {len(keys)} keys {_VERBS[state][1]}."
    first, *rest = (f"{count}{{}} {_VERBS[state][count > 1]}" for state, count in told.items())
    return f"{first.format(f' of {len(keys)} keys')}, {', '.join(part.format('') for part in rest)}."
