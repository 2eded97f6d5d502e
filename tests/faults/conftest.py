"""Processes of their own: a guard that is made to fail may leave something in them that other tests look for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.distributed.harness import Pools


@pytest.fixture(scope="package")
def pools() -> Iterator[Pools]:
    """`pools[W]` is a pool of W processes."""
    started = Pools()
    yield started
    started.close()
