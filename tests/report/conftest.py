"""One Chromium for all tests of the page."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .browser import Browser, find_browser


def need_browser() -> str:
    """The program; without one the test is skipped, and fails where CI=true, so that nothing passes unseen."""
    program = find_browser()
    if program is None:
        reason = "no Chromium: install it (Debian: apt-get install chromium), or name the program in CHROMIUM"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return program


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    browser = Browser(need_browser())
    yield browser
    browser.close()
