"""The report as a file: JSON (schema version 1) or a self-contained HTML page."""

from __future__ import annotations

import html
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_retrieval_guard.findings import Finding, Numbers, show_number

SCHEMA_VERSION = 1


def build_document(
    mode: str, world_size: int, findings: Sequence[Finding], keys: Mapping[str, Numbers]
) -> dict[str, Any]:
    """The report as JSON can hold it.

    Args:
        mode: Of the guard.
        world_size: The number of ranks.
        findings: All findings so far.
        keys: For every logged key its numbers, each where it is known.
    """
    return {
        "version": SCHEMA_VERSION,
        "mode": mode,
        "world_size": world_size,
        "findings": [_finite(finding.to_dict()) for finding in findings],
        "keys": {name: _finite({"logged": own[0], "reference": own[1]}) for name, own in keys.items()},
    }


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null takes their place."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write the report so that a reader sees the old file or the new one, never half of it.

    Raises:
        OSError: The file cannot be written.
    """
    text = json.dumps(document, indent=2) if path.suffix == ".json" else render_html(document)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .3rem .6rem; text-align: left; }
tr + tr { border-top: 1px solid #8884; } code { overflow-wrap: anywhere; } .number { text-align: right; }
"""


def render_html(document: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs nothing else; every string of the user is escaped."""
    findings = document["findings"]
    verdict = "Every number is the reference value." if not findings else f"Findings: {len(findings)}."
    rows = "".join(_html_key(name, numbers) for name, numbers in document["keys"].items())
    parts = "".join(_html_finding(finding) for finding in findings)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>RetrievalGuard</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>RetrievalGuard</h1><p>{verdict} Mode {html.escape(document['mode'])},"
        f" world size {document['world_size']}.</p><table><tr><th>key</th><th>logged</th><th>reference</th></tr>"
        f"{rows}</table>{parts}</body></html>"
    )


def _html_key(name: str, numbers: Mapping[str, float | None]) -> str:
    cells = "".join(f'<td class="number">{_html_number(numbers[part])}</td>' for part in ("logged", "reference"))
    return f"<tr><td>{html.escape(name)}</td>{cells}</tr>"


def _html_number(value: float | None) -> str:
    return "" if value is None else show_number(value)


def _html_finding(finding: Mapping[str, Any]) -> str:
    where = html.escape(f"{finding['path']}:{finding['line']}")
    heading = html.escape(f"{finding['code']} {finding['rule']}: {finding['key']}")
    text = html.escape(f"{finding['message']} {finding['fix']}")
    return f"<h2>{heading}</h2><p>{html.escape(finding['severity'])}, <code>{where}</code></p><p>{text}</p>"
