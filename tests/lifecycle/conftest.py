"""Two processes for the whole run, and one thread for this one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from distributed.harness import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """Two processes that many cases share."""
    pool = Pool(2)
    yield pool
    pool.close()


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """The machine's cores are for the processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
