"""Widths on a terminal, with the package wcwidth as the oracle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from lightning_retrieval_guard.report.text import columns, cut_middle, pad, printable

ACCENT = "e\u0301"  # two characters in one column
TEXTS = ["", "recall@1", "精度", "ﾊﾝｶｸ", "\uff21\uff22", "한국어", "Größe", f"caf{ACCENT}", "👍 ok", "❤\ufe0f"]


@pytest.mark.parametrize("text", TEXTS)
def test_columns_are_those_of_the_oracle(text: str) -> None:
    assert columns(printable(text)) == wcswidth(printable(text))


@given(st.text())
def test_a_printable_text_never_takes_more_columns_than_are_counted(text: str) -> None:
    shown = printable(text)
    assert all(char.isprintable() for char in shown)
    assert 0 <= wcswidth(shown) <= columns(shown)


@given(st.text(), st.integers(1, 30))
def test_a_cut_text_fits_and_says_that_it_was_cut(text: str, width: int) -> None:
    shown = printable(text)
    cut = cut_middle(shown, width)
    assert columns(cut) <= width
    assert (cut == shown) == (columns(shown) <= width)
    assert cut == shown or "…" in cut


@pytest.mark.parametrize(("width", "middle"), [(1, "…"), (4, "va…0"), (5, "va…10"), (13, "val/recall@10")])
def test_the_end_stays(width: int, middle: str) -> None:
    assert cut_middle("val/recall@10", width) == middle


def test_a_wide_character_is_not_cut_in_two() -> None:
    assert cut_middle("精度精度", 5) == "精…度"
    assert columns(cut_middle("精度精度", 6)) <= 6


def test_a_mark_stays_with_its_letter() -> None:
    assert cut_middle(f"xx{ACCENT}y", 2) == "x…"
    assert cut_middle(f"{ACCENT}{ACCENT}{ACCENT}{ACCENT}", 3) == f"{ACCENT}…{ACCENT}"


def test_texts_are_padded_to_columns() -> None:
    assert pad("精度", 6) == "精度  "
    assert pad("精度", 6, right=True) == "  精度"
    assert pad("too wide", 3) == "too wide"


def test_letters_of_all_languages_are_printable() -> None:
    assert printable("Größe-精度 @1") == "Größe-精度 @1"
    assert printable("a\tb\u202ec\u200b") == "a?b?c?"
    assert printable("\x1b[31m\r\n\x07\x9b") == "?[31m????"
