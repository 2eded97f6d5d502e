"""The marker of the demo's long test."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker, so that it may be selected and is no spelling mistake."""
    config.addinivalue_line("markers", "slow: takes a minute or more")
