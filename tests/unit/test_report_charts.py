"""Bars as SVG: their lengths, their places and what they say in words."""

from __future__ import annotations

import math
import sys
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_retrieval_guard.findings import Numbers
from lightning_retrieval_guard.report.charts import count_bar, count_columns, pair, show
from lightning_retrieval_guard.report.verdict import State

Bars = dict[str, tuple[float, float]]  # start and end in percent


def drawn(numbers: Numbers) -> tuple[Bars, str, str]:
    """The bars, the text alternative and the scale below."""
    svg, _, scale = pair(numbers, State.WRONG).partition("</svg>")
    tree = ElementTree.fromstring(f"{svg}</svg>")
    assert tree.attrib["role"] == "img"
    bars = {}
    for rect in tree:
        start, width = float(rect.attrib["x"]), float(rect.attrib["width"])
        bars[rect.attrib["class"]] = (start, start + width)
    assert bars.pop("track") == (0, 100)
    return bars, tree.attrib["aria-label"], scale


@pytest.mark.parametrize(
    ("numbers", "bars"),
    [
        (Numbers(0.25, 0.5), {"logged wrong": (0, 25), "reference": (0, 50)}),
        (Numbers(0.0, 1.0), {"logged wrong": (0, 0), "reference": (0, 100)}),
        (Numbers(None, 0.5), {"reference": (0, 50)}),
        (Numbers(0.5, None), {"logged wrong": (0, 50)}),
        (Numbers(math.nan, math.inf), {}),
        (Numbers(None, None), {}),
        (Numbers(math.nan, 0.5), {"reference": (0, 50)}),
        (Numbers(2.0, 1.0), {"logged wrong": (0, 100), "reference": (0, 50)}),
        (Numbers(-1.0, 3.0), {"logged wrong": (0, 25), "reference": (25, 100), "axis": (24.8, 25.2)}),
        (Numbers(-4.0, -1.0), {"logged wrong": (0, 100), "reference": (75, 100), "axis": (99.8, 100.2)}),
        (Numbers(-1e-9, 1e-9), {"logged wrong": (0, 0), "reference": (0, 0)}),
        (
            Numbers(sys.float_info.max, -sys.float_info.max),
            {"logged wrong": (50, 100), "reference": (0, 50), "axis": (49.8, 50.2)},
        ),
    ],
)
def test_bars_start_at_zero_and_end_at_the_value(numbers: Numbers, bars: Bars) -> None:
    shown = drawn(numbers)[0]
    assert shown.keys() == bars.keys()
    for name, edges in bars.items():
        assert shown[name] == pytest.approx(edges)


NUMBER = st.none() | st.floats()


@given(NUMBER, NUMBER)
def test_every_bar_is_within_the_chart(logged: float | None, reference: float | None) -> None:
    bars, label, _ = drawn(Numbers(logged, reference))
    for name, (start, end) in bars.items():
        assert -0.01 <= start <= end <= (100.21 if name == "axis" else 100.01)
    assert label.startswith(f"logged {show(logged)}, reference {show(reference)}, on a scale from ")


@pytest.mark.parametrize(
    ("numbers", "label", "scale"),
    [
        (Numbers(0.25, 0.5), "logged 0.2500, reference 0.5000, on a scale from 0 to 1.0000", ""),
        (
            Numbers(-1.0, None),
            "logged -1.0000, reference not known, on a scale from -1.0000 to 0",
            "<small>on a scale from -1.0000 to 0</small>",
        ),
        (
            Numbers(math.nan, 1.75),
            "logged NaN, reference 1.7500, on a scale from 0 to 1.7500",
            "<small>on a scale from 0 to 1.7500</small>",
        ),
    ],
)
def test_it_says_what_it_shows(numbers: Numbers, label: str, scale: str) -> None:
    assert drawn(numbers)[1:] == (label, scale)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "not known"), (math.nan, "NaN"), (math.inf, "∞"), (-math.inf, "-∞"), (0.25, "0.2500"), (1e-9, "1e-09")],
)
def test_numbers_are_shown(value: float | None, shown: str) -> None:
    assert show(value) == shown


def test_a_count_is_shown_beside_the_most() -> None:
    tree = ElementTree.fromstring(count_bar(3, 4))
    assert [float(rect.attrib["width"]) for rect in tree] == [100, 75]
    assert tree.attrib["aria-label"] == "75% of the most that a rank has"
    assert ElementTree.fromstring(count_bar(0, 0)).attrib["aria-label"].startswith("0%")


def test_columns_show_every_rank_and_mark_those_without_any() -> None:
    tree = ElementTree.fromstring(count_columns([4, 2, 0, None], "samples <of> each"))
    assert tree.attrib["aria-label"] == "samples <of> each"
    assert [(rect.attrib["class"], float(rect.attrib["height"])) for rect in tree] == [
        ("bar", 40),
        ("bar", 20),
        ("empty", 40),
        ("track", 40),
    ]
    assert [float(rect.attrib["x"]) for rect in tree] == [0, 25, 50, 75]
    assert all(float(rect.attrib["height"]) == 40 for rect in ElementTree.fromstring(count_columns([0, 0], "x")))
