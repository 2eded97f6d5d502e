"""What the loggers of a run get: how many findings an epoch had, and the report where they can keep it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.report.document import Report, page_of
from lightning_retrieval_guard.report.faults import group, judge_keys, verdict
from lightning_retrieval_guard.report.terminal import render_error

PREFIX = "guard/"
_REPORT = f"{PREFIX}report"


def count(findings: Sequence[Finding]) -> Counter[str]:
    """How many errors and warnings there are, none included, and how many findings of each code there is."""
    severities = Counter(finding.severity for finding in findings)
    counts = Counter(finding.code for finding in findings)
    return Counter({"errors": severities[Severity.ERROR], "warnings": severities[Severity.WARNING], **counts})


def log_counts(loggers: Iterable[Any], counts: Mapping[str, int], step: int) -> None:
    """Hand each logger ``guard/errors``, ``guard/warnings`` and ``guard/<code>`` at the trainer's global step."""
    for logger in loggers:
        logger.log_metrics({f"{PREFIX}{name}": float(number) for name, number in sorted(counts.items())}, step=step)
        logger.save()


def attach_report(loggers: Sequence[Any], report: Report, step: int) -> list[str]:
    """Give the report to each logger that can keep files.

    Returns:
        A clause for each logger that has not got it, or one where there is no logger.
    """
    if not loggers:
        return ["the trainer has none"]
    return [trouble for logger in loggers if (trouble := _attach(logger, report, step))]


def _attach(logger: Any, report: Report, step: int) -> str:
    """Why a logger has not got the report; empty where it has."""
    # By name, because there are two packages with loggers of these names, and neither must be imported.
    attach = next((_ATTACH[kind.__name__] for kind in type(logger).__mro__ if kind.__name__ in _ATTACH), None)
    if attach is None:
        return f"{type(logger).__name__} keeps no files; {', '.join(_ATTACH)} do"
    try:
        attach(logger, report, step)
    except Exception as error:  # a logger's backend may raise anything; the run has its numbers
        return f"{type(logger).__name__} did not take it ({type(error).__name__}: {error})"
    return ""


def _to_tensorboard(logger: Any, report: Report, step: int) -> None:
    findings = [finding for fault in group(report.findings) for finding in fault.serious]
    text = f"{verdict(judge_keys(report.keys, report.findings), report.findings)}\n\n{render_error(findings)}"
    # lines that are indented are shown as they stand
    logger.experiment.add_text(_REPORT, "".join(f"    {line}\n" for line in text.splitlines()), step)
    logger.experiment.flush()


def _to_wandb(logger: Any, report: Report, step: int) -> None:
    import wandb

    logger.experiment.log({_REPORT: wandb.Html(page_of(report), inject=False), "trainer/global_step": step})


def _to_mlflow(logger: Any, report: Report, step: int) -> None:
    logger.experiment.log_text(logger.run_id, page_of(report), f"{_REPORT}.html")


_ATTACH: dict[str, Callable[[Any, Report, int], None]] = {
    "TensorBoardLogger": _to_tensorboard,
    "WandbLogger": _to_wandb,
    "MLFlowLogger": _to_mlflow,
}
