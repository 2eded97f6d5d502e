"""What is fixed about a rule; needs neither torch nor Lightning, so that lint and ``explain`` start at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_retrieval_guard.findings import Severity

Correction = Literal["value", "order", "stale_state", "foreign_state", "device"]
"""What correct mode puts right: the number of a key, the order in which keys are reduced, rows of earlier epochs, rows
of another dataloader or stage, the device of a metric."""


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """Code, words and consequences of a rule.

    Attributes:
        code: Never reused.
        slug: The short name.
        severity: Before the effect is taken into account.
        fix: What to type instead.
        corrects: What correct mode puts right where the rule reports something, or ``None``. Where such a rule is
            ignored, the key's number is left to the program.
        precedes_reduction: Whether it must report before Lightning combines ranks, because that could hang.
        follows_others: Whether it looks for what the other rules do not explain.
        judges_weights: Whether the batch sizes alone are enough to judge, so that strict mode raises in the step.
        static: Whether the lint finds it in source too.
    """

    code: str
    slug: str
    severity: Severity
    fix: str
    corrects: Correction | None = None
    precedes_reduction: bool = False
    follows_others: bool = False
    judges_weights: bool = False
    static: bool = False
