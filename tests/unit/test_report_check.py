"""`lightning-retrieval-guard check REPORT.json`: exit codes, and what is shown in each form."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_retrieval_guard.cli import main
from lightning_retrieval_guard.findings import Effect, Finding, Numbers, Severity
from lightning_retrieval_guard.report.document import EpochNumbers, Report, build_document, write_report

from .test_findings import EFFECT, FINDING

WRONG = replace(FINDING.with_effect(EFFECT), world_size=2)
WARNING = replace(WRONG, code="LRG102", rule="constant-batch-size", severity=Severity.WARNING, line=3)
NOTE = replace(WRONG, severity=Severity.NOTE)
CORRECTED = replace(WRONG, corrected=True)


def report_of(*findings: Finding) -> Report:
    numbers = Numbers(EFFECT.logged, EFFECT.reference)
    return Report("warn", 2, findings, {FINDING.key: (EpochNumbers("validate", 0, 10, numbers),)})


def checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], findings: tuple[Finding, ...], *arguments: str
) -> tuple[int, str]:
    path = tmp_path / "report.json"
    write_report(path, report_of(*findings))
    code = main(["check", str(path), *arguments])
    out, err = capsys.readouterr()
    assert err == ""
    return code, out


@pytest.mark.parametrize(
    ("findings", "arguments", "code"),
    [
        ((), (), 0),
        ((NOTE,), (), 0),
        ((CORRECTED,), (), 0),
        ((WARNING,), (), 1),
        ((WARNING,), ("--fail-on", "error"), 0),
        ((WARNING, WRONG), ("--fail-on", "error"), 1),
        ((CORRECTED, WARNING), ("--fail-on", "warning"), 1),
        ((WRONG,), ("--exit-zero",), 0),
    ],
)
def test_the_exit_code_says_whether_it_passed(
    findings: tuple[Finding, ...],
    arguments: tuple[str, ...],
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for form in ("text", "github", "sarif"):
        assert checked(tmp_path, capsys, findings, *arguments, "--format", form)[0] == code


def test_text_is_what_the_run_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = checked(tmp_path, capsys, (NOTE, WRONG))[1].splitlines()
    assert text[0] == "src/module.py:212: LRG201 gathered-before-sync: 'val_recall' on 2 ranks holds"
    assert "  val_recall   0.2109       0.4219   1/2: the number of ranks" in text
    assert text[-1] == "RetrievalGuard: 1 fault, 1 of 1 key wrong"


def test_github_gets_one_command_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inside = replace(WRONG, path=str(tmp_path / "src, new" / "train.py"), message="100% of\nrows")
    keys = [replace(inside, key=f"k{number}") for number in range(6)]
    lines = checked(tmp_path, capsys, (*keys, WARNING), "--format", "github")[1].splitlines()
    assert lines[0] == (
        "::error file=src%2C new/train.py,line=212,title=LRG201 gathered-before-sync::100%25 of%0Arows"
        "%0AKeys: k0, k1, k2, k3 and 2 more%0Ak0: logged 0.210938, one device 0.421875 (1/2: the number of ranks)"
        f"%0AFix: {FINDING.fix}"
    )
    assert lines[1].startswith("::warning file=src/module.py,line=3,title=LRG102 constant-batch-size::")
    assert len(lines) == 2


def test_sarif_has_one_result_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = json.loads(checked(tmp_path, capsys, (WARNING, WRONG, NOTE), "--format", "sarif")[1])
    [run] = document["runs"]
    assert document["version"] == "2.1.0"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["LRG201", "LRG102"]
    assert [(one["ruleId"], one["ruleIndex"], one["level"]) for one in run["results"]] == [
        ("LRG201", 0, "error"),
        ("LRG102", 1, "warning"),
    ]
    [location] = run["results"][0]["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "src/module.py", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 212},
    }


def test_version_1_is_read_too_and_what_is_not_finite_is_not_a_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = build_document(report_of(WRONG.with_effect(Effect(math.nan, 0.5))))
    old: dict[str, Any] = {name: new[name] for name in ("mode", "world_size", "findings")} | {"version": 1}
    for finding in old["findings"]:
        del finding["group"]
    old["keys"] = {
        name: {"logged": entry["logged"], "reference": entry["reference"]} for name, entry in new["keys"].items()
    }
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    assert main(["check", str(path)]) == 1
    assert "nan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "report.json' cannot be read: No such file or directory. Give the file that RetrievalGuard(report="),
        ("<!doctype html>", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError('version')"),
        ('{"version": 3}', "has version 3 of the schema, not 1 or 2"),
        ('{"version": 2, "world_size": 1, "findings": [{}], "keys": {}}', "KeyError"),
        ('{"version": 2, "world_size": 1, "findings": [], "keys": {"k": 1}}', "TypeError"),
        (b"\xff", "UnicodeDecodeError"),
    ],
)
def test_what_is_no_report_ends_with_2(
    content: str | bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["check", str(path), "--exit-zero"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert words in err


@pytest.mark.parametrize(
    "changed",
    [{"severity": "fatal"}, {"line": "7"}, {"path": None}, {"message": 3}, {"effect": {"logged": "a", "reference": 2}}],
    ids=str,
)
def test_a_finding_with_other_fields_is_no_finding(
    changed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = build_document(report_of(WRONG))
    document["findings"][0].update(changed)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(document))
    for form in ("text", "github", "sarif"):
        assert main(["check", str(path), "--format", form]) == 2
        assert "report.json' is not a JSON report of the guard: " in capsys.readouterr().err
