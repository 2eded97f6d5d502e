"""The tests of the page never pass where there is no browser."""

import pytest

from .browser import find_browser
from .conftest import need_browser


@pytest.fixture(autouse=True)
def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)


def test_without_a_browser_tests_are_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        need_browser()


def test_in_ci_they_fail_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        need_browser()


def test_the_program_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_browser() is None
    monkeypatch.setenv("CHROMIUM", "/opt/chrome")
    assert find_browser() == "/opt/chrome"
