"""The report as a file."""

import json
import math
import os
import re
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_retrieval_guard.findings import Effect, Numbers
from lightning_retrieval_guard.report import document
from lightning_retrieval_guard.report.document import build_document, render_html, write_document

from .test_findings import EFFECT, FINDING

SCRIPT = "<script>alert('key')</script>"


def built(**keys: Numbers) -> dict:
    return build_document("warn", 2, [FINDING.with_effect(EFFECT)], keys)


def test_the_document_follows_schema_version_1() -> None:
    told = built(val_recall=(EFFECT.logged, EFFECT.reference), val_loss=(None, None))
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
    write_document(path, build_document("correct", 1, [finding], {"k": (0.5, number)}))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert read["findings"][0]["effect"] == {"logged": None, "reference": 0.5}
    assert read["keys"]["k"] == {"logged": 0.5, "reference": None}


def test_html_escapes_what_the_user_wrote() -> None:
    evil = replace(FINDING, key=SCRIPT, path=f"{SCRIPT}.py", message=f"{SCRIPT} is wrong.", fix=f"Drop {SCRIPT} & go.")
    page = render_html(build_document("warn", 2, [evil], {SCRIPT: (EFFECT.logged, EFFECT.reference)}))
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#x27;key&#x27;)&lt;/script&gt;") == 5
    assert "&amp; go." in page


def test_html_tells_findings_and_numbers() -> None:
    page = render_html(built(val_recall=(EFFECT.logged, EFFECT.reference), val_loss=(None, None)))
    assert "Findings: 1. Mode warn, world size 2." in page
    row = '<tr><td>val_recall</td><td class="number">0.2109</td><td class="number">0.4219</td></tr>'
    assert row in page
    assert '<td>val_loss</td><td class="number"></td>' in page
    assert "LRG201 gathered-before-sync: val_recall" in page
    assert "<code>src/module.py:212</code>" in page
    assert not re.search(r"(src|href)=", page)  # it needs nothing else


def test_html_without_findings_says_so() -> None:
    assert "Every number is the reference value." in render_html(build_document("warn", 1, [], {}))


@pytest.mark.parametrize("name", ["report.json", "report.html"])
def test_the_suffix_decides_the_form(name: str, tmp_path: Path) -> None:
    write_document(tmp_path / name, built())
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert text.startswith("{" if name.endswith("json") else "<!doctype html>")


def test_letters_of_all_languages_survive(tmp_path: Path) -> None:
    write_document(tmp_path / "r.json", built(精度=(EFFECT.logged, EFFECT.reference)))
    write_document(tmp_path / "r.html", built(精度=(EFFECT.logged, EFFECT.reference)))
    assert "精度" in json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["keys"]
    assert "精度" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    write_document(path, built())
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(document.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_document(path, built(val_loss=(EFFECT.logged, EFFECT.reference)))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["report.json"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    write_document(path, built())
    seen: list[tuple[str, str]] = []
    real = os.replace

    def look(new: str, old: Path) -> None:
        seen.append((Path(new).read_text(encoding="utf-8"), old.read_text(encoding="utf-8")))
        real(new, old)

    monkeypatch.setattr(document.os, "replace", look)
    write_document(path, built(val_loss=(EFFECT.logged, EFFECT.reference)))
    ((new, old),) = seen
    assert "val_loss" not in json.loads(old)["keys"]
    assert "val_loss" in json.loads(new)["keys"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_others_may_read_the_file_as_far_as_the_umask_allows(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_document(tmp_path / "report.json", built())
        assert stat.S_IMODE((tmp_path / "report.json").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)
