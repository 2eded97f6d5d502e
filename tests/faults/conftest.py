"""Processes that the cases share, as long as they live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from distributed.conftest import Pools
from distributed.harness import Pool


@pytest.fixture(scope="package")
def pools() -> Iterator[Mapping[int, Pool]]:
    """`pools[W]` is a pool of W processes."""
    started = Pools()
    yield started
    for pool in started.values():
        pool.close()
