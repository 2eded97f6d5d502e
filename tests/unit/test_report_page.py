"""The report as an HTML page, read as text; tests/report looks at it in a browser."""

from __future__ import annotations

import html
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_retrieval_guard.findings import Finding, Numbers, Severity
from lightning_retrieval_guard.report.document import EpochNumbers, Report, RowCounts, RunFacts, StageCounts
from lightning_retrieval_guard.report.page import render_page

from .test_findings import EFFECT, FINDING

WRONG = FINDING.with_effect(EFFECT)
KEYS = {"val_recall": Numbers(27 / 128, 27 / 64), "val_loss": Numbers(None, None)}
RUN = RunFacts("2026-01-02 03:04:05+00:00", "train.py --lr 1", {"torch": "2.13.0", "python": "3.11"}, 4, 500)
SCRIPT = "<script>alert('key')</script>"
VOID = {"meta", "polyline", "circle"}


def epochs(**keys: Numbers) -> dict[str, tuple[EpochNumbers, ...]]:
    """A history of one epoch."""
    return {name: (EpochNumbers("validate", 0, 10, numbers),) for name, numbers in keys.items()}


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
    return [text for name, given, text in read(report).closed if name == tag and wanted <= given.items()]


def page_of(finding: Finding, **changed: Any) -> Report:
    return Report("warn", 2, (replace(finding, **changed),), epochs(**KEYS), {}, {"LRG201": "Two `ranks`.\n\nTwice."})


def test_the_verdict_is_the_heading_and_the_title() -> None:
    report = page_of(WRONG)
    assert texts(report, "h1") == ["1 fault, 1 of 2 keys wrong"]
    assert texts(report, "title") == ["RetrievalGuard: 1 fault, 1 of 2 keys wrong"]
    assert "Mode warn, 2 ranks." in texts(report, "p")


def test_a_run_that_was_stopped_says_so() -> None:
    report = replace(page_of(WRONG), stopped=("LRG201", "LRG301"))
    assert texts(report, "h1") == ["Run stopped: LRG201, LRG301"]


def test_the_head_says_where_the_report_comes_from() -> None:
    paragraphs = texts(replace(page_of(WRONG), run=RUN), "p")
    assert "Mode warn, 2 ranks, epoch 4, step 500; 2026-01-02 03:04:05+00:00." in paragraphs
    assert "train.py --lr 1" in paragraphs
    assert "torch 2.13.0, python 3.11" in paragraphs


@pytest.mark.parametrize(
    ("keys", "findings", "tone"),
    [
        ({}, (), "unchecked"),
        ({"k": Numbers(0.5, None)}, (), "right"),
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
    [(_, attributes, _)] = [
        one for one in read(Report("warn", 2, findings, epochs(**keys))).closed if one[0] == "header"
    ]
    assert attributes["class"] == tone


def test_a_key_has_its_state_its_numbers_and_its_faults() -> None:
    report = page_of(WRONG)
    assert texts(report, "th", role="rowheader") == ["val_recall wrong LRG201", "val_loss not checked"]
    assert texts(report, "td", role="cell") == ["0.2109", "0.4219", "-0.2109", "", *["\u2013"] * 3, ""]
    assert texts(report, "a", href="#LRG201-1") == ["LRG201"]


def test_a_corrected_key_says_that_the_number_was_not_logged() -> None:
    keys = epochs(val_recall=Numbers(0.1, 0.2, corrected=True))
    report = Report("correct", 2, (replace(WRONG, corrected=True),), keys)
    assert texts(report, "th", role="rowheader") == ["val_recall corrected LRG201"]
    assert texts(report, "td", role="cell")[:2] == ["0.1000 before it was corrected", "0.2000"]
    unknown = replace(report, history=epochs(val_recall=Numbers(None, 0.2, corrected=True)))
    assert texts(unknown, "td", role="cell")[:2] == ["\u2013", "0.2000"]


def test_a_key_says_that_only_an_earlier_epoch_was_wrong() -> None:
    nil = replace(WRONG, effect=replace(EFFECT, logged=EFFECT.reference))
    report = Report("warn", 2, (nil,), epochs(val_recall=Numbers(EFFECT.reference, EFFECT.reference)))
    assert texts(report, "th", role="rowheader") == ["val_recall wrong in an earlier epoch LRG201"]


def test_a_fault_is_one_block_however_many_keys_it_has() -> None:
    findings = tuple(replace(WRONG, key=f"k{number}") for number in range(30))
    [article] = texts(Report("warn", 2, findings, epochs(**KEYS)), "article", id="LRG201-1", **{"class": "error"})
    assert " ".join(f"k{number}" for number in range(20)) + " and 10 more" in article
    assert "k20" not in article


def test_a_fault_tells_all_that_is_known() -> None:
    report = page_of(WRONG, ranks=(0, 1), count=3, hook="validation_step", world_size=2)
    assert texts(report, "h3") == ["error LRG201 gathered-before-sync"]
    [article] = texts(report, "article")
    for part in (
        FINDING.message,
        "1/2: the number of ranks.",
        f"Fix {FINDING.fix}",
        "src/module.py:212 The source is not at hand.",
        "Keys val_recall Stage validate Hook validation_step Ranks all 2 Seen 3 times",
    ):
        assert part in article
    assert article.endswith("Why it is wrong Two ranks . Twice.")
    assert texts(report, "details") == ["Why it is wrong Two ranks . Twice."]
    assert "ranks" in texts(report, "code")


def test_a_corrected_fault_says_so() -> None:
    assert texts(page_of(WRONG, corrected=True), "h3") == ["error LRG201 gathered-before-sync corrected"]


def test_notes_are_counted_at_their_line_and_have_no_numbers() -> None:
    notes = [replace(WRONG, severity=Severity.NOTE, key=key) for key in ("a", "b")]
    report = Report("warn", 2, tuple(notes), epochs(other=Numbers(0.5, 0.5)))
    assert texts(report, "li") == ["LRG201 gathered-before-sync, src/module.py:212 , 2 keys"]
    assert texts(report, "summary") == ["1 place, without effect on a number"]
    assert texts(report, "article") == []
    assert "0.2109" not in render_page(report)


def test_without_a_reason_there_is_nothing_in_its_place() -> None:
    assert "<details" not in render_page(Report("warn", 2, (FINDING,)))


@pytest.mark.parametrize(
    ("ranks", "ranges"),
    [((), "none"), ((1,), "1"), ((0, 1, 2, 3), "all 4"), ((3, 1, 0), "0\u20131, 3"), ((0, 2), "0, 2")],
)
def test_ranks_are_told_as_ranges(ranks: tuple[int, ...], ranges: str) -> None:
    report = Report("warn", 4, (replace(FINDING, ranks=ranks),))
    assert texts(report, "dd")[3] == ranges


def test_one_rank_is_not_all() -> None:
    assert texts(Report("warn", 1, (replace(FINDING, ranks=(0,)),)), "dd")[3] == "0"


def test_faults_stand_in_order_of_severity_and_keys_lead_to_them() -> None:
    warning = replace(FINDING, severity=Severity.WARNING, code="LRG102")
    report = Report("warn", 2, (warning, FINDING), epochs(val_recall=Numbers(0.1, None)))
    articles = [attributes for name, attributes, _ in read(report).closed if name == "article"]
    assert [(one["id"], one["class"]) for one in articles] == [("LRG201-1", "error"), ("LRG102-1", "warning")]
    assert re.findall(r'href="#([^"]*)"', render_page(report)) == ["LRG102-1", "LRG201-1"]


# --- numbers over epochs --------------------------------------------------------------------------------------


def lines(*numbers: tuple[float | None, float | None]) -> tuple[dict[str, list[tuple[float, float]]], str]:
    """The points of the logged and the reference line, and the words."""
    series = tuple(EpochNumbers("validate", index, index, Numbers(*pair)) for index, pair in enumerate(numbers))
    page = render_page(Report("warn", 2, history={"k": series}))
    matches = re.findall(r'<polyline class="(\w+)" points="([^"]*)"', page)
    points = {name: [tuple(map(float, pair.split(","))) for pair in text.split()] for name, text in matches}
    matches = re.findall(r'<circle class="(\w+)" cx="([^"]*)" cy="([^"]*)"', page)
    points |= {name: [(float(x), float(y))] for name, x, y in matches}
    [label] = re.findall('<svg[^>]*aria-label="([^"]*)"', page) or [""]
    return points, label


def test_both_lines_share_a_scale() -> None:
    points, label = lines((0.0, 1.0), (0.25, 1.0), (0.5, 1.0))
    assert points == {"logged": [(0, 21), (50, 16.5), (100, 12)], "reference": [(0, 3), (50, 3), (100, 3)]}
    assert label == "logged 0.0000, 0.2500, 0.5000; one device 1.0000, 1.0000, 1.0000, over 3 epochs"


def test_one_epoch_is_a_point_and_what_is_not_known_is_left_out() -> None:
    assert lines((0.25, 0.5)) == ({"logged": [(50, 21)], "reference": [(50, 3)]}, lines((0.25, 0.5))[1])
    points, label = lines((0.25, None), (math.nan, None), (0.5, math.inf))
    assert points == {"logged": [(0, 21), (100, 3)]}
    assert label == "logged 0.2500, NaN, 0.5000; one device \u2013, \u2013, ∞, over 3 epochs"
    assert lines((None, None)) == ({}, "")


@given(st.lists(st.tuples(st.none() | st.floats(), st.none() | st.floats()), min_size=1, max_size=4))
def test_every_point_is_within_the_chart(numbers: list[tuple[float | None, float | None]]) -> None:
    for points in lines(*numbers)[0].values():
        assert all(0 <= x <= 100 and 0 <= y <= 24 for x, y in points)


# --- the source -----------------------------------------------------------------------------------------------


def shown_source(path: Path, line: int) -> tuple[list[str], str]:
    """All lines with their numbers, and the one that is marked."""
    report = Report("warn", 2, (replace(FINDING, path=str(path), line=line),))
    [marked] = texts(report, "mark")
    [pre] = re.findall("<pre>(.*?)</pre>", render_page(report), re.DOTALL)
    plain = re.sub("<[^>]*>", "", pre.replace('<span class="line">', "\n").replace("</span><span>", " "))
    return [html.unescape(row).rstrip() for row in plain.strip("\n").split("\n")], marked


def test_the_lines_from_the_beginning_of_the_function_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("class M:\n    def step(self):\n        x = '<b>'\n        self.log(\n\n\t\t'k', x)\n        y\n")
    shown, marked = shown_source(path, 4)
    assert shown == ["2 def step(self):", "3     x = '<b>'", "4     self.log(", "5"]
    assert marked == "4 self.log("


def test_a_long_function_is_shown_from_ten_lines_before(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f():\n" + "".join(f"    x{number}\n" for number in range(2, 31)))
    shown = [row.split()[0] for row in shown_source(path, 20)[0]]
    assert shown == ["1", "…", *(str(number) for number in range(10, 22))]


PROGRAM = """\
class Retriever:
    def __init__(self):
        self.recall = Recall()

    def validation_step(self, batch):
        rows = self.all_gather(batch)
        self.feed(rows)

    def feed(self, rows):
        every = gather(rows)
        self.recall.update(*every)
        other(gather)

    def on_validation_epoch_end(self):
        self.log("recall", self.recall)
"""


def test_the_code_is_shown_from_the_update_and_gather_to_the_log_call(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(PROGRAM)
    finding = replace(WRONG, path=str(path), line=15, updates=((str(path), 11), ("<unknown>", 1)))
    report = Report("warn", 2, (finding,))
    assert texts(report, "figcaption") == [f"{path}:11", f"{path}:15"]
    assert texts(report, "mark") == [
        "10 every = gather(rows)",
        "11 self.recall.update(*every)",
        '15 self.log("recall", self.recall)',
    ]
    feeds, logs = re.findall("<pre>(.*?)</pre>", render_page(report), re.DOTALL)
    assert re.findall(r'class="line">(\d*)<', feeds) == ["9", "10", "11", "12"]
    assert re.findall(r'class="line">(\d*)<', logs) == ["14", "15"]


def test_an_update_in_the_function_of_the_log_call_is_shown_there(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(PROGRAM)
    report = Report("warn", 2, (replace(WRONG, path=str(path), line=12, updates=((str(path), 11),)),))
    assert texts(report, "figcaption") == [f"{path}:12"]
    assert len(texts(report, "mark")) == 3


def test_what_is_no_python_is_shown_too(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("%matplotlib\na\n  ?\n")
    assert shown_source(path, 1) == (["1 %matplotlib", "2 a"], "1 %matplotlib")
    assert shown_source(path, 3)[1] == "3 ?"


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
    report = Report("warn", 2, (replace(WRONG, **evil),), epochs(**{f"{SCRIPT}logged": Numbers(0.1, 0.2)}), stages)
    run = RunFacts(f"{SCRIPT}when", f"{SCRIPT}command", {f"{SCRIPT}package": f"{SCRIPT}version"}, 0, 0)
    report = replace(report, run=run, reasons={"LRG201": f"`{SCRIPT}reason`"}, stopped=(f"{SCRIPT}stopped",))
    page = render_page(report)
    assert "<script" not in page
    for name in (*evil, "metric", "logged", "when", "command", "package", "version", "reason", "stopped"):
        assert f"&lt;script&gt;alert(&#39;key&#39;)&lt;/script&gt;{name}" in page


def test_the_page_needs_nothing_else_and_may_load_nothing() -> None:
    page = render_page(page_of(WRONG))
    assert not re.search(r"""(src|srcset|data|action)=|url\(|@import|href="[^#]|\son\w+=""", page)
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert html.unescape(policy[1]).startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy[1]


# --- ranks ----------------------------------------------------------------------------------------------------


def counted(samples: tuple[int | None, ...], **metrics: tuple[tuple[int, int], ...]) -> Report:
    rows = {name: tuple(RowCounts(*rank_counts) for rank_counts in counts) for name, counts in metrics.items()}
    return Report("warn", len(samples), stages={"validate": StageCounts(samples, rows)})


def test_every_rank_has_a_row_where_they_are_uneven() -> None:
    report = counted((16, 12), recall=((2, 16), (1, 12)))
    assert texts(report, "tr") == ["Rank Samples Updates Queries", "0 16 2 16", "1 12 1 12"]
    assert texts(report, "p", **{"class": "evenness"}) == [
        "validate: recall : samples uneven: 12 on rank 1, up to 16 on others;"
        " updates uneven: 1 on rank 1, up to 2 on others; queries uneven: 12 on rank 1, up to 16 on others."
    ]
    assert render_page(report).count('<td class="fewer">') == 3


def test_an_empty_rank_stands_out() -> None:
    report = counted((16, 0, 0), recall=((2, 16), (0, 0), (0, 0)))
    assert texts(report, "tr")[2] == "1 0 none 0 none 0 none"
    assert "samples uneven: none on 2 ranks, up to 16 on others" in texts(report, "p", **{"class": "evenness"})[0]


def test_equal_ranks_are_a_sentence() -> None:
    report = counted((16, 16), recall=((2, 16), (2, 16)))
    [sentence] = texts(report, "p", **{"class": "evenness"})
    assert sentence == "validate: recall : 16 samples on every rank; 2 updates on every rank; 16 queries on every rank."
    assert texts(report, "tr") == []
    assert texts(counted((16,)), "p", **{"class": "evenness"}) == ["validate: 16 samples."]


@pytest.mark.parametrize(
    ("samples", "sentence", "rows"),
    [
        ((None, None), "samples not known.", []),
        ((None, 5), "5 samples, not known on 1.", ["0 not known", "1 5"]),
        (
            (None, 5, 4),
            "samples uneven: 4 on rank 2, up to 5 on others, not known on 1.",
            ["0 not known", "1 5", "2 4"],
        ),
    ],
)
def test_what_is_not_known_is_said(samples: tuple[int | None, ...], sentence: str, rows: list[str]) -> None:
    report = counted(samples)
    assert texts(report, "p", **{"class": "evenness"}) == [f"validate: {sentence}"]
    assert texts(report, "tr")[1:] == rows


def test_metrics_with_equal_counts_share_a_sentence() -> None:
    report = counted((4, 4), mrr=((1, 4), (1, 4)), ndcg=((1, 4), (1, 4)), recall=((2, 4), (2, 4)))
    sentences = texts(report, "p", **{"class": "evenness"})
    assert [sentence.split(" : ")[0] for sentence in sentences] == ["validate: mrr , ndcg", "validate: recall"]


def test_of_many_metrics_with_equal_counts_the_first_are_named() -> None:
    report = counted((4, 4), **{f"m{number}": ((1, 4), (1, 4)) for number in range(6)})
    [sentence] = texts(report, "p", **{"class": "evenness"})
    assert sentence.startswith("validate: m0 , m1 , m2 , m3 and 2 more: 4 samples on every rank;")


def test_the_sanity_check_is_left_out_where_the_validation_followed() -> None:
    stages = {"sanity_check": StageCounts((1, 1)), "validate": StageCounts((4, 4))}
    for shown, stages_named in ((stages, ["validate"]), ({"sanity_check": StageCounts((1, 1))}, ["sanity_check"])):
        sentences = texts(Report("warn", 2, stages=shown), "p", **{"class": "evenness"})
        assert [sentence.partition(":")[0] for sentence in sentences] == stages_named


def test_many_uneven_ranks_are_folded() -> None:
    few, many = counted((1,) * 15 + (0,)), counted((1,) * 16 + (0,))
    assert texts(few, "details") == []
    assert texts(many, "summary") == ["All 17 ranks"]
    assert len(texts(many, "tr")) == 18


@pytest.mark.parametrize("part", ["keys", "faults", "notes", "ranks"])
def test_a_part_without_content_is_left_out(part: str) -> None:
    note = replace(FINDING, severity=Severity.NOTE, line=3)
    whole = Report("warn", 1, (FINDING, note), epochs(**KEYS), {"test": StageCounts((1,))})
    less = {
        "ranks": {"stages": {}},
        "keys": {"history": {}},
        "faults": {"findings": (note,)},
        "notes": {"findings": ()},
    }
    assert f'id="{part}"' in render_page(whole)
    assert f'id="{part}"' not in render_page(replace(whole, **less[part]))
