"""What a check found, as JSON can hold it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lightning_retrieval_guard.parity.compare import DIFFERENT, NOT_RUN, SAME, Difference, Parity, Run

SCHEMA_VERSION = 1
VERDICTS = {SAME: "same", DIFFERENT: "different", NOT_RUN: "not run"}


def build_document(parity: Parity) -> dict[str, Any]:
    """Schema version 1; NaN and infinity, which JSON does not know, are null."""
    names = ("stage", "mode", "keep", "rtol", "atol", "seed")
    document = {
        "version": SCHEMA_VERSION,
        "verdict": VERDICTS[parity.exit_code],
        "target": parity.options.target.text,
        **{name: getattr(parity.options, name) for name in names},
        "runs": [_run(run) for run in parity.runs],
        "keys": {
            key.name: {
                "numbers": {str(size): number for size, number in key.numbers.items()},
                "largest_difference": key.distance,
                "differences": [_difference(difference) for difference in key.differences],
            }
            for key in parity.keys
        },
    }
    return {name: _finite(part) for name, part in document.items()}


def write_document(path: Path, parity: Parity) -> None:
    """Write the document.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(build_document(parity), indent=2) + "\n", encoding="utf-8")


def _run(run: Run) -> dict[str, Any]:
    return {
        "world_size": run.world_size,
        "problem": run.problem or None,
        "seconds": round(run.seconds, 3),
        "batch_sizes": [loader.batch_size for loader in run.loaders],
        "ranks": [dict(numbers) for numbers in run.ranks],
        "findings": [finding.to_dict() for finding in run.findings],
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "world_size": difference.world_size,
        "ranks": list(difference.ranks),
        "difference": difference.size,
        "explained": difference.explained,
        "findings": [
            {"code": finding.code, "path": finding.path, "line": finding.line} for finding in difference.findings
        ],
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
