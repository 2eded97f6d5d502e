"""Rules explained on a terminal."""

import sys

import pytest

from lightning_retrieval_guard.cli import main
from lightning_retrieval_guard.lint.finding import STATIC
from lightning_retrieval_guard.rules import REGISTRY, Rule
from lightning_retrieval_guard.rules.documentation import (
    HEADINGS,
    UnknownRuleError,
    documentation,
    find_rule,
    first_sentence,
    reason,
    render_list,
    render_rule,
)
from tools.rule_pages import code_blocks

each_rule = pytest.mark.parametrize("rule", REGISTRY.values(), ids=REGISTRY)

EXPLAINED = """\
LRG102 constant-batch-size (warning)

What it flags

  An explicit `batch_size` that is the nominal size of the loader, while the
  batch at hand holds fewer samples.

Why it is wrong

  Lightning's epoch mean is the sum of value times `batch_size`, over the sum of
  `batch_size`. A short last batch then counts as much as a full one.

Example

    self.log("val_acc", acc, batch_size=64)
"""


def words(text: str) -> list[str]:
    return text.replace("## ", "").split()


@each_rule
@pytest.mark.parametrize("width", [60, 80, 100])
def test_every_word_of_the_documentation_is_there_in_order(rule: Rule, width: int) -> None:
    text = render_rule(rule, width)
    static = ", also by lint" if rule.code in STATIC else ""
    head = f"({rule.severity.value}{static})".split()
    assert words(text) == [*words(documentation(rule))[:2], *head, *words(documentation(rule))[2:]]
    code = {f"    {line}".rstrip() for block in code_blocks(documentation(rule)) for line in block.splitlines()}
    assert code <= set(text.splitlines())
    assert all(len(line) <= width for line in text.splitlines() if line not in code)


def test_a_rule_reads_like_this(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["explain", "LRG102"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(EXPLAINED)
    assert out.count("\n\n\n") == 0
    headings = [line for line in out.splitlines()[1:] if line and not line.startswith(" ")]
    assert tuple(headings) == HEADINGS


@pytest.mark.parametrize("name", ["LRG201", "lrg201", "gathered-before-sync", "GATHERED-before-sync", " LRG201 "])
def test_code_and_name_are_found_in_upper_and_lower_case(name: str) -> None:
    assert find_rule(name, REGISTRY) is REGISTRY["LRG201"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("LRG999", "LRG901 guard-disabled"),
        ("gathered-before-snyc", "LRG201 gathered-before-sync"),
        ("Floored", "LRG104 floored-batch-size"),
        ("IDS", "LRG301 restarting-query-ids"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones_and_2(
    name: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["explain", name])
    assert stopped.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert f"{name!r} is no code or name of a rule; near: " in error
    assert near in error


@pytest.mark.parametrize("name", ["zzz", ""])
def test_a_name_like_no_other_is_answered_with_where_all_are(name: str) -> None:
    with pytest.raises(UnknownRuleError, match="'explain' without an argument lists all"):
        find_rule(name, REGISTRY)


def test_no_more_than_a_few_are_near() -> None:
    with pytest.raises(UnknownRuleError) as raised:
        find_rule("lrg", REGISTRY)
    assert str(raised.value).count("LRG") == 5


def test_the_list_has_a_row_for_every_rule_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines if line.startswith("LRG")] == sorted(REGISTRY)


@pytest.mark.parametrize("width", [80, 100])
def test_the_columns_of_the_list_are_aligned(width: int) -> None:
    lines = render_list(REGISTRY, width).splitlines()
    start = len("LRG101  batch-size-times-world-size  warning  ")
    longest = max(len(rule.slug) for rule in REGISTRY.values())
    assert longest == len("batch-size-times-world-size"), "the row above is no longer the widest"
    assert max(map(len, lines)) <= width
    for line in lines:
        assert line[start - 2 : start] == "  "
        assert line[start] != " "
    row = next(line for line in lines if line.startswith("LRG207"))
    assert row[:start].split() == ["LRG207", "sync-in-step", "note"]


@pytest.mark.parametrize("width", [30, 50, 80, 100])
def test_the_list_tells_the_first_sentence_of_each(width: int) -> None:
    listing = " ".join(render_list(REGISTRY, width).split())
    for rule in REGISTRY.values():
        assert f"{rule.code} {rule.slug} {rule.severity.value} {first_sentence(rule)}" in listing


def test_a_narrow_terminal_gets_the_sentence_below() -> None:
    lines = render_list(REGISTRY, 50).splitlines()
    assert lines[0] == "LRG101  batch-size-times-world-size  warning"
    assert lines[1].startswith("    A `batch_size` that is the world size times")


@pytest.mark.parametrize("arguments", [["LRG201"], []], ids=["one", "all"])
def test_without_docstrings_it_says_so_and_ends_with_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with python -OO."""
    monkeypatch.setattr(sys.modules[type(REGISTRY["LRG201"]).__module__], "__doc__", None)
    assert main(["explain", *arguments]) == 2
    assert capsys.readouterr() == ("", "error: LRG201 has no documentation. Run Python without -OO.\n")


def test_the_reason_is_told_where_there_are_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = REGISTRY["LRG102"]
    assert (reason(rule) or "").startswith("Lightning's epoch mean")
    monkeypatch.setattr(sys.modules[type(rule).__module__], "__doc__", None)
    assert reason(rule) is None
