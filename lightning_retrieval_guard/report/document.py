"""What a report holds, and how it becomes a file: JSON (schema version 2) or a self-contained HTML page."""

from __future__ import annotations

import itertools
import json
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_retrieval_guard.findings import Finding, Numbers
from lightning_retrieval_guard.report.faults import group

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class RowCounts:
    """What one rank holds of one retrieval metric at the end of an epoch."""

    updates: int = 0  # since the last reset
    queries: int = 0  # distinct ids


@dataclass(frozen=True)
class StageCounts:
    """What each rank saw in the last epoch of a stage, in order of rank."""

    samples: tuple[int | None, ...]  # repeated ones included; None where a batch did not show its size
    metrics: Mapping[str, tuple[RowCounts, ...]] = field(default_factory=dict)  # of every retrieval metric, by name


@dataclass(frozen=True)
class EpochNumbers:
    """The numbers of one key in one epoch of one stage."""

    stage: str  # "train", "validate" or "test"
    epoch: int  # the trainer's, from 0
    global_step: int  # the trainer's
    numbers: Numbers


@dataclass(frozen=True)
class RunFacts:
    """Where a report comes from."""

    when: str  # date and time in UTC, as ISO 8601 has it
    command: str  # what was typed to start the program
    versions: Mapping[str, str]  # of Python and of the packages that matter
    epoch: int  # the trainer's, from 0
    global_step: int  # the trainer's


@dataclass(frozen=True)
class Report:
    """What the guard has found; the counts of ranks and the reasons are for the page alone."""

    mode: str  # of the guard
    world_size: int
    findings: tuple[Finding, ...] = ()
    history: Mapping[str, tuple[EpochNumbers, ...]] = field(default_factory=dict)  # by key; without the sanity check
    stages: Mapping[str, StageCounts] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)  # by code, why what the rule flags is wrong
    run: RunFacts | None = None
    stopped: tuple[str, ...] = ()  # the codes for which strict mode ended the run

    @property
    def keys(self) -> dict[str, Numbers]:
        """The numbers of every key in its last epoch."""
        return {name: epochs[-1].numbers for name, epochs in self.history.items()}


def build_document(report: Report) -> dict[str, Any]:
    """The report as JSON can hold it; every field of version 1 is there with the same meaning."""
    groups = {finding.identity: fault.id for fault in group(report.findings) for finding in fault.findings}
    no_run = dict.fromkeys(("when", "command", "versions", "epoch", "global_step"))
    document: dict[str, Any] = finite(
        {
            "version": SCHEMA_VERSION,
            "mode": report.mode,
            "world_size": report.world_size,
            **(no_run if report.run is None else asdict(report.run)),
            "stopped": list(report.stopped),
            "findings": [{**finding.to_dict(), "group": groups[finding.identity]} for finding in report.findings],
            "keys": {name: _key(epochs) for name, epochs in report.history.items()},
        }
    )
    return document


def _key(epochs: tuple[EpochNumbers, ...]) -> dict[str, Any]:
    numbers = [{"logged": epoch.numbers.logged, "reference": epoch.numbers.reference} for epoch in epochs]
    places = [{name: getattr(epoch, name) for name in ("stage", "epoch", "global_step")} for epoch in epochs]
    return {**numbers[-1], "history": [place | of_epoch for place, of_epoch in zip(places, numbers, strict=True)]}


def finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null takes their place."""
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def set_aside(path: Path) -> Path | None:
    """Give the report of an earlier run another name, so that it is neither lost nor taken for that of this run.

    Args:
        path: The file, or a link to it.

    Returns:
        The file beside it, with a number behind its name; ``None`` where there is no earlier report.
    """
    target = Path(os.path.realpath(path))
    if not target.exists():
        return None
    others = (target.with_stem(f"{target.stem}-{number}") for number in itertools.count(1))
    free = next(other for other in others if not other.exists())
    target.rename(free)
    return free


def write_report(path: Path, report: Report) -> None:
    """Write the report so that a reader sees the old file or the new one, never half of it.

    Args:
        path: The file, or a link to it; ``.json`` gets JSON, anything else HTML.
        report: What the guard has found.

    Raises:
        OSError: The file cannot be written.
    """
    # A link stays, and the file that it leads to is replaced; the draft has to be in the same folder as that one.
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".report-{secrets.token_hex(8)}.tmp")
    text = json.dumps(build_document(report), indent=2) if path.suffix == ".json" else page_of(report)
    try:
        with open(draft, "x", encoding="utf-8") as file:  # never through a link that stands there
            file.write(text)
        os.replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def page_of(report: Report) -> str:
    """The report as one HTML page."""
    from lightning_retrieval_guard.report.page import render_page  # only a page needs jinja2

    return render_page(report)
