"""How many findings an epoch had, for the loggers of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from lightning_retrieval_guard.findings import Finding

PREFIX = "guard/"


def log_counts(loggers: Iterable[Any], findings: Sequence[Finding], step: int) -> None:
    """Hand each logger ``guard/<code>``: how many findings of that code there are, where there are any.

    Args:
        loggers: Of the trainer.
        findings: Of one epoch of one stage.
        step: The trainer's global step.
    """
    counts = Counter(finding.code for finding in findings)
    for logger in loggers if counts else ():
        logger.log_metrics({f"{PREFIX}{code}": float(count) for code, count in sorted(counts.items())}, step=step)
        logger.save()
