"""What a rule found: the finding, its severity and its effect in numbers."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

# Numbers that agree to this much, relative to the reference above 1, count as the same number.
TOLERANCE = 1e-6


class GuardWarning(UserWarning):
    """Category of every warning that the guard emits."""

    __module__ = __name__.partition(".")[0]


class Severity(str, enum.Enum):
    """How much a finding matters: an error or a warning changes the logged number, a note does not."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Effect:
    """The number that was logged and the number one process would have logged."""

    logged: float  # what reaches the logger without a correction
    reference: float  # that of the same program in one process that sees every sample once

    @property
    def is_nil(self) -> bool:
        """Whether both numbers are the same up to rounding."""
        return same_number(self.logged, self.reference)

    def factor(self, world_size: int) -> str:
        """In words where one number is the number of ranks times the other, such as ``"1/2 of"``; else nothing."""
        if world_size == 1 or self.reference == 0 or not math.isfinite(self.logged):
            return ""
        if math.isclose(self.logged * world_size, self.reference, rel_tol=TOLERANCE):
            return f"1/{world_size} of"
        if math.isclose(self.logged, self.reference * world_size, rel_tol=TOLERANCE):
            return f"{world_size} x"
        return ""


class Numbers(NamedTuple):
    """The numbers of one key, each where it is known."""

    logged: float | None  # what reaches the logger without a correction
    reference: float | None  # that of the same program in one process that sees every sample once
    corrected: bool = False  # whether the reference took the place of the logged value


def same_number(a: float, b: float) -> bool:
    """Whether ``a`` and ``b`` agree up to ``TOLERANCE``; two NaN agree."""
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or (math.isfinite(b) and abs(a - b) <= TOLERANCE * max(1.0, abs(b)))


def all_same(values: Iterable[float | None]) -> bool:
    """Whether all numbers agree, and each is known."""
    numbers = list(values)
    first = numbers[0] if numbers else None
    return all(number is not None and first is not None and same_number(number, first) for number in numbers)


@dataclass(frozen=True)
class Finding:
    """A rule's verdict on one log call or metric.

    Attributes:
        code: The rule's code, such as ``"LRG201"``.
        rule: The rule's slug, such as ``"gathered-before-sync"``.
        severity: After the effect was taken into account.
        key: The logged key, or the name of the metric where no key is concerned.
        stage: ``"train"``, ``"sanity_check"``, ``"validate"`` or ``"test"``.
        hook: The Lightning hook that logged, such as ``"validation_step"``.
        path: The user's file.
        line: The user's line in it, from 1.
        message: The verdict with the measured values; the effect and the fix are not part of it.
        fix: What to type instead.
        ranks: The ranks on which it was seen.
        count: How many log calls or epochs showed it.
        corrected: Whether the logged number was replaced by the reference, or what was wrong put right before it.
        effect: Both numbers, where both are known.
        world_size: The number of ranks of the run, for the text alone.
        target: Lightning's storage key of the log call, or the name of the metric: the identity of what it is about.
        scales_by_ranks: Whether what it reports multiplies or divides a number by the number of ranks; elsewhere such
            a ratio is chance.
        corrects: What correct mode puts right there, if anything; see ``RuleSpec``.
        updates: File and line of the first update of the metric behind the key, for the report's view of the code.
    """

    code: str
    rule: str
    severity: Severity
    key: str
    stage: str
    hook: str
    path: str
    line: int
    message: str
    fix: str
    ranks: tuple[int, ...] = ()
    count: int = 1
    corrected: bool = False
    effect: Effect | None = field(default=None)
    world_size: int = 1
    target: str = field(default="", repr=False, compare=False)
    corrects: str | None = field(default=None, repr=False, compare=False)
    scales_by_ranks: bool = field(default=False, repr=False, compare=False)
    updates: tuple[tuple[str, int], ...] = field(default=(), repr=False, compare=False)

    @property
    def is_serious(self) -> bool:
        """Whether it is more than a note: it changes a number, or stops the run."""
        return self.severity is not Severity.NOTE

    @property
    def identity(self) -> tuple[str, str, str, int]:
        """Findings of the same rule, key and line are the same finding."""
        return (self.code, self.key, self.path, self.line)

    def with_effect(self, effect: Effect | None) -> Finding:
        """The finding with ``effect``; a finding that changes nothing becomes a note."""
        if effect is None:
            return self
        severity = Severity.NOTE if effect.is_nil else self.severity
        return replace(self, effect=effect, severity=severity)

    def text(self) -> str:
        """The whole message without the location: code, verdict, numbers, fix."""
        numbers = f" {self.numbers_text()}" if self.effect is not None else ""
        return f"{self.code} {self.rule}: {self.message}{numbers} {self.fix}"

    def numbers_text(self) -> str:
        """Both numbers in a sentence; empty where they are not known."""
        if self.effect is None:
            return ""
        logged = "Would have logged" if self.corrected else "Logged"
        factor = self.effect.factor(self.world_size) if self.scales_by_ranks else ""
        factor = f" ({factor} the reference: the number of ranks)" if factor else ""
        return f"{logged} {show_number(self.effect.logged)}, reference {show_number(self.effect.reference)}{factor}."

    def __str__(self) -> str:
        """Location, code, verdict, numbers and fix."""
        return f"{self.path}:{self.line}: {self.text()}"

    def __repr__(self) -> str:
        """What tells it from others, in one line."""
        effect = self.effect
        logged, reference = ("", "") if effect is None else map(show_number, (effect.logged, effect.reference))
        numbers = effect and f": {'would have ' * self.corrected}logged {logged}, one device {reference}"
        return f"<{self.code} {self.severity.value} of {self.key!r} at {self.path}:{self.line}{numbers or ''}>"

    def to_dict(self) -> dict[str, Any]:
        """The finding in the form of the JSON report (schema version 1)."""
        return {
            **{name: getattr(self, name) for name in _REPORTED},
            "severity": self.severity.value,
            "ranks": list(self.ranks),
            "effect": None if self.effect is None else asdict(self.effect),
        }


# The fields of schema version 1, in their order.
_REPORTED = (
    *("code", "rule", "severity", "key", "stage", "hook", "path", "line", "message", "fix"),
    *("ranks", "count", "corrected", "effect"),
)


def show_number(value: float) -> str:
    """Four decimals where they tell something, else four significant digits."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"
