"""The table that closes a stage."""

from dataclasses import replace

import pytest

from lightning_retrieval_guard.findings import Effect, Finding, Severity
from lightning_retrieval_guard.report.table import printable, render_table

from .test_findings import EFFECT, FINDING

CORRECTED = replace(FINDING.with_effect(EFFECT), corrected=True)
NOTE = replace(FINDING, code="LRG207", key="val_mrr", severity=Severity.NOTE, path="/home/user/src/other.py", line=7)

TABLE = """\
RetrievalGuard: findings of validate
----------------------------------------------------------------------
key         code    severity          logged  reference  where
----------------------------------------------------------------------
val_recall  LRG201  error, corrected  0.2109     0.4219  module.py:212
val_mrr     LRG207  note                                 other.py:7
----------------------------------------------------------------------"""


def long(key: int = 10, path: int = 10, logged: float = 0.5) -> Finding:
    return replace(CORRECTED, key="k" * key, path=f"{'p' * path}.py", line=12345, effect=Effect(logged, -1.2e-30))


def test_it_shows_key_code_severity_numbers_and_place() -> None:
    assert render_table("validate", [CORRECTED, NOTE]) == TABLE


@pytest.mark.parametrize("finding", [long(), long(key=300), long(path=300), long(key=300, path=300), long(40, 40)])
def test_it_fits_100_columns(finding: Finding) -> None:
    table = render_table("validate", [finding, NOTE, CORRECTED])
    assert max(map(len, table.splitlines())) <= 100


def test_columns_stay_aligned_when_they_are_cut() -> None:
    _, _, header, _, *rows, _ = render_table("validate", [long(300, 300, -123456.0), NOTE, CORRECTED]).splitlines()
    at = header.index("code")
    assert [row[at : at + 6] for row in rows] == ["LRG201", "LRG207", "LRG201"]
    end = header.index("reference") + len("reference")
    assert [row[:end].rstrip()[-10:].split()[-1] for row in rows[::2]] == ["-1.2e-30", "0.4219"]
    assert all(row[end : end + 2].strip() == "" for row in rows)
    assert rows[0].count("…") == 2


def test_the_place_is_cut_before_the_key() -> None:
    row = render_table("validate", [long(key=20, path=300)]).splitlines()[4]
    assert row.startswith("k" * 20)


def test_control_codes_do_not_reach_the_terminal() -> None:
    evil = replace(CORRECTED, key="\x1b[31mred\r\nnew\x07", path="a\x1b]0;title.py")
    table = render_table("validate", [evil])
    assert "?[31mred??new?" in table
    assert "a?]0;title.py:212" in table
    assert all(line.isprintable() for line in table.split("\n"))


def test_letters_of_all_languages_are_printable() -> None:
    assert printable("Größe-精度 @1") == "Größe-精度 @1"
    assert printable("a\tb\u202ec\u200b") == "a?b?c?"
