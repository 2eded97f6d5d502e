"""The prose of every page is plain: short sentences, and none of the phrases that readers stumble over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .pages import name_of, page_paths, without_blocks

MOST_WORDS = 35
# What stands in their place: reports, is not, is disabled, depends on.
PHRASES = re.compile(
    r"\b(speaks?|spoke|spoken|tells? of|told of|heard of|(stands?|steps?|stepped|stepping) aside|a word more|"
    r"without a word|(?<!there )(is|are|was|were) no (?!longer\b|more than\b)\w+)\b",
    re.IGNORECASE,
)
_TABLE_OR_HEADING = re.compile(r"^[ \t]*(\||#|<!--|!\[).*$", re.MULTILINE)
_DIRECTIVE = re.compile(r"^:::.*?^:::[ \t]*$|^---\n.*?^---$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`]*`")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_LIST_ITEM = re.compile(r"\n[ \t]*(?:[-*]|\d+\.)[ \t]+")
_END = re.compile(r"(?<=[.!?])[\")*]*\s+")
PAGES = {name_of(path): path for path in page_paths()}


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page. Code counts as one word; tables, headings and blocks are left out."""
    text = _DIRECTIVE.sub("\n", without_blocks(text))
    prose = _LINK.sub(r"\1", _CODE.sub("code", _TABLE_OR_HEADING.sub("\n", text)))
    for paragraph in re.split(r"\n\s*\n", _LIST_ITEM.sub("\n\n", f"\n{prose}")):
        yield from filter(None, _END.split(" ".join(paragraph.split())))


def problems(text: str) -> list[str]:
    """Sentences that are too long, and phrases to avoid."""
    found = []
    for sentence in sentences(text):
        count = len(re.findall(r"[\w'-]+", sentence))
        if count > MOST_WORDS:
            found.append(f"{count} words: {sentence}")
        found += [f"{match[0]!r}: {sentence}" for match in PHRASES.finditer(sentence)]
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_plain(name: str) -> None:
    found = problems(Path(PAGES[name]).read_text(encoding="utf-8"))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "The rule speaks.\n",
        "A warning that tells of\nthe rank.\n",
        "- It is no metric.\n",
        "The guard steps aside.\n",
        "> A word more repairs it.\n",
        " ".join(["word"] * 36) + ".\n",
        "First. " + " ".join(["word"] * 36) + " end.\n",
    ],
)
def test_what_is_not_plain_is_found(text: str) -> None:
    assert len(problems(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        " ".join(["word"] * 35) + ".\n",
        "| " + "word " * 50 + "|\n",
        "```text\n" + "word " * 50 + "\nit speaks\n```\n",
        "`" + "word " * 50 + "`\n",
        "- " + "word " * 20 + "\n- " + "word " * 20 + "\n",
        "It is no longer there.\n",
    ],
)
def test_what_is_plain_passes(text: str) -> None:
    assert problems(text) == []
