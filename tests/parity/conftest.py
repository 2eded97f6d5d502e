"""Processes for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lightning_retrieval_guard.parity.check import Processes


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    with Processes() as processes:
        yield processes
