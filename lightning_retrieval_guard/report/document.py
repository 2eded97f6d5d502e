"""The report as a file: JSON (schema version 1) or a self-contained HTML page."""

from __future__ import annotations

import json
import math
import os
import secrets
from pathlib import Path
from typing import Any

from lightning_retrieval_guard.report.contents import Report
from lightning_retrieval_guard.report.page import render_page

SCHEMA_VERSION = 1


def build_document(report: Report) -> dict[str, Any]:
    """The report as JSON can hold it: just what version 1 of the schema has."""
    return {
        "version": SCHEMA_VERSION,
        "mode": report.mode,
        "world_size": report.world_size,
        "findings": [_finite(finding.to_dict()) for finding in report.findings],
        "keys": {
            name: _finite({"logged": own.logged, "reference": own.reference}) for name, own in report.keys.items()
        },
    }


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null takes their place."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_report(path: Path, report: Report) -> None:
    """Write the report so that a reader sees the old file or the new one, never half of it.

    Args:
        path: The file, or a link to it; ``.json`` gets JSON, anything else HTML.
        report: What the guard has found.

    Raises:
        OSError: The file cannot be written.
    """
    text = json.dumps(build_document(report), indent=2) if path.suffix == ".json" else render_page(report)
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".report-{secrets.token_hex(8)}.tmp")
    try:
        with open(draft, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
