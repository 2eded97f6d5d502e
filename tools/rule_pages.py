"""The rules' documentation as Markdown: one page a rule, and the index of all.

``python -m tools.rule_pages docs/rules`` writes the pages; ``--check`` only compares.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning_retrieval_guard.rules import REGISTRY, Rule
from lightning_retrieval_guard.rules.documentation import CODE_BLOCK, code_blocks, first_sentence, sections

INDEX = "index.md"
_LINT = "../lint.md"

_INDEX_TOP = """\
# Rules

The severity is the one before the effect is measured: a finding that changes no number is a note. Codes are never
reused; their first digit is the group: 1 weights, 2 synchronisation, 3 ids and scores, 4 state and samples, 5 values,
9 the guard itself.

A rule with a mark in the column `lint` is also found in source alone, by [the lint](../lint.md).

| code | rule | severity | lint | what it flags |
|---|---|---|---|---|
"""


def page_name(rule: Rule) -> str:
    """The file name of a rule's page."""
    return f"{rule.code}-{rule.slug}.md"


def render_page(rule: Rule) -> str:
    """The page of a rule."""
    static = f" Also found in source, by [the lint]({_LINT})." if rule.spec.static else ""
    parts = [f"# {rule.code} {rule.slug}", f"Severity: {rule.severity.value}.{static} [All rules]({INDEX})"]
    for heading, body in sections(rule).items():
        parts += [f"## {heading}", _with_links(_fenced(body), rule)]
    return "\n\n".join(parts) + "\n"


def render_index(rules: Mapping[str, Rule]) -> str:
    """The table of all rules, in order of their codes."""
    return _INDEX_TOP + "".join(_row(rule) for _, rule in sorted(rules.items()))


def render_all(rules: Mapping[str, Rule]) -> dict[str, str]:
    """Every page by its file name, and the index."""
    pages = {page_name(rule): render_page(rule) for rule in rules.values()}
    return {INDEX: render_index(rules), **pages}


def _row(rule: Rule) -> str:
    cell = first_sentence(rule).replace("|", r"\|")
    static = "yes" if rule.spec.static else ""
    return f"| [{rule.code}]({page_name(rule)}) | {rule.slug} | {rule.severity.value} | {static} | {cell} |\n"


def _fenced(text: str) -> str:
    fenced = CODE_BLOCK.sub(lambda block: f"```python\n{code_blocks(block[0])[0]}\n```\n", f"{text}\n")
    return fenced.strip("\n")


def _with_links(text: str, rule: Rule) -> str:
    """The text with a link at each code of another rule, outside of code."""
    pieces = re.split(r"(```.*?```|`[^`]*`)", text, flags=re.DOTALL)
    pieces[::2] = [re.sub(r"\bLRG\d{3}\b", lambda code: _link(code[0], rule), piece) for piece in pieces[::2]]
    return "".join(pieces)


def _link(code: str, rule: Rule) -> str:
    return code if code == rule.code or code not in REGISTRY else f"[{code}]({page_name(REGISTRY[code])})"


def stale_pages(folder: Path, rules: Mapping[str, Rule]) -> Iterator[str]:
    """The names of the pages in ``folder`` that are missing, not current, or of no rule."""
    pages = render_all(rules)
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            yield name
    yield from sorted(path.name for path in folder.glob("*.md") if path.name not in pages)


def write_pages(folder: Path, rules: Mapping[str, Rule]) -> None:
    """Write every page. A page of no rule is left alone; ``stale_pages`` names it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render_all(rules).items():
        (folder / name).write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages, or with ``--check`` name those that are not current.

    Args:
        argv: The arguments after the program's name; by default those of this process.

    Returns:
        The exit code: 1 when ``--check`` found something.
    """
    parser = ArgumentParser(prog="python -m tools.rule_pages", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where the pages are")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 with the names of stale pages")
    options = parser.parse_args(argv)
    if not options.check:
        write_pages(options.folder, REGISTRY)
        return 0
    stale = list(stale_pages(options.folder, REGISTRY))
    print("\n".join(stale), end="\n" if stale else "")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
