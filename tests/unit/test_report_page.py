"""The report as an HTML page, read as text; tests/report looks at it in a browser."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lightning_retrieval_guard.findings import Finding, Numbers, Severity
from lightning_retrieval_guard.report.contents import Report, RowCounts, StageCounts
from lightning_retrieval_guard.report.page import render_page

from .test_findings import EFFECT, FINDING

WRONG = FINDING.with_effect(EFFECT)
KEYS = {"val_recall": Numbers(27 / 128, 27 / 64), "val_loss": Numbers(None, None)}
SCRIPT = "<script>alert('key')</script>"
VOID = {"meta", "rect"}


class _Reader(HTMLParser):
    """Words of the page by element: the text of each, in order of their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, Any], list[str]]] = []
        self.closed: list[tuple[str, dict[str, Any], str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            name, attributes, texts = self.open.pop()
            assert name == tag, f"<{name}> is closed by </{tag}>"
            self.closed.append((name, attributes, " ".join(" ".join(texts).split())))

    def handle_data(self, data: str) -> None:
        for _, _, texts in self.open:
            texts.append(data)


def read(report: Report) -> _Reader:
    reader = _Reader()
    reader.feed(render_page(report))
    reader.close()
    assert not reader.open
    return reader


def texts(report: Report, tag: str, **attributes: str) -> list[str]:
    wanted = attributes.items()
    return [text for name, own, text in read(report).closed if name == tag and wanted <= own.items()]


def page_of(finding: Finding, **changed: Any) -> Report:
    return Report("warn", 2, (replace(finding, **changed),), KEYS, {}, {"LRG201": "Two `ranks`.\n\nTwice."})


def test_the_verdict_is_the_heading_and_the_title() -> None:
    report = page_of(WRONG)
    assert texts(report, "h1") == ["1 of 2 keys is wrong, 1 could not be checked."]
    assert texts(report, "title") == ["RetrievalGuard: 1 of 2 keys is wrong, 1 could not be checked."]
    assert "Mode warn, 2 ranks. Findings: 1 error." in texts(report, "p")


def test_the_summary_counts_findings_by_severity() -> None:
    found = (WRONG, replace(WRONG, line=3), replace(WRONG, severity=Severity.WARNING), FINDING)
    note = replace(FINDING, severity=Severity.NOTE)
    report = Report("correct", 1, (*found, note))
    assert "Mode correct, 1 rank. Findings: 3 errors, 1 warning, 1 note." in texts(report, "p")
    assert "Mode warn, 1 rank. Findings: none." in texts(Report("warn", 1), "p")


@pytest.mark.parametrize(
    ("keys", "findings", "tone"),
    [
        ({}, (), "unchecked"),
        ({"k": Numbers(0.5, 0.5)}, (), "right"),
        ({"k": Numbers(0.5, 0.5), "l": Numbers(0.5, None)}, (), "right"),
        ({"k": Numbers(0.5, 0.6, corrected=True)}, (replace(WRONG, corrected=True),), "corrected"),
        ({"k": Numbers(0.5, 0.5), "l": Numbers(0.5, 0.6)}, (), "wrong"),
        ({"k": Numbers(0.5, 0.5)}, (FINDING,), "wrong"),
        ({"k": Numbers(0.5, 0.5)}, (replace(FINDING, severity=Severity.NOTE),), "right"),
    ],
)
def test_the_worst_gives_the_page_its_colour(
    keys: dict[str, Numbers], findings: tuple[Finding, ...], tone: str
) -> None:
    [(_, attributes, _)] = [one for one in read(Report("warn", 2, findings, keys)).closed if one[0] == "header"]
    assert attributes["class"] == tone


def test_a_key_has_its_state_its_numbers_and_its_findings() -> None:
    report = page_of(WRONG)
    assert texts(report, "th", role="rowheader") == ["val_recall ✗ wrong LRG201", "val_loss ? unchecked"]
    cells = texts(report, "td", role="cell")
    assert cells == ["0.2109", "0.4219", "", "not known", "not known", ""]
    assert texts(report, "a", href="#finding-0") == ["LRG201"]
    assert 'aria-label="logged 0.2109, reference 0.4219, on a scale from 0 to 1.0000"' in render_page(report)


def test_a_corrected_key_says_that_the_number_was_not_logged() -> None:
    report = Report("correct", 2, (replace(WRONG, corrected=True),), {"val_recall": Numbers(0.1, 0.2, corrected=True)})
    assert texts(report, "th", role="rowheader") == ["val_recall ✓ corrected LRG201"]
    assert texts(report, "td", role="cell")[:2] == ["0.1000 would have been logged", "0.2000"]
    unknown = replace(report, keys={"val_recall": Numbers(None, 0.2, corrected=True)})
    assert texts(unknown, "td", role="cell")[:2] == ["not known", "0.2000"]


def test_a_key_says_that_only_an_earlier_epoch_was_wrong() -> None:
    nil = replace(WRONG, effect=replace(EFFECT, logged=EFFECT.reference))
    report = Report("warn", 2, (nil,), {"val_recall": Numbers(EFFECT.reference, EFFECT.reference)})
    assert texts(report, "th", role="rowheader") == ["val_recall ✗ wrong in an earlier epoch LRG201"]


def test_a_finding_tells_all_that_is_known() -> None:
    report = page_of(WRONG, ranks=(0, 1), count=3, hook="validation_step")
    assert texts(report, "h3") == ["error LRG201 gathered-before-sync val_recall"]
    [article] = texts(report, "article", **{"class": "error", "id": "finding-0"})
    for part in (
        FINDING.message,
        "Logged 0.2109, reference 0.4219.",
        f"Fix {FINDING.fix}",
        "src/module.py:212 The source is not at hand.",
        "Stage validate Hook validation_step Ranks all 2 Seen 3 times Corrected no",
    ):
        assert part in article
    assert article.endswith("Why it is wrong Two ranks . Twice.")
    assert texts(report, "details") == ["Why it is wrong Two ranks . Twice."]
    assert "ranks" in texts(report, "code")


def test_a_corrected_finding_says_so() -> None:
    [article] = texts(page_of(WRONG, corrected=True, count=1), "article")
    assert "Would have logged 0.2109, reference 0.4219." in article
    assert "Seen once Corrected yes" in article


def test_without_numbers_and_reason_there_is_nothing_in_their_place() -> None:
    page = render_page(Report("warn", 2, (FINDING,)))
    assert 'class="effect"' not in page
    assert "<details" not in page


@pytest.mark.parametrize(
    ("ranks", "told"),
    [((), "none"), ((1,), "1"), ((0, 1, 2, 3), "all 4"), ((3, 1, 0), "0\u20131, 3"), ((0, 2), "0, 2")],
)
def test_ranks_are_told_as_ranges(ranks: tuple[int, ...], told: str) -> None:
    report = Report("warn", 4, (replace(FINDING, ranks=ranks),))
    assert texts(report, "dd")[2] == told


def test_one_rank_is_not_all() -> None:
    assert texts(Report("warn", 1, (replace(FINDING, ranks=(0,)),)), "dd")[2] == "0"


def test_findings_stand_in_order_of_severity_and_keep_their_links() -> None:
    note, warning = (replace(FINDING, severity=severity) for severity in (Severity.NOTE, Severity.WARNING))
    report = Report("warn", 2, (note, warning, FINDING), {"val_recall": Numbers(0.1, None)})
    articles = [own for name, own, _ in read(report).closed if name == "article"]
    assert [(own["id"], own["class"]) for own in articles] == [
        ("finding-2", "error"),
        ("finding-1", "warning"),
        ("finding-0", "note"),
    ]
    links = re.findall(r'href="#(finding-\d)"', render_page(report))
    assert links == ["finding-0", "finding-1", "finding-2"]


# --- the source -----------------------------------------------------------------------------------------------


def shown_source(path: Path, line: int) -> tuple[list[str], str]:
    """All lines with their numbers, and the one that is marked."""
    report = Report("warn", 2, (replace(FINDING, path=str(path), line=line),))
    [marked] = texts(report, "mark")
    [pre] = re.findall("<pre>(.*?)</pre>", render_page(report), re.DOTALL)
    plain = re.sub("<[^>]*>", "", pre.replace('<span class="line">', "\n").replace("</span><span>", " "))
    return [html.unescape(row).rstrip() for row in plain.strip("\n").split("\n")], marked


def test_the_source_line_stands_among_its_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("class M:\n    def step(self):\n        x = '<b>'\n        self.log(\n\n\t\t'k', x)\n        y\n")
    shown, marked = shown_source(path, 4)
    assert shown == ["3 x = '<b>'", "4 self.log(", "5", "6 'k', x)"]
    assert marked == "4 self.log("


def test_the_first_and_the_last_line_have_fewer(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("a\nb\nc\nd\n")
    assert shown_source(path, 1) == (["1 a", "2 b", "3 c"], "1 a")
    assert shown_source(path, 4) == (["3 c", "4 d"], "4 d")


def test_a_very_long_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("x = '" + "y" * 100_000 + "'\n")
    assert len(shown_source(path, 1)[1]) < 500


@pytest.mark.parametrize("line", [0, 3, 10**9])
def test_a_line_that_is_not_there_is_said(line: int, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("a\nb\n")
    report = Report("warn", 2, (replace(FINDING, path=str(path), line=line),))
    assert texts(report, "figure") == [f"{path}:{line} The source is not at hand."]


# --- safety ---------------------------------------------------------------------------------------------------


def test_every_string_of_the_user_is_escaped() -> None:
    evil = {name: f"{SCRIPT}{name}" for name in ("key", "path", "message", "fix", "hook", "stage")}
    stages = {evil["stage"]: StageCounts((1, 2), {f"{SCRIPT}metric": (RowCounts(1, 1), RowCounts(1, 2))})}
    report = Report("warn", 2, (replace(WRONG, **evil),), {f"{SCRIPT}logged": Numbers(0.1, 0.2)}, stages)
    page = render_page(report)
    assert "<script" not in page
    for name in (*evil, "metric", "logged"):
        assert f"&lt;script&gt;alert(&#x27;key&#x27;)&lt;/script&gt;{name}" in page


def test_the_page_needs_nothing_else_and_may_load_nothing() -> None:
    page = render_page(page_of(WRONG))
    assert not re.search(r"""(src|srcset|data|action)=|url\(|@import|href="[^#]|\son\w+=""", page)
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]


# --- ranks ----------------------------------------------------------------------------------------------------


def counted(samples: tuple[int | None, ...], **metrics: tuple[tuple[int, int], ...]) -> Report:
    rows = {name: tuple(RowCounts(*own) for own in counts) for name, counts in metrics.items()}
    return Report("warn", len(samples), stages={"validate": StageCounts(samples, rows)})


def test_every_rank_has_a_row_with_its_counts() -> None:
    report = counted((16, 12), recall=((2, 16), (1, 12)))
    assert texts(report, "tr") == ["Rank Samples Updates Queries", "0 16 2 16", "1 12 1 12"]
    assert texts(report, "h3") == ["validate: recall"]
    assert texts(report, "p", **{"class": "evenness"}) == [
        "Samples: uneven , 12 on rank 1, up to 16 on others. Updates: uneven , 1 on rank 1, up to 2 on others."
        " Queries: uneven , 12 on rank 1, up to 16 on others."
    ]
    assert render_page(report).count('<td class="fewer">') == 3
    assert render_page(report).count('aria-label="75% of the most that a rank has"') == 2


def test_an_empty_rank_stands_out() -> None:
    report = counted((16, 0, 0), recall=((2, 16), (0, 0), (0, 0)))
    assert texts(report, "tr")[2] == "1 0 none 0 none 0 none"
    assert "Samples: uneven , none on 2 ranks, up to 16 on others." in texts(report, "p", **{"class": "evenness"})[0]


def test_equal_ranks_are_said_to_be_equal() -> None:
    report = counted((16, 16), recall=((2, 16), (2, 16)))
    [told] = texts(report, "p", **{"class": "evenness"})
    assert told == "Samples: 16 on every rank. Updates: 2 on every rank. Queries: 16 on every rank."
    assert 'class="fewer"' not in render_page(report)
    assert texts(counted((16,)), "p", **{"class": "evenness"}) == ["Samples: 16."]
    assert "none" not in texts(counted((0, 0)), "tr")[1]


@pytest.mark.parametrize(
    ("samples", "told", "row"),
    [
        ((None, None), "Samples: not known.", "0 not known"),
        ((None, 5), "Samples: 5, not known on 1.", "0 not known"),
        ((None, 5, 4), "Samples: uneven , 4 on rank 2, up to 5 on others, not known on 1.", "0 not known"),
    ],
)
def test_what_is_not_known_is_said(samples: tuple[int | None, ...], told: str, row: str) -> None:
    report = counted(samples)
    assert texts(report, "p", **{"class": "evenness"}) == [told]
    assert texts(report, "tr")[1] == row


def test_metrics_with_equal_counts_share_a_table() -> None:
    report = counted((4, 4), mrr=((1, 4), (1, 4)), ndcg=((1, 4), (1, 4)), recall=((2, 4), (2, 4)))
    assert texts(report, "h3") == ["validate: mrr , ndcg", "validate: recall"]


def test_many_ranks_are_folded_below_a_chart() -> None:
    few, many = counted((1,) * 16), counted((1,) * 16 + (0,))
    assert texts(few, "details") == []
    assert texts(many, "summary") == ["All 17 ranks"]
    assert len(texts(many, "tr")) == 18
    assert 'aria-label="samples of each rank, from rank 0 to rank 16"' in render_page(many)
    assert texts(many, "figcaption") == ["Samples by rank"]


@pytest.mark.parametrize("part", ["keys", "findings", "ranks"])
def test_a_part_without_content_is_left_out(part: str) -> None:
    contents = {"keys": KEYS, "findings": (FINDING,), "stages": {"test": StageCounts((1,))}}
    whole = Report("warn", 1, **contents)
    assert texts(whole, "nav") == ["Keys Findings Ranks"]
    empty = replace(whole, **{"ranks": {"stages": {}}, "keys": {"keys": {}}, "findings": {"findings": ()}}[part])
    assert f'id="{part}"' in render_page(whole)
    assert f'id="{part}"' not in render_page(empty)
    assert f'href="#{part}"' not in render_page(empty)
    assert "<nav" not in render_page(Report("warn", 1))
