"""The report as a file."""

import json
import math
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_retrieval_guard.findings import Effect, Numbers
from lightning_retrieval_guard.report import document
from lightning_retrieval_guard.report.document import (
    EpochNumbers,
    Report,
    RowCounts,
    RunFacts,
    StageCounts,
    build_document,
    set_aside,
    write_report,
)

from .test_findings import EFFECT, FINDING

BOTH = Numbers(EFFECT.logged, EFFECT.reference, corrected=True)
STAGES = {"validate": StageCounts((4, 3), {"recall": (RowCounts(1, 4), RowCounts(1, 3))})}


RUN = RunFacts("2026-01-02 03:04:05+00:00", "train.py --lr 1", {"torch": "2.13.0"}, 4, 500)


def history(**keys: Numbers) -> dict[str, tuple[EpochNumbers, ...]]:
    return {name: (EpochNumbers("validate", 4, 500, numbers),) for name, numbers in keys.items()}


def report(**keys: Numbers) -> Report:
    return Report("warn", 2, (FINDING.with_effect(EFFECT),), history(**keys), STAGES, {"LRG201": "Because."}, RUN)


def test_the_document_has_all_of_version_1_with_the_same_meaning() -> None:
    document = build_document(report(val_recall=BOTH, val_loss=Numbers(None, None)))
    assert (document["mode"], document["world_size"]) == ("warn", 2)
    [finding] = document["findings"]
    assert finding == FINDING.with_effect(EFFECT).to_dict() | {"group": "LRG201-1"}
    shown = {name: {"logged": key["logged"], "reference": key["reference"]} for name, key in document["keys"].items()}
    assert shown == {
        "val_recall": {"logged": 27 / 128, "reference": 27 / 64},
        "val_loss": {"logged": None, "reference": None},
    }


def test_version_2_tells_where_it_comes_from() -> None:
    document = build_document(report())
    assert list(document) == [
        *("version", "mode", "world_size", "when", "command", "versions", "epoch", "global_step"),
        *("stopped", "findings", "keys"),
    ]
    assert document["version"] == 2
    assert (document["when"], document["command"], document["epoch"], document["global_step"]) == (
        RUN.when,
        RUN.command,
        4,
        500,
    )
    assert document["versions"] == {"torch": "2.13.0"}
    assert document["stopped"] == []
    assert build_document(replace(report(), stopped=("LRG301",)))["stopped"] == ["LRG301"]
    assert build_document(replace(report(), run=None))["when"] is None


def test_version_2_has_the_history_of_every_key() -> None:
    epochs = (EpochNumbers("validate", 0, 10, Numbers(0.1, math.nan)), EpochNumbers("validate", 1, 20, BOTH))
    document = build_document(replace(report(), history={"k": epochs}))["keys"]["k"]
    assert document == {
        "logged": 27 / 128,
        "reference": 27 / 64,
        "history": [
            {"stage": "validate", "epoch": 0, "global_step": 10, "logged": 0.1, "reference": None},
            {"stage": "validate", "epoch": 1, "global_step": 20, "logged": 27 / 128, "reference": 27 / 64},
        ],
    }


def test_findings_of_one_cause_have_the_same_group() -> None:
    findings = (FINDING, replace(FINDING, key="other"), replace(FINDING, line=1))
    document = build_document(replace(report(), findings=findings))
    assert [finding["group"] for finding in document["findings"]] == ["LRG201-1", "LRG201-1", "LRG201-2"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_stays_valid_where_a_number_is_not_finite(number: float, tmp_path: Path) -> None:
    finding = FINDING.with_effect(Effect(number, 0.5))
    path = tmp_path / "report.json"
    write_report(path, Report("correct", 1, (finding,), history(k=Numbers(0.5, number))))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert read["findings"][0]["effect"] == {"logged": None, "reference": 0.5}
    assert read["keys"]["k"] | {"history": []} == {"logged": 0.5, "reference": None, "history": []}


@pytest.mark.parametrize("name", ["report.json", "report.html"])
def test_the_suffix_decides_the_form(name: str, tmp_path: Path) -> None:
    write_report(tmp_path / name, report())
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert text.startswith("{" if name.endswith("json") else "<!doctype html>")


@pytest.mark.parametrize("key", ["精度", "half a surrogate \udc80", "\x00"])
def test_any_key_can_be_written(key: str, tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", report(**{key: BOTH}))
    write_report(tmp_path / "r.html", report(**{key: BOTH}))
    assert list(json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["keys"]) == [key]
    shown = key.replace("\udc80", "\ufffd").replace("\x00", "\ufffd")
    assert f"<code>{shown}</code>" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    write_report(path, report())
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(document.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, report(val_loss=BOTH))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["report.json"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    write_report(path, report())
    seen: list[tuple[str, str]] = []
    real = os.replace

    def look(new: str, old: Path) -> None:
        seen.append((Path(new).read_text(encoding="utf-8"), old.read_text(encoding="utf-8")))
        real(new, old)

    monkeypatch.setattr(document.os, "replace", look)
    write_report(path, report(val_loss=BOTH))
    ((new, old),) = seen
    assert "val_loss" not in json.loads(old)["keys"]
    assert "val_loss" in json.loads(new)["keys"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_others_may_read_the_file_as_far_as_the_umask_allows(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_report(tmp_path / "report.json", report())
        assert stat.S_IMODE((tmp_path / "report.json").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)


def test_a_link_stays_and_the_file_behind_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "behind").mkdir()
    target, link = tmp_path / "behind" / "real.json", tmp_path / "report.json"
    link.symlink_to(target)
    for _ in range(2):
        write_report(link, report())
        assert link.is_symlink()
        assert json.loads(target.read_text(encoding="utf-8"))["version"] == 2
        assert os.listdir(tmp_path / "behind") == ["real.json"]


def test_the_report_of_an_earlier_run_keeps_its_content_under_another_name(tmp_path: Path) -> None:
    path, link = tmp_path / "report.json", tmp_path / "link.json"
    link.symlink_to(path)
    assert set_aside(path) is None
    for number, given in enumerate((path, link), 1):
        path.write_text(f"run {number}")
        assert set_aside(given) == tmp_path / f"report-{number}.json"
    assert [(tmp_path / f"report-{number}.json").read_text() for number in (1, 2)] == ["run 1", "run 2"]
    assert not path.exists()
