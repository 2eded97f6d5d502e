"""One pool of processes per world size, for the whole test run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import pytest

from .harness import Pool


class Pools(defaultdict[int, Pool]):
    """Pools by world size, started when first asked for."""

    def __missing__(self, world_size: int) -> Pool:
        self[world_size] = Pool(world_size)
        return self[world_size]


@pytest.fixture(scope="session")
def pools() -> Iterator[Mapping[int, Pool]]:
    """`pools[W]` is a running pool of W processes."""
    started = Pools()
    yield started
    for pool in started.values():
        pool.close()
