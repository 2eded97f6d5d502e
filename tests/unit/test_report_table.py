"""The table that closes a stage."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from lightning_retrieval_guard.findings import Effect, Finding, Severity
from lightning_retrieval_guard.report.table import render_table
from lightning_retrieval_guard.report.text import columns

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


def test_the_place_is_cut_before_the_key_and_keeps_its_line() -> None:
    row = render_table("validate", [long(key=20, path=300)]).splitlines()[4]
    assert row.startswith("k" * 20 + "  LRG201")
    assert row.endswith("p.py:12345")
    assert " …ppp" in row
    assert len(row) == 100


def test_a_long_key_keeps_its_end() -> None:
    finding = replace(CORRECTED, key=f"{'prefix/' * 30}recall@10")
    row = render_table("validate", [finding]).splitlines()[4]
    assert row.startswith("prefix/")
    assert "recall@10  LRG201  error, corrected  0.2109     0.4219  module.py:212" in row


def test_wide_letters_stay_in_their_columns() -> None:
    _, _, header, _, *rows, rule = render_table(
        "validate", [replace(CORRECTED, key="精度@1"), replace(NOTE, path="評価.py"), CORRECTED]
    ).splitlines()
    ends = [columns(row[: row.index("LRG2")]) for row in rows]
    assert ends == [header.index("code")] * 3
    assert max(map(wcswidth, [header, *rows])) == len(rule)


@given(st.lists(st.builds(replace, st.sampled_from([CORRECTED, NOTE]), key=st.text(), path=st.text()), min_size=1))
def test_it_fits_100_columns_whatever_the_strings(findings: list[Finding]) -> None:
    table = render_table("sanity_check", findings).split("\n")
    assert len(table) == len(findings) + 5
    assert all(0 <= wcswidth(line) <= 100 for line in table)


@given(st.floats(), st.floats())
def test_it_fits_100_columns_whatever_the_numbers(logged: float, reference: float) -> None:
    finding = replace(long(300, 300), severity=Severity.WARNING, effect=Effect(logged, reference))
    assert all(len(line) <= 100 for line in render_table("sanity_check", [finding]).splitlines())


@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("corrected", [False, True])
def test_the_severity_says_what_became_of_it(severity: Severity, corrected: bool) -> None:
    row = render_table("test", [replace(FINDING, severity=severity, corrected=corrected)]).splitlines()[4]
    told = f"{severity.value}, corrected" if corrected else severity.value
    assert row.split("  ")[2].strip() == told


@pytest.mark.parametrize("stage", ["train", "sanity_check", "validate", "test"])
def test_the_title_names_the_stage(stage: str) -> None:
    assert render_table(stage, [NOTE]).splitlines()[0] == f"RetrievalGuard: findings of {stage}"


def test_control_codes_do_not_reach_the_terminal() -> None:
    evil = replace(CORRECTED, key="\x1b[31mred\r\nnew\x07", path="a\x1b]0;title.py")
    table = render_table("validate", [evil])
    assert "?[31mred??new?" in table
    assert "a?]0;title.py:212" in table
    assert all(line.isprintable() for line in table.split("\n"))
