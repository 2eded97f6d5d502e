"""The report as a file: JSON (schema version 2) or a self-contained HTML page."""

from __future__ import annotations

import itertools
import json
import math
import os
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_retrieval_guard.findings import Numbers
from lightning_retrieval_guard.report.contents import EpochNumbers, Report
from lightning_retrieval_guard.report.faults import group

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
    return {name: _finite(part) for name, part in document.items()}


def _key(epochs: tuple[EpochNumbers, ...]) -> dict[str, Any]:
    history = [
        {"stage": epoch.stage, "epoch": epoch.epoch, "global_step": epoch.global_step, **_numbers(epoch.numbers)}
        for epoch in epochs
    ]
    return {**_numbers(epochs[-1].numbers), "history": history}


def _numbers(numbers: Numbers) -> dict[str, float | None]:
    return {"logged": numbers.logged, "reference": numbers.reference}


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null takes their place."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
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
