"""A JSON report as a check of continuous integration: text, commands for GitHub Actions, or SARIF 2.1.0."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from lightning_retrieval_guard.findings import Finding, Numbers
from lightning_retrieval_guard.report.annotations import Annotation, RuleEntry, as_github, as_sarif
from lightning_retrieval_guard.report.faults import Fault, failing, group, judge_keys, ratio_text, verdict
from lightning_retrieval_guard.report.log import finding_from
from lightning_retrieval_guard.report.terminal import KEYS_SHOWN, render_error

_VERSIONS = (1, 2)
_TEXTS = ("code", "rule", "key", "stage", "hook", "path", "message", "fix")
_GIVE = "Give the file that RetrievalGuard(report='report.json') wrote."


class ReportError(ValueError):
    """A file that is not a JSON report of the guard."""


def check_report(path: Path, fail_on: str, form: str, scaled: Collection[str]) -> tuple[str, bool]:
    """Read a report, and say what is in it.

    Args:
        path: Of the JSON report, of version 1 or 2 of the schema.
        fail_on: ``"error"`` or ``"warning"``: what is at least so bad fails.
        form: One of ``FORMATS``.
        scaled: The codes of rules that multiply or divide a number by the number of ranks.

    Returns:
        The text, and whether the check passed. A number that was corrected is right, and passes.

    Raises:
        ReportError: The file cannot be read, or is no report.
    """
    findings, keys = _read(path, scaled)
    faults = [fault for fault in group(findings) if fault.serious]
    text = FORMATS[form](faults)
    if form == "text":
        text = "\n".join(filter(None, [text, f"RetrievalGuard: {verdict(judge_keys(keys, findings), findings)}"]))
    return text, not failing(findings, fail_on)


def _read(path: Path, scaled: Collection[str]) -> tuple[list[Finding], dict[str, Numbers]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] not in _VERSIONS:
            raise ReportError(f"{str(path)!r} has version {document['version']!r} of the schema, not 1 or 2.")
        findings = [_finding(fields, document["world_size"], scaled) for fields in document["findings"]]
        # a key does not say whether its number was replaced; its findings do
        corrected = {finding.key for finding in findings if finding.corrected}
        keys = {
            name: Numbers(_number(entry["logged"]), _number(entry["reference"]), name in corrected)
            for name, entry in document["keys"].items()
        }
    except ReportError:
        raise
    except OSError as error:
        raise ReportError(f"{str(path)!r} cannot be read: {error.strerror}. {_GIVE}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReportError(f"{str(path)!r} is not a JSON report of the guard: {error!r}. {_GIVE}") from error
    return findings, keys


def _finding(fields: dict[str, Any], world_size: int, scaled: Collection[str]) -> Finding:
    # Whether a rule scales by ranks is not in the report: the registry has it.
    effect = fields["effect"]
    if effect is not None:  # what is not finite, JSON cannot hold
        effect = {name: math.nan if value is None else _number(value) for name, value in effect.items()}
    for name in (*_TEXTS, "line"):
        if not isinstance(fields[name], int if name == "line" else str):
            raise TypeError(f"{name} of a finding is {fields[name]!r}")
    if not isinstance(world_size, int):
        raise TypeError(f"world_size is {world_size!r}")
    added = {"effect": effect, "world_size": world_size, "scales_by_ranks": fields["code"] in scaled}
    return finding_from({**{name: value for name, value in fields.items() if name != "group"}, **added})


def _number(value: Any) -> Any:
    if value is not None and not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    return value


def _annotation(fault: Fault) -> Annotation:
    first, more = fault.first, len(fault.serious) - KEYS_SHOWN
    keys = ", ".join(finding.key for finding in fault.serious[:KEYS_SHOWN])
    lines = [first.message, f"Keys: {keys}{f' and {more} more' if more > 0 else ''}"]
    if first.effect is not None:
        ratio = f" ({ratio_text(first)})" if ratio_text(first) else ""
        lines.append(f"{first.key}: logged {first.effect.logged:g}, one device {first.effect.reference:g}{ratio}")
    lines.append(f"Fix: {first.fix}")
    return Annotation(first.code, first.rule, fault.severity, "\n".join(lines), first.path, first.line)


def _as_text(faults: Sequence[Fault]) -> str:
    return render_error(finding for fault in faults for finding in fault.findings)


def _as_sarif(faults: Sequence[Fault]) -> str:
    annotations = list(map(_annotation, faults))
    rules = {
        entry.code: RuleEntry(entry.slug, f"lightning-retrieval-guard explain {entry.code}", entry.level)
        for entry in annotations
    }
    return as_sarif(annotations, rules)


FORMATS: dict[str, Callable[[Sequence[Fault]], str]] = {
    "text": _as_text,
    "github": lambda faults: as_github(list(map(_annotation, faults))),
    "sarif": _as_sarif,
}
