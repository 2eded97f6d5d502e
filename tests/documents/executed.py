"""What of each page is run, and when: `python -m tests.documents.executed` writes the list in docs/reliability.md."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

from bench.marks import put

from .pages import ROOT, Block, blocks, name_of, page_paths
from .running import BY_FORM, commands_of, way_of

DOCUMENT = ROOT / "docs" / "reliability.md"
PAGES = {name_of(path): path for path in page_paths()}
# Tests of their own run what these show, in surroundings of their own.
ELSEWHERE = {"docs/parity.md": "tests/parity/test_page.py", "docs/lint.md": "tests/lint/test_documents.py"}
NOT_RUN = {
    "ARCHITECTURE.md": "a map of the code",
    "CHANGELOG.md": "a history",
    "bench/README.md": "half an hour of measurements",
}
RUN = ("python", "console", "shell", "yaml")
# A page with these starts processes, which takes a while. The README is run each time all the same.
STARTS_PROCESSES = ("python ", "pytest", " parity ")
_TOP = """\
| page | pieces | programs | commands | by form | YAML | run |
|---|---|---|---|---|---|---|"""


def snippets(name: str) -> list[Block]:
    return [block for block in blocks(PAGES[name]) if block.language in RUN]


def is_slow(name: str) -> bool:
    commands = " ".join(command for block in snippets(name) for command in commands_of(block))
    return name != "README.md" and any(word in commands for word in STARTS_PROCESSES)


def table() -> str:
    """The list, one row a page that shows something to run."""
    return "\n".join([_TOP, *(_row(name) for name in PAGES if snippets(name))])


def _row(name: str) -> str:
    ways = Counter(map(way_of, snippets(name)))
    commands = [bool(BY_FORM.match(command)) for block in snippets(name) for command in commands_of(block)]
    counts = (ways["python"], ways["program"] + ways["file"], commands.count(False), commands.count(True), ways["yaml"])
    return f"| {name} | {' | '.join(str(count or '') for count in counts)} | {_when(name)} |"


def _when(name: str) -> str:
    if name in NOT_RUN:
        return f"no: {NOT_RUN[name]}"
    return f"`{ELSEWHERE[name]}`" if name in ELSEWHERE else "nightly" if is_slow(name) else "each time"


def files_without_use(name: str) -> Iterator[str]:
    """The files of a page that no command names and no other piece of it imports."""
    for block in snippets(name):
        others = "".join(other.text for other in snippets(name) if other != block)
        if block.file_name and block.file_name.rpartition(".")[0] not in others:
            yield block.file_name


def main() -> int:
    """Write the list."""
    DOCUMENT.write_text(put(DOCUMENT.read_text(encoding="utf-8"), "snippets", table()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
