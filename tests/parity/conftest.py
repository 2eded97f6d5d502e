"""Processes for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from lightning_retrieval_guard.parity.check import Processes
from lightning_retrieval_guard.parity.pool import Pool
from tests.distributed import harness


class Spared(Processes):
    """The search for metrics is spared the objects of libraries, which takes most of a short run."""

    def __missing__(self, world_size: int) -> Pool:
        pool = super().__missing__(world_size)
        pool.run(f"{harness.__name__}:{harness.set_libraries_aside.__name__}", timeout=60.0)
        return pool


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    with closing(Spared()) as processes:
        yield processes
