"""What a run says on a terminal, word by word."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from wcwidth import wcswidth

from lightning_retrieval_guard.findings import Effect, Finding, Numbers, Severity
from lightning_retrieval_guard.report.faults import group
from lightning_retrieval_guard.report.log import FindingLog
from lightning_retrieval_guard.report.terminal import render_error, render_fault

from .test_findings import FINDING

WIDTHS = pytest.mark.parametrize("width", [80, 120])


def wrong(count: int, **changed: Any) -> list[Finding]:
    """Findings at so many keys of one line; the first number is the half of the right one."""
    keys = [f"val_recall@{k}" for k in range(1, count + 1)]
    effects = [Effect(0.1 * k, 0.2 * k if k == 1 else 0.9) for k in range(1, count + 1)]
    base = replace(FINDING, **{"path": "train.py", "line": 32, "world_size": 2, **changed})
    return [replace(base, key=key, effect=effect) for key, effect in zip(keys, effects, strict=True)]


@contextlib.contextmanager
def shown_warnings() -> Iterator[None]:
    """Lets warnings reach the standard error stream, as outside of pytest."""

    def show(message: Any, category: Any, path: str, line: int, file: Any = None, text: Any = None) -> None:
        sys.stderr.write(warnings.formatwarning(message, category, path, line, text))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield


def printed(*epochs: list[Finding], width: int = 80, monkeypatch: pytest.MonkeyPatch, keys: int = 0) -> str:
    """What a run of so many epochs puts on the terminal."""
    monkeypatch.setenv("COLUMNS", str(width))
    terminal = io.StringIO()
    monkeypatch.setattr("sys.stderr", terminal)
    log = FindingLog()
    with shown_warnings():
        for number, findings in enumerate(epochs):
            numbers = {f"k{index}": Numbers(0.5, 0.5) for index in range(keys)}
            numbers |= {one.key: Numbers(one.effect.logged, one.effect.reference) for one in findings if one.effect}
            log.end_epoch("validate", numbers, number, 10 * number)
            log.add(findings, say=True)
    log.end_run()
    return terminal.getvalue()


ONE_KEY_80 = """\
train.py:32: GuardWarning: LRG201 gathered-before-sync: 'val_recall' on 2 ranks
  holds the same 1024 rows on every rank, and torchmetrics combines them again.
                 logged   one device
  val_recall@1   0.1000       0.2000   1/2: the number of ranks
  Fix: Pass each rank's own rows, or build the metric with
       sync_on_compute=False.
  lightning-retrieval-guard explain LRG201
RetrievalGuard: 1 fault, 1 of 1 key wrong
"""
ONE_KEY_120 = """\
train.py:32: GuardWarning: LRG201 gathered-before-sync: 'val_recall' on 2 ranks holds the same 1024 rows on every rank,
  and torchmetrics combines them again.
                 logged   one device
  val_recall@1   0.1000       0.2000   1/2: the number of ranks
  Fix: Pass each rank's own rows, or build the metric with sync_on_compute=False.
  lightning-retrieval-guard explain LRG201
RetrievalGuard: 1 fault, 1 of 1 key wrong
"""
THREE_KEYS = """\
                 logged   one device
  val_recall@1   0.1000       0.2000   1/2: the number of ranks
  val_recall@2   0.2000       0.9000
  val_recall@3   0.3000       0.9000
"""
TWENTY_KEYS = """\
                 logged   one device
  val_recall@1   0.1000       0.2000   1/2: the number of ranks
  val_recall@2   0.2000       0.9000
  val_recall@3   0.3000       0.9000
  val_recall@4   0.4000       0.9000
  ... 16 more keys
"""


@pytest.mark.parametrize(("width", "text"), [(80, ONE_KEY_80), (120, ONE_KEY_120)])
def test_one_key(width: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(wrong(1), width=width, monkeypatch=monkeypatch) == text


@WIDTHS
@pytest.mark.parametrize(
    ("count", "table", "last"),
    [(3, THREE_KEYS, "1 fault, 3 of 5 keys wrong"), (20, TWENTY_KEYS, "1 fault, 20 of 22 keys wrong")],
)
def test_more_keys(width: int, count: int, table: str, last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ONE_KEY_80 if width == 80 else ONE_KEY_120
    key = "".join(THREE_KEYS.splitlines(keepends=True)[:2])
    expected = one.replace(key, table).replace("1 fault, 1 of 1 key wrong", last)
    text = printed(wrong(count), width=width, keys=2, monkeypatch=monkeypatch)
    assert text == expected
    assert len(text.splitlines()) <= 15


def test_three_faults_come_errors_first(monkeypatch: pytest.MonkeyPatch) -> None:
    warning = wrong(1, severity=Severity.WARNING, code="LRG102")
    note = wrong(1, severity=Severity.NOTE, code="LRG207")
    text = printed([*warning, *note, *wrong(2), *wrong(1, code="LRG301")], monkeypatch=monkeypatch)
    assert re.findall(r"GuardWarning: (LRG\d+)", text) == ["LRG201", "LRG301", "LRG102"]
    assert text.endswith("RetrievalGuard: 3 faults, 2 of 2 keys wrong, 1 note\n")


def test_a_clean_run_says_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed([], [], keys=22, monkeypatch=monkeypatch) == "RetrievalGuard: 22 keys watched, nothing found\n"


def test_a_fault_of_the_second_epoch_is_told_then_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = [replace(one, severity=Severity.NOTE) for one in wrong(1)]
    for first in ([], grown):
        text = printed(first, wrong(1), wrong(1), monkeypatch=monkeypatch)
        assert text == ONE_KEY_80
    assert printed(wrong(3), wrong(3), monkeypatch=monkeypatch).count("GuardWarning") == 1
    text = printed(wrong(1), wrong(2), wrong(2), monkeypatch=monkeypatch)
    assert text.count("GuardWarning") == 2
    assert text.count("val_recall@1") == text.count("val_recall@2") == 1


def test_corrected_numbers_are_not_called_logged() -> None:
    [fault] = group(wrong(2, corrected=True))
    assert "                 uncorrected   one device" in render_fault(fault, 80).splitlines()


def test_keys_without_numbers_are_named_where_there_are_several() -> None:
    alone, *others = [replace(one, effect=None) for one in wrong(3)]
    assert "val_recall@1" not in render_fault(*group([alone]), 80)
    shown = render_fault(*group([alone, *others]), 80).splitlines()
    assert shown[2:5] == ["  val_recall@1", "  val_recall@2", "  val_recall@3"]
    mixed = render_fault(*group([wrong(1)[0], others[0]]), 80).splitlines()
    assert mixed[4] == "  val_recall@2"


def test_an_error_has_the_location_before_each_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = render_error([*wrong(3), *wrong(1, code="LRG301", path="a\x1b.py")])
    heads = [line for line in text.splitlines() if not line.startswith(" ")]
    assert heads == [
        "train.py:32: LRG201 gathered-before-sync: 'val_recall' on 2 ranks holds the same",
        "a?.py:32: LRG301 gathered-before-sync: 'val_recall' on 2 ranks holds the same",
    ]


WORDS = st.text(min_size=1, max_size=60)


@given(st.lists(st.tuples(WORDS, st.floats(), st.floats()), min_size=1, max_size=7), st.sampled_from([40, 80, 120]))
def test_no_string_and_no_number_drives_or_widens_the_terminal(
    keys: list[tuple[str, float, float]], width: int
) -> None:
    base = replace(FINDING, message="word " * 30, fix="word " * 30)
    findings = [replace(base, key=key, effect=Effect(one, other)) for key, one, other in keys]
    lines = render_fault(*group(findings), width).split("\n")
    assert len(lines) <= 22
    assert all(0 <= wcswidth(line) <= max(width, 42) for line in lines)


def test_a_progress_bar_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("sys.stdout", terminal)
    with Tqdm(total=4, desc="Validation", file=terminal, mininterval=0) as bar:
        bar.update(2)
        with shown_warnings():
            FindingLog().add(wrong(1), say=True)
        shown = terminal.getvalue()
    # the bar is wiped before the first word, and drawn anew on a line of its own
    before, warning, after = shown.partition("train.py:32")
    assert warning
    assert re.search(r"\r +\r$", before)
    assert re.search(r"\n\r?Validation: +50%", after)
