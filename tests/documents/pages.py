"""The Markdown pages of the project: their fenced blocks, their links and their prose."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(
    r"^[ \t]*(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<body>.*?)^[ \t]*(?P=fence)[ \t]*$", re.DOTALL | re.MULTILINE
)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: The page's path from the root of the repository.
        line: The line of the page on which the block's text begins.
        language: What stands behind the fence.
        text: What stands between the fences.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def file_name(self) -> str | None:
        """The name of the file that the block is, where its first line is a comment with one."""
        match = re.match(r"# ([\w/]+\.(?:py|toml|yaml))\n", self.text)
        return match[1] if match else None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def page_paths() -> list[Path]:
    """Every page, in order."""
    folders = [ROOT, ROOT / "bench", ROOT / "examples"]
    return sorted([*(ROOT / "docs").rglob("*.md"), *(path for folder in folders for path in folder.glob("*.md"))])


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("body")) + 1
        found.append(Block(name_of(path), line, match["language"].strip(), textwrap.dedent(match["body"])))
    return found


def without_blocks(text: str) -> str:
    return _FENCE.sub("\n", text)


def links(path: Path) -> Iterator[str]:
    """The targets of links in a page's prose."""
    text = re.sub(r"`[^`\n]*`", "", without_blocks(path.read_text(encoding="utf-8")))
    yield from _LINK.findall(text)


def anchors(path: Path) -> set[str]:
    """The names by which headings of a page are linked to, as GitHub and MyST make them."""
    headings = _HEADING.findall(without_blocks(path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
