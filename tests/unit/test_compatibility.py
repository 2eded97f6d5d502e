"""The page about versions: what it is made of, and that it is about the pairs that are installed."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from lightning_retrieval_guard import _compat
from tests import compatibility
from tests.compatibility import DOCUMENT, ROOT, note, render

NOXFILE = runpy.run_path(str(ROOT / "noxfile.py"))
PAIRS: dict[str, tuple[str, str]] = NOXFILE["PAIRS"]
RESULT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_score" name="a"/>
<testcase classname="tests.unit.test_score" name="b"><skipped/></testcase>
<testcase classname="tests.launch.test_launchers" name="c"><failure/></testcase>
<testcase classname="tests.launch.test_launchers" name="d"><error/></testcase>
</testsuite></testsuites>"""


def test_the_page_has_a_row_for_each_pair_and_each_python_and_none_has_a_failure() -> None:
    lines = re.findall(r"^\| (\d.*) \|$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    rows = [line.split(" | ") for line in lines]
    assert [tuple(row[:2]) for row in rows[: len(PAIRS)]] == list(PAIRS.values())
    assert [row[3].rpartition(".")[0] for row in rows[len(PAIRS) :]] == list(NOXFILE["PYTHONS"])
    assert {row[-1] for row in rows} == {"0"}


def test_the_pythons_are_those_that_the_package_is_for() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project) == list(NOXFILE["PYTHONS"])
    assert f'requires-python = ">={NOXFILE["PYTHONS"][0]}"' in project


def test_the_ends_of_the_ranges_are_installed() -> None:
    oldest, newest = PAIRS["oldest"], PAIRS["newest"]
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)$", (ROOT / "constraints-dev.txt").read_text(), flags=re.MULTILINE))
    assert newest == (pinned["lightning"], pinned["torchmetrics"]) == (pinned["pytorch-lightning"], newest[1])
    for package, first in zip(("lightning", "torchmetrics"), oldest, strict=True):
        lowest = re.search(r">=([\d.]+)", _compat.CHECKED[package])
        assert lowest is not None
        assert first.removesuffix(".0") == lowest[1]
        wanted = re.search(rf'"{package}(>=[^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        assert wanted is not None
        assert {str(one) for one in SpecifierSet(wanted[1])} < {
            str(one) for one in SpecifierSet(_compat.CHECKED[package])
        }


def test_a_result_becomes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "RESULTS", tmp_path / "kept")
    (tmp_path / "result.xml").write_text(RESULT, encoding="utf-8")
    note(tmp_path / "result.xml", "newest")
    result = json.loads((tmp_path / "kept" / "newest.json").read_text(encoding="utf-8"))
    [row] = [line for line in render([result]).splitlines() if line.startswith("| 2.")]
    assert row.split(" | ")[-3:] == ["1", "1", "2 |"]
    assert row.startswith(f"| {PAIRS['newest'][0]} | {PAIRS['newest'][1]} | ")
    assert "- `tests/launch/test_launchers.py`\n- `tests/unit/test_score.py`\n" in render([result])
    assert "| integer weights are floored (Lightning-AI/pytorch-lightning#21859) | >=2.0.7 |" in render([result])
