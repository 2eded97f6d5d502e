"""The rules' documentation as Markdown: one page a rule, and the index of all.

``python -m tools.rule_pages docs/rules`` writes the pages; ``--check`` only compares.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_retrieval_guard.rules import REGISTRY, Rule
from lightning_retrieval_guard.rules.documentation import CODE_BLOCK, first_sentence, sections

_ROOT = Path(__file__).parents[1]
INDEX = "index.md"
PROGRAM_HEADING = "## A whole program"
# What was printed about programs of the corpus; `python -m tests.programs.messages` writes it.
MESSAGES: Mapping[str, Mapping[str, Any]] = json.loads(
    (_ROOT / "docs" / "rules" / "messages.json").read_text(encoding="utf-8")
)
_LINT = "../lint.md"
_SITE_WIDTH = 88  # what the site shows of a line without scrolling

# What a reader has seen when a rule is the one to read about.
SYMPTOMS = {
    "LRG101": "The number changes when the last batch is short, on several devices.",
    "LRG102": "The number changes with the batch size, because the last batch counts too much.",
    "LRG103": "Lightning warns about an ambiguous batch, or the loss changes with how samples are batched.",
    "LRG104": "A loss is larger on several devices than on one.",
    "LRG201": "Recall@1 is divided by the number of devices.",
    "LRG202": "The number is multiplied by the number of devices.",
    "LRG203": "The logger shows one rank's part of the data.",
    "LRG204": "The run hangs in `compute()`, or the logger shows rank 0's part of the data.",
    "LRG205": "The run hangs or aborts where torchmetrics combines the ranks.",
    "LRG206": "Two keys have swapped their values, or the run hangs at the end of the epoch.",
    "LRG207": "The evaluation is slow on several devices.",
    "LRG301": "The number changes with the batch size, although nothing else has changed.",
    "LRG302": "The number changes with the batch size, and is often too high.",
    "LRG303": "MRR is low although the relevant documents rank first.",
    "LRG304": "The number changes when the data is shuffled.",
    "LRG305": "The number rises with the number of devices.",
    "LRG306": "The value of a function of torchmetrics changes with the batch size.",
    "LRG401": "The number lags behind, and never shows the best epoch.",
    "LRG402": "The number is an average over the epoch, not its last value.",
    "LRG403": "The number on several devices differs a little from that on one.",
    "LRG404": "The second dataloader's number contains the first one's data.",
    "LRG405": "A metric is on the wrong device, or its state is missing from the checkpoint.",
    "LRG406": "Two metrics of a collection show the same number, or one ignores a setting.",
    "LRG501": "Recall@5 is lower than Recall@1, or a value is above 1.",
    "LRG901": "A warning says that the guard is disabled.",
    "LRG902": "A note says that a comment ignores nothing.",
}

_INDEX_TOP = """\
# Rules

Look up a code here, or find the rule by what you have seen. Each page shows a mistake, why it is wrong, what to write
instead, and what correct mode does. A whole program that runs is at its end.

The severity in the table is the one for a finding that changes a number. A finding that changes no number is a note.
Codes are never used again. Their first digit is the group: 1 weights, 2 synchronisation, 3 ids and scores, 4 state and
samples, 5 values, 9 the guard itself.

A rule with a mark in the column `lint` is also found in source alone, by [the lint](../lint.md).

| code | rule | severity | lint | what it flags |
|---|---|---|---|---|
"""


# The site's side bar; a page in no table of contents is an error there.
_INDEX_END = """
```{toctree}
:hidden:
:glob:

LRG*
```
"""


def code_blocks(text: str) -> list[str]:
    """The indented blocks of a text, without their indentation."""
    return [textwrap.dedent(block).strip("\n") for block in CODE_BLOCK.findall(f"{text}\n")]


def page_name(rule: Rule) -> str:
    """The file name of a rule's page."""
    return f"{rule.code}-{rule.slug}.md"


def render_page(rule: Rule) -> str:
    """The page of a rule."""
    static = f" Also found in source, by [the lint]({_LINT})." if rule.spec.static else ""
    parts = [f"# {rule.code} {rule.slug}", f"What you see: {_uncapitalised(SYMPTOMS[rule.code])}"]
    parts += [f"Severity: {rule.severity.value}.{static} [All rules]({INDEX})"]
    for heading, body in sections(rule).items():
        parts += [f"## {heading}", _with_links(_fenced(body), rule)]
    parts += _whole_program(MESSAGES.get(rule.code))
    return "\n\n".join(parts) + "\n"


def _whole_program(message: Mapping[str, Any] | None) -> list[str]:
    """A program that sets the rule off, what is printed about it, and its right form."""
    if message is None:
        return []
    printed = "\n".join(
        textwrap.fill(line, _SITE_WIDTH, initial_indent=indent, subsequent_indent="  ", break_long_words=False)
        for line, indent in zip(message["printed"], ("", "  ", "  "), strict=False)
    )
    options = f"--mode {message['mode']} --devices {message['devices']}"
    parts = [
        PROGRAM_HEADING,
        f"This is {_link_to_program(message['program'])},\nwith data and models of `tests/programs`:",
        _text_of_program(message["program"]),
        "In a checkout of the repository:",
        f"```text\n$ python -m tests.programs.evaluate {message['program']} {options}\n...\n{printed}\n```",
    ]
    repair = (_ROOT / _file_of_program(message["program"])).with_suffix(".diff")
    if message["right"]:
        parts += [f"Its right form is {_link_to_program(message['right'])}:", _text_of_program(message["right"])]
    elif repair.is_file():
        parts += [
            "Its right form has these changes, and runs with `--repaired` in that command:",
            f"```diff\n{repair.read_text(encoding='utf-8')}```",
        ]
    return parts


def _link_to_program(name: str) -> str:
    return f"[{name.replace('.', '/')}](../../{_file_of_program(name)})"


def _text_of_program(name: str) -> str:
    return f"```python\n{(_ROOT / _file_of_program(name)).read_text(encoding='utf-8')}```"


def _file_of_program(name: str) -> str:
    return f"tests/programs/{name.replace('.', '/')}.py"


def _uncapitalised(text: str) -> str:
    first, blank, rest = text.partition(" ")
    return f"{first.lower() if first in ('A', 'The', 'Two') else first}{blank}{rest}"


def render_index(rules: Mapping[str, Rule]) -> str:
    """The table of all rules, in order of their codes."""
    return _INDEX_TOP + "".join(_row(rule) for _, rule in sorted(rules.items())) + _INDEX_END


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
