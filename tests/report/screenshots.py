"""The pictures in docs/, light and dark: `python -m report.screenshots` in tests/ takes them anew."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from lightning_retrieval_guard.report.document import write_report

from .browser import Browser, find_browser
from .samples import LIKE_A_RUN, keep_source

FOLDER = Path(__file__).parents[2] / "docs"
WIDTH, HEIGHT = 840, 1130
PICTURES = {"report-light.png": False, "report-dark.png": True}


def take_pictures(browser: Browser, folder: Path) -> None:
    """Write the upper part of a report as it looks by day and by night."""
    keep_source()
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch, "report.html")
        write_report(page, LIKE_A_RUN)
        for name, dark in PICTURES.items():
            browser.open(page, width=WIDTH, dark=dark)
            (folder / name).write_bytes(browser.screenshot(HEIGHT))


def main() -> int:
    """Take the pictures."""
    program = find_browser()
    if program is None:
        print("error: no Chromium", file=sys.stderr)
        return 2
    browser = Browser(program)
    try:
        take_pictures(browser, FOLDER)
    finally:
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
