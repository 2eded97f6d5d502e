"""JSON, SARIF and commands for GitHub Actions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_retrieval_guard.findings import Severity
from lightning_retrieval_guard.lint.finding import STATIC, fix_of
from lightning_retrieval_guard.lint.runner import FORMATS, Record


def record(code: str, message: str, path: str, line: int = 1, column: int = 1) -> Record:
    rule = STATIC[code]
    return Record(code, rule.slug, rule.severity, message, path, line, column)


FINDING = record("LRG301", "ids, 100% wrong: merge.", "src/a b,c.py", 3, 5)
NOTE = record("LRG207", "slow.", "src/b.py", 7)
UNREAD = Record("E999", "not-read", Severity.ERROR, "SyntaxError: invalid syntax", "src/c.py", 1, 8)
RECORDS = [FINDING, NOTE, UNREAD]


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_found_is_said_in_every_form(form: str) -> None:
    text = FORMATS[form]([])
    assert text == "" if form in ("text", "github") else json.loads(text)


def test_text() -> None:
    assert FORMATS["text"](RECORDS).splitlines() == [
        "src/a b,c.py:3:5: LRG301 restarting-query-ids: ids, 100% wrong: merge.",
        "src/b.py:7:1: LRG207 sync-in-step: slow.",
        "src/c.py:1:8: E999 not-read: SyntaxError: invalid syntax",
    ]


def test_json() -> None:
    assert json.loads(FORMATS["json"](RECORDS)) == {
        "version": 1,
        "findings": [
            {
                "code": "LRG301",
                "rule": "restarting-query-ids",
                "severity": "error",
                "path": "src/a b,c.py",
                "line": 3,
                "column": 5,
                "message": "ids, 100% wrong: merge.",
            },
            {
                "code": "LRG207",
                "rule": "sync-in-step",
                "severity": "note",
                "path": "src/b.py",
                "line": 7,
                "column": 1,
                "message": "slow.",
            },
        ],
        "unread": [{"path": "src/c.py", "line": 1, "column": 8, "message": "SyntaxError: invalid syntax"}],
    }


def test_github_gets_its_own_letters_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FORMATS["github"]([FINDING, NOTE]).splitlines() == [
        "::error file=src/a b%2Cc.py,line=3,col=5,title=LRG301 restarting-query-ids::ids, 100%25 wrong: merge.",
        "::notice file=src/b.py,line=7,col=1,title=LRG207 sync-in-step::slow.",
    ]
    monkeypatch.chdir(tmp_path)
    inside = Record("E999", "not-read", Severity.ERROR, "two\nlines\r", str(tmp_path / "x.py"), 1, 1)
    assert FORMATS["github"]([inside]) == "::error file=x.py,line=1,col=1,title=E999 not-read::two%0Alines%0D"


def sarif(*records: Record) -> dict[str, Any]:
    document = json.loads(FORMATS["sarif"](records))
    assert (document["version"], document["$schema"].rpartition("/")[2]) == ("2.1.0", "sarif-2.1.0.json")
    [run] = document["runs"]
    return run


def shown(level: str, text: str, uri: str, line: int, column: int) -> dict[str, Any]:
    """What SARIF 2.1.0 requires of a result and of a notification."""
    artifact = {"uri": uri, "uriBaseId": "%SRCROOT%"}
    place = {"artifactLocation": artifact, "region": {"startLine": line, "startColumn": column}}
    return {"level": level, "message": {"text": text}, "locations": [{"physicalLocation": place}]}


def test_sarif_has_the_fields_that_its_schema_requires() -> None:
    run = sarif(*RECORDS)
    codes = list(STATIC)
    assert run["results"] == [
        {
            "ruleId": "LRG301",
            "ruleIndex": codes.index("LRG301"),
            **shown("error", "ids, 100% wrong: merge.", "src/a%20b%2Cc.py", 3, 5),
        },
        {"ruleId": "LRG207", "ruleIndex": codes.index("LRG207"), **shown("note", "slow.", "src/b.py", 7, 1)},
    ]
    unread = shown("error", "SyntaxError: invalid syntax", "src/c.py", 1, 8)
    assert run["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": [unread]}]
    assert run["columnKind"] == "unicodeCodePoints"
    assert run["tool"]["driver"]["name"] == "lightning-retrieval-guard"
    assert all(rule["id"] and rule["shortDescription"]["text"] for rule in run["tool"]["driver"]["rules"])
    assert sarif()["results"] == []


def test_every_result_names_its_rule() -> None:
    records = [record(code, "x.", "a.py") for code in STATIC]
    run = sarif(*records)
    for result in run["results"]:
        rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
        assert rule["id"] == result["ruleId"]
        assert rule["defaultConfiguration"]["level"] == result["level"]
        assert fix_of(STATIC[rule["id"]]) in rule["help"]["text"]
        assert "query_scope" not in rule["help"]["text"]


def test_places_are_relative_to_the_working_directory_or_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = ["./a b.py", str(tmp_path / "c.py"), str(tmp_path.parent / "d.py")]
    run = sarif(*(record("LRG207", "slow.", path) for path in paths))
    places = [result["locations"][0]["physicalLocation"]["artifactLocation"] for result in run["results"]]
    assert places == [
        {"uri": "a%20b.py", "uriBaseId": "%SRCROOT%"},
        {"uri": "c.py", "uriBaseId": "%SRCROOT%"},
        {"uri": (tmp_path.parent / "d.py").as_uri()},
    ]
