"""Every page: its snippets run, its links lead somewhere, and it says what the reader gets before anything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .pages import ROOT, Block, anchors, blocks, links, name_of, page_paths
from .running import Page

PAGES = {name_of(path): path for path in page_paths()}
# Tests of their own run what these show, in surroundings of their own.
ELSEWHERE = {"docs/parity.md": "tests/parity/test_page.py", "docs/lint.md": "tests/lint/test_documents.py"}
# Not programs: a map of the code, a history, and half an hour of measurements.
NOT_RUN = {"ARCHITECTURE.md", "CHANGELOG.md", "bench/README.md"}
RUN = ("python", "console", "shell", "yaml")
# A page with these starts processes, which takes a while. The README is run each time all the same.
STARTS_PROCESSES = ("python ", "pytest", " parity ")


def snippets(name: str) -> list[Block]:
    return [block for block in blocks(PAGES[name]) if block.language in RUN]


def with_snippets() -> list[object]:
    names = [name for name in PAGES if name not in ELSEWHERE.keys() | NOT_RUN and snippets(name)]
    return [pytest.param(name, marks=[pytest.mark.nightly] if is_slow(name) else []) for name in names]


def is_slow(name: str) -> bool:
    programs = "".join(block.text for block in snippets(name) if block.language in ("console", "shell"))
    return name != "README.md" and any(word in programs for word in STARTS_PROCESSES)


@pytest.mark.parametrize("name", with_snippets())
@pytest.mark.timeout(300)
def test_the_snippets_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    page = Page(PAGES[name], tmp_path)
    for block in snippets(name):
        page.run(block)


def test_what_is_run_elsewhere_is_run_there() -> None:
    for name, test in ELSEWHERE.items():
        assert f'"{Path(name).name}"' in (ROOT / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_the_links_lead_somewhere(name: str) -> None:
    for link in links(PAGES[name]):
        target, _, anchor = link.partition("#")
        if target.startswith(("https:", "http:", "mailto:")):
            continue
        file = Path(os.path.normpath(PAGES[name].parent / target)) if target else PAGES[name]
        assert file.exists(), f"{name}: {link}"
        assert file.is_relative_to(ROOT), f"{name}: {link}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{name}: {link}"


def test_the_start_page_shows_what_the_readme_shows() -> None:
    [shown] = [block.text for block in blocks(PAGES["docs/index.md"]) if block.language == "text"]
    [printed] = [block.text for block in blocks(PAGES["README.md"]) if block.language == "console"]
    assert shown in printed
