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


@dataclass(frozen=True)
class RowCounts:
    """What one rank holds of one retrieval metric at the end of an epoch.

    Attributes:
        updates: Updates since the last reset.
        queries: Distinct query ids.
    """

    updates: int = 0
    queries: int = 0


@dataclass(frozen=True)
class StageCounts:
    """What each rank saw in the last epoch of a stage, in order of rank.

    Attributes:
        samples: Samples, repeated ones included; ``None`` where a batch did not show its size.
        metrics: For every retrieval metric, by name, what each rank holds of it.
    """

    samples: tuple[int | None, ...]
    metrics: Mapping[str, tuple[RowCounts, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochNumbers:
    """The numbers of one key in one epoch of one stage.

    Attributes:
        stage: ``"train"``, ``"validate"`` or ``"test"``.
        epoch: The trainer's, from 0.
        global_step: The trainer's.
        numbers: Logged value and reference, each where it is known.
    """

    stage: str
    epoch: int
    global_step: int
    numbers: Numbers


@dataclass(frozen=True)
class RunFacts:
    """Where a report comes from.

    Attributes:
        when: Date and time in UTC, as ISO 8601 has it.
        command: What was typed to start the program.
        versions: Of Python and of the packages that matter.
        epoch: The trainer's, from 0.
        global_step: The trainer's.
    """

    when: str
    command: str
    versions: Mapping[str, str]
    epoch: int
    global_step: int


@dataclass(frozen=True)
class Report:
    """What the guard has found.

    Attributes:
        mode: Of the guard.
        world_size: The number of ranks.
        findings: All findings so far.
        history: For every logged key its numbers of each epoch, the sanity check's left out.
        stages: What each rank saw, by stage; the JSON report has no place for it.
        reasons: For the codes of the findings, why what the rule flags is wrong; not in the JSON report either.
        run: Where the report comes from.
        stopped: The codes for which strict mode ended the run.
    """

    mode: str
    world_size: int
    findings: tuple[Finding, ...] = ()
    history: Mapping[str, tuple[EpochNumbers, ...]] = field(default_factory=dict)
    stages: Mapping[str, StageCounts] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    run: RunFacts | None = None
    stopped: tuple[str, ...] = ()

    @property
    def keys(self) -> dict[str, Numbers]:
        """The numbers of every key in its last epoch."""
        return {name: epochs[-1].numbers for name, epochs in self.history.items()}


SCHEMA_VERSION = 2
_NO_RUN = dict.fromkeys(("when", "command", "versions", "epoch", "global_step"))


def build_document(report: Report) -> dict[str, Any]:
    """The report as JSON can hold it; every field of version 1 is there with the same meaning."""
    groups = {finding.identity: fault.id for fault in group(report.findings) for finding in fault.findings}
    document = {
        "version": SCHEMA_VERSION,
        "mode": report.mode,
        "world_size": report.world_size,
        **(_NO_RUN if report.run is None else asdict(report.run)),
        "stopped": list(report.stopped),
        "findings": [{**finding.to_dict(), "group": groups[finding.identity]} for finding in report.findings],
        "keys": {name: _key(epochs) for name, epochs in report.history.items()},
    }
    return {name: finite(part) for name, part in document.items()}


def _key(epochs: tuple[EpochNumbers, ...]) -> dict[str, Any]:
    history = [
        {"stage": epoch.stage, "epoch": epoch.epoch, "global_step": epoch.global_step, **_numbers(epoch.numbers)}
        for epoch in epochs
    ]
    return {**_numbers(epochs[-1].numbers), "history": history}


def _numbers(numbers: Numbers) -> dict[str, float | None]:
    return {"logged": numbers.logged, "reference": numbers.reference}


def finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null takes their place."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
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
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".report-{secrets.token_hex(8)}.tmp")
    text = _text(path, report)
    try:
        with open(draft, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _text(path: Path, report: Report) -> str:
    if path.suffix == ".json":
        return json.dumps(build_document(report), indent=2)
    # only a page needs jinja2
    from lightning_retrieval_guard.report.page import render_page

    return render_page(report)
