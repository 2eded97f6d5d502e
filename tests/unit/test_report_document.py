"""The report as a file."""

import json
import math
import os
import stat
import sys
from pathlib import Path

import pytest

from lightning_retrieval_guard.findings import Effect, Numbers
from lightning_retrieval_guard.report import document
from lightning_retrieval_guard.report.contents import Report, RowCounts, StageCounts
from lightning_retrieval_guard.report.document import build_document, write_report

from .test_findings import EFFECT, FINDING

BOTH = Numbers(EFFECT.logged, EFFECT.reference, corrected=True)
STAGES = {"validate": StageCounts((4, 3), {"recall": (RowCounts(1, 4), RowCounts(1, 3))})}


def report(**keys: Numbers) -> Report:
    return Report("warn", 2, (FINDING.with_effect(EFFECT),), keys, STAGES, {"LRG201": "Because."})


def test_the_document_is_schema_version_1_and_nothing_else() -> None:
    told = build_document(report(val_recall=BOTH, val_loss=Numbers(None, None)))
    assert list(told) == ["version", "mode", "world_size", "findings", "keys"]
    assert (told["version"], told["mode"], told["world_size"]) == (1, "warn", 2)
    assert told["findings"] == [FINDING.with_effect(EFFECT).to_dict()]
    assert told["keys"] == {
        "val_recall": {"logged": 27 / 128, "reference": 27 / 64},
        "val_loss": {"logged": None, "reference": None},
    }


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_stays_valid_where_a_number_is_not_finite(number: float, tmp_path: Path) -> None:
    finding = FINDING.with_effect(Effect(number, 0.5))
    path = tmp_path / "report.json"
    write_report(path, Report("correct", 1, (finding,), {"k": Numbers(0.5, number)}))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert read["findings"][0]["effect"] == {"logged": None, "reference": 0.5}
    assert read["keys"]["k"] == {"logged": 0.5, "reference": None}


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
        assert json.loads(target.read_text(encoding="utf-8"))["version"] == 1
        assert os.listdir(tmp_path / "behind") == ["real.json"]
