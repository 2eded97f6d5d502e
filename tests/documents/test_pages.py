"""Every page: its snippets run, its links lead somewhere, and it says what the reader gets before anything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.marks import put

from .executed import DOCUMENT, ELSEWHERE, NOT_RUN, PAGES, RUN, files_without_use, is_slow, snippets, table
from .pages import ROOT, anchors, blocks, links
from .running import Page

# Fences around what nobody can run: output, changes to a program above them, and directives of the site.
NOT_PROGRAMS = ("text", "diff", "{eval-rst}", "{include}", "{toctree}")


def with_snippets() -> list[object]:
    names = [name for name in PAGES if name not in ELSEWHERE.keys() | NOT_RUN.keys() and snippets(name)]
    return [pytest.param(name, marks=[pytest.mark.nightly] if is_slow(name) else []) for name in names]


@pytest.mark.parametrize("name", with_snippets())
@pytest.mark.timeout(300)
def test_the_snippets_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    page = Page(PAGES[name], tmp_path)
    for block in snippets(name):
        page.run(block)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_that_can_be_run_is_left_out(name: str) -> None:
    assert {block.language.partition(" ")[0] for block in blocks(PAGES[name])} <= {*RUN, *NOT_PROGRAMS}
    assert not list(files_without_use(name))


def test_the_list_of_what_is_run_is_current() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    assert put(page, "snippets", table()) == page, "run python -m tests.documents.executed"


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
