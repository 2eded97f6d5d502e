"""The measured values as JSON: one entry a bench, each with what it was run on."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.declare import Bench, Line, Result, Scale

VERSION = 2
PACKAGES = ("torch", "lightning", "torchmetrics", "numpy", "ranx", "pytrec_eval-terrier")


def entry(bench: Bench, result: Result, scale: Scale) -> dict[str, Any]:
    """One bench as the document holds it."""
    lines = {name: _line(line, name, result) for name, line in bench.lines.items()}
    return {"quick": scale.quick, "on": surroundings(), "lines": lines, "data": dict(result.data)}


def _line(line: Line, name: str, result: Result) -> dict[str, Any]:
    figure = result.figures.get(name)
    kept = line.target is None or figure is None or line.target.met(figure.value)
    return {
        "text": line.text,
        "unit": line.unit,
        "target": None if line.target is None else str(line.target),
        "ok": None if line.target is None or figure is None else kept,
        "note": result.notes.get(name, ""),
        **(asdict(figure) if figure is not None else {"value": None, "low": None, "high": None}),
    }


def surroundings() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def load(path: Path) -> dict[str, Any]:
    """The document at a path; an empty one where there is none."""
    if path.exists():
        document: dict[str, Any] = json.loads(path.read_text())
        if document.get("version") == VERSION:
            return document
    return {"version": VERSION, "benches": {}}


def save(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
