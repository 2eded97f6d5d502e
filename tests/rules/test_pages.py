"""The rules' pages: made from the rules, current, and readable."""

import ast
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from lightning_retrieval_guard.lint.finding import STATIC
from lightning_retrieval_guard.rules import REGISTRY, Rule
from lightning_retrieval_guard.rules.documentation import documentation
from tools.rule_pages import (
    MESSAGES,
    PROGRAM_HEADING,
    SYMPTOMS,
    code_blocks,
    main,
    page_name,
    render_index,
    render_page,
    stale_pages,
)

FOLDER = Path(__file__).parents[2] / "docs" / "rules"
PROGRAMS = Path(__file__).parents[1] / "programs"
RIGHT = "right/functional_over_queries.py"
each_rule = pytest.mark.parametrize("rule", REGISTRY.values(), ids=REGISTRY)


def test_the_pages_are_current_and_none_is_without_a_rule() -> None:
    assert not list(stale_pages(FOLDER, REGISTRY)), "run python -m tools.rule_pages docs/rules"


@each_rule
def test_the_examples_are_python(rule: Rule) -> None:
    blocks = code_blocks(documentation(rule))
    assert len(blocks) >= 2
    for block in blocks:
        assert ast.parse(block).body, block


@each_rule
def test_all_code_of_the_documentation_is_in_fences(rule: Rule) -> None:
    page = render_page(rule).partition(PROGRAM_HEADING)[0]
    assert re.findall(r"```python\n(.*?)\n```", page, re.DOTALL) == code_blocks(documentation(rule))
    outside = re.sub(r"```python\n.*?\n```", "", page, flags=re.DOTALL)
    assert "\n    " not in outside
    assert "\n\n\n" not in page.rstrip("\n")


def test_every_page_begins_with_what_a_reader_has_seen() -> None:
    assert sorted(SYMPTOMS) == sorted(REGISTRY)


@each_rule
def test_a_page_is_read_in_a_minute(rule: Rule) -> None:
    assert len(render_page(rule).partition(PROGRAM_HEADING)[0].split()) <= 240


@each_rule
def test_links_lead_to_pages(rule: Rule) -> None:
    names = {"index.md", *map(page_name, REGISTRY.values())}
    links = set(re.findall(r"\]\(([^)]*)\)", render_page(rule)))
    programs = {link for link in links if link.startswith("../../tests/programs/")}
    assert all((FOLDER / link).is_file() for link in programs)
    assert links - programs - {"../lint.md"} <= names - {page_name(rule)}
    assert ("../lint.md" in links) == (rule.code in STATIC)


def test_a_page_has_the_title_the_severity_and_links_to_other_rules() -> None:
    page = render_page(REGISTRY["LRG102"])
    assert page.startswith(
        "# LRG102 constant-batch-size\n\nWhat you see: the number changes with the batch size,"
        " because the last batch counts too much.\n\n"
        "Severity: warning. [All rules](index.md)\n\n## What it flags\n\n"
    )
    assert "see [LRG104](LRG104-floored-batch-size.md)." in page


def test_a_page_ends_with_a_whole_program_what_is_printed_about_it_and_its_right_form() -> None:
    wrong, right = ((PROGRAMS / name).read_text(encoding="utf-8") for name in ("wrong/weight_nominal.py", RIGHT))
    program = render_page(REGISTRY["LRG102"]).partition(PROGRAM_HEADING)[2]
    assert f"```python\n{wrong}```\n\n" in program
    assert "$ python -m tests.programs.evaluate wrong.weight_nominal --mode warn --devices 2\n...\n" in program
    assert "\nweight_nominal.py:30: LRG102 constant-batch-size: " in program
    assert program.endswith(
        f"\n\nIts right form is [{RIGHT[:-3]}](../../tests/programs/{RIGHT}):\n\n```python\n{right}```\n"
    )


def test_every_whole_program_has_a_right_form_or_its_changes() -> None:
    ends = {code: render_page(REGISTRY[code]).partition(PROGRAM_HEADING)[2] for code in MESSAGES}
    assert len(ends) == sum(not code.startswith("LRG9") for code in REGISTRY)
    assert not [code for code, end in ends.items() if "\n\nIts right form " not in end]
    assert ends["LRG202"].endswith('  # lint: LRG202\n+        self.log("test_hit@1", self.hit)\n```\n')


def test_only_codes_of_other_known_rules_outside_of_code_are_links(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "LRG102 x\n\n## What it flags\nLRG102, LRG104, LRG999 and `LRG104`.\n\n    f()  # LRG104\n"
    monkeypatch.setattr(sys.modules[type(REGISTRY["LRG102"]).__module__], "__doc__", text)
    page = render_page(REGISTRY["LRG102"])
    assert "LRG102, [LRG104](LRG104-floored-batch-size.md), LRG999 and `LRG104`." in page
    assert "f()  # LRG104" in page


def test_the_index_has_a_row_for_every_rule_in_order() -> None:
    rows = [line for line in render_index(REGISTRY).splitlines() if line.startswith("| [LRG")]
    assert [row[3:9] for row in rows] == sorted(REGISTRY)
    assert (
        "| [LRG203](LRG203-never-synced.md) | never-synced | error | yes"
        " | An epoch value that differs between ranks because nothing combines it. |" in rows
    )


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("prose\n", []),
        ("    x = 1\n", ["x = 1"]),
        ("    x = 1", ["x = 1"]),
        ("    if x:\n        y\n\n    z\n\nprose\n\n    w\n", ["if x:\n    y\n\nz", "w"]),
    ],
)
def test_blocks_are_cut_at_prose(text: str, blocks: list[str]) -> None:
    assert code_blocks(text) == blocks


def test_check_names_missing_changed_and_foreign_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "rules")]) == 0
    assert main([str(tmp_path / "rules"), "--check"]) == 0
    assert capsys.readouterr().out == ""
    (tmp_path / "rules" / "index.md").write_text("changed", encoding="utf-8")
    (tmp_path / "rules" / "LRG104-floored-batch-size.md").unlink()
    (tmp_path / "rules" / "LRG999-nothing.md").touch()
    assert main([str(tmp_path / "rules"), "--check"]) == 1
    assert capsys.readouterr().out.split() == ["index.md", "LRG104-floored-batch-size.md", "LRG999-nothing.md"]
    assert (tmp_path / "rules" / "index.md").read_text(encoding="utf-8") == "changed"


def test_it_is_found_as_a_module() -> None:
    # the package's attribute of this name is the registry, which must not hide the module from python -m
    assert find_spec("tools.rule_pages") is not None
