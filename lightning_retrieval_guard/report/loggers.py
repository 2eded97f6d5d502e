"""How many findings an epoch had, for the loggers of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_retrieval_guard.findings import Finding, Severity

PREFIX = "guard/"


def count(findings: Sequence[Finding]) -> Counter[str]:
    """How many errors and warnings there are, none included, and how many findings of each code there is."""
    severities = Counter(finding.severity for finding in findings)
    counts = Counter(finding.code for finding in findings)
    return Counter({"errors": severities[Severity.ERROR], "warnings": severities[Severity.WARNING], **counts})


def log_counts(loggers: Iterable[Any], counts: Mapping[str, int], step: int) -> None:
    """Hand each logger ``guard/errors``, ``guard/warnings`` and ``guard/<code>``.

    Args:
        loggers: Of the trainer.
        counts: Of the findings at a step.
        step: The trainer's global step.
    """
    for logger in loggers:
        logger.log_metrics({f"{PREFIX}{name}": float(number) for name, number in sorted(counts.items())}, step=step)
        logger.save()
