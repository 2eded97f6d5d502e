"""Comments and blocks that keep rules quiet: where they hold, and which of them were of no use."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from textwrap import dedent

import pytest

from lightning_retrieval_guard.watch.call_site import CallSite
from lightning_retrieval_guard.watch.suppressions import Suppressions, all_silence, patterns_of

CODES = ("LRG101", "LRG203", "LRG301", "LRG901")
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(source: str) -> str:
        path = tmp_path / "module.py"
        path.write_text(dedent(source).lstrip("\n"), encoding="utf-8")
        return str(path)

    return written


def silenced_at(path: str, line: int) -> tuple[str, ...]:
    return patterns_of(Suppressions(CODES).at(CallSite(path, line)))


@pytest.mark.parametrize(
    ("comment", "patterns"),
    [
        ("# lrg: ignore[LRG203]", ("LRG203",)),
        ("#lrg:ignore[LRG203]", ("LRG203",)),
        ("# lrg: ignore [LRG203]", ("LRG203",)),
        ("# lrg: ignore[LRG203, LRG1]", ("LRG1", "LRG203")),
        ("# lrg: ignore[LRG203,]", ("LRG203",)),
        ("# lrg: ignore", ("LRG",)),
        ("# lrg: ignore because each rank has its own", ("LRG",)),
        ("# type: ignore  # lrg: ignore[LRG203]", ("LRG203",)),
        ("# lrg: ignore[LRG203  (the bracket is missing)", ("LRG203  (the bracket is missing)",)),
        ("# lrg: ignore[]", ("[]",)),
        ("# lrg: ignored", ()),
        ("# lrg: ignore-all", ()),
        ("# lrg ignore", ()),
    ],
)
def test_what_a_comment_says(write: Write, comment: str, patterns: tuple[str, ...]) -> None:
    assert silenced_at(write(f"self.log('loss', loss)  {comment}\n"), 1) == patterns


SEVERAL_LINES = """
self.log(
    "loss",  # lrg: ignore[LRG101]
    sum(
        [1, 2],
    ),
)  # lrg: ignore[LRG203]
self.log("other", 1)
# lrg: ignore[LRG301]
"""


def test_any_line_of_the_call_will_do(write: Write) -> None:
    path = write(SEVERAL_LINES)
    assert silenced_at(path, 1) == silenced_at(path, 4) == ("LRG101", "LRG203")
    assert silenced_at(path, 7) == ()


def test_two_calls_on_one_line_share_the_comment(write: Write) -> None:
    assert silenced_at(write("self.log('a', 1); self.log('b', 2)  # lrg: ignore[LRG203]\n"), 1) == ("LRG203",)


def test_a_call_inside_another_has_only_its_own_lines(write: Write) -> None:
    path = write(
        """
        run(
            metric.update(rows),
            2,  # lrg: ignore[LRG203]
        )
        """
    )
    assert silenced_at(path, 2) == ()


def test_the_text_inside_a_string_is_no_comment(write: Write) -> None:
    assert silenced_at(write("self.log('# lrg: ignore[LRG203]', 1)\n"), 1) == ()
    assert silenced_at(write('"""\n# lrg: ignore\n"""\n'), 2) == ()


@pytest.mark.parametrize("source", ["self.log(  # lrg: ignore\n", "%magic\n 'x  # lrg: ignore\n"])
def test_a_file_that_is_no_python_has_no_comments(write: Write, source: str) -> None:
    assert silenced_at(write(source), 1) == ()
    assert silenced_at("no such file", 1) == ()


# --- blocks -----------------------------------------------------------------------------------------------------


def test_blocks_nest_and_end_under_exceptions() -> None:
    suppressions, other = Suppressions(CODES), Suppressions(CODES)
    here = CallSite("nowhere.py", 1)
    with suppressions.block(["LRG203"]):
        with contextlib.suppress(KeyError), suppressions.block(["LRG1", "LRG3"]):
            assert patterns_of(suppressions.at(here)) == ("LRG1", "LRG203", "LRG3")
            assert other.at(here) == ()
            raise KeyError
        assert patterns_of(suppressions.at(here)) == ("LRG203",)
    assert suppressions.at(here) == ()


def test_a_block_may_be_entered_again_also_within_itself() -> None:
    suppressions, here = Suppressions(CODES), CallSite("nowhere.py", 1)
    block = suppressions.block(["LRG203"])
    for _ in range(2):
        with block:
            with block:
                pass
            assert patterns_of(suppressions.at(here)) == ("LRG203",)
        assert suppressions.at(here) == ()


def test_what_does_not_hold_for_every_call_does_not_hold_for_the_key(write: Write) -> None:
    suppressions, site = Suppressions(CODES), CallSite(write("self.log('a', 1)  # lrg: ignore[LRG101]\n"), 1)
    block = suppressions.block(["LRG203"])
    with block:
        first = suppressions.at(site)
        assert patterns_of(suppressions.still(first)) == ("LRG101", "LRG203")
    assert patterns_of(suppressions.still(first)) == ("LRG101",)


@pytest.mark.parametrize(
    ("codes", "error", "words"),
    [
        ([], ValueError, "ignore() needs rule codes or prefixes, such as 'LRG101'; 'LRG' means all."),
        (
            ["LRG203", "LRG999"],
            ValueError,
            "ignore() holds 'LRG999', which no rule code starts with. Known codes: LRG101, LRG203, LRG301, LRG901.",
        ),
        ([203], TypeError, "ignore()=[203] must be a sequence of rule codes"),
        (["LRG901"], ValueError, "LRG9xx is about the guard itself. Pass that to RetrievalGuard(ignore=[...])."),
    ],
)
def test_other_codes_are_refused(codes: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        Suppressions(CODES).block(codes)


@pytest.mark.parametrize(
    ("patterns_of_ranks", "silent"),
    [
        ([("LRG203",), ("LRG2", "LRG301")], True),
        ([("LRG203",), ()], False),
        ([("LRG203",), ("LRG201",)], False),
        ([("LRG",)], True),
        ([], False),
    ],
)
def test_every_rank_must_silence_it(patterns_of_ranks: list[tuple[str, ...]], silent: bool) -> None:
    assert all_silence(patterns_of_ranks, "LRG203") == silent


# --- what was of no use -----------------------------------------------------------------------------------------

MODULE = """
# lrg: ignore[LRG101]
def step(self):
    # lrg: ignore[LRG203]
    self.log("a", 1)  # lrg: ignore[LRG203, LRG999]
    if False:
        self.log("b", 1)  # lrg: ignore[LRG101]

def other(self):
    # lrg: ignore[LRG301]
    self.log("c", 1)
    self.log("d", 1)  # lrg: ignore[LRG301]
"""


def unused(suppressions: Suppressions) -> dict[int, list[str]]:
    return {suppression.line: patterns for suppression, patterns in suppressions.unused()}


def test_comments_that_silenced_nothing(write: Write) -> None:
    suppressions = Suppressions(CODES)
    at_call = suppressions.at(CallSite(write(MODULE), 4))
    assert unused(suppressions) == {1: ["LRG101"], 3: ["LRG203"], 4: ["LRG203", "LRG999"]}
    suppressions.use(at_call, "LRG203")
    assert unused(suppressions) == {1: ["LRG101"], 3: ["LRG203"], 4: ["LRG999"]}


def test_a_file_without_log_calls_of_the_run_is_not_judged(write: Write) -> None:
    suppressions = Suppressions(CODES)
    write(MODULE)
    assert unused(suppressions) == {}


def test_blocks_that_silenced_nothing() -> None:
    suppressions, here = Suppressions(CODES), CallSite("nowhere.py", 1)
    suppressions.block(["LRG101"])  # never entered
    with suppressions.block(["LRG203", "LRG3"]):
        suppressions.use(suppressions.at(here), "LRG301")
    [(suppression, idle)] = suppressions.unused()
    assert (suppression.text, idle) == ("ignore(LRG203, LRG3)", ["LRG203"])
    assert suppression.path == __file__


def test_the_next_run_starts_afresh_but_what_was_of_use_stays_known(write: Write) -> None:
    suppressions, site = Suppressions(CODES), CallSite(write("self.log('a', 1)  # lrg: ignore[LRG101, LRG203]\n"), 1)
    open_block = suppressions.block(["LRG3"])
    with open_block:
        suppressions.use(suppressions.at(site), "LRG101")
        suppressions.start_over()
        assert [suppression.text for suppression, _ in suppressions.unused()] == ["ignore(LRG3)"]
        suppressions.at(site)
    assert [idle for _, idle in suppressions.unused()] == [["LRG3"], ["LRG203"]]
    suppressions.start_over()
    assert unused(suppressions) == {}


def test_a_copy_goes_its_own_way() -> None:
    suppressions, here = Suppressions(CODES), CallSite("nowhere.py", 1)
    other = deepcopy(suppressions)
    with suppressions.block(["LRG203"]):
        assert other.at(here) == ()
