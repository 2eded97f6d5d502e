"""What all tests share: processes, and how many examples the tests with random data run."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from tests.distributed.harness import Pool, Pools

if TYPE_CHECKING:
    from tests.programs.runs import Runs

# A loaded machine makes an example slow, and says nothing about the package.
PHASES = [phase for phase in Phase if phase is not Phase.explain]  # which traces every line, and takes minutes
# HYPOTHESIS_PROFILE or --hypothesis-profile names a profile.
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=PHASES,
    derandomize=True,  # a check of a change shows what the change does; nightly looks for the new
)
settings.register_profile(
    "nightly", settings.get_profile("default"), max_examples=10_000, derandomize=False, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# Their tests start processes and take long; they come first, so that both workers end at about the same time.
LONG = ("launch", "faults", "parity", "distributed", "lifecycle", "programs", "demo", "fuzz")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that take long first."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


def pytest_collection_finish() -> None:
    """Spare the garbage collector, and the guard's search for metrics, what libraries and test modules hold."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def set_aside() -> None:
    """The same for what the tests of other files have kept; nothing is taken back, which would undo all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The machine's cores are for the processes: threads that wait for a busy one would take many times as long."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pools() -> Iterator[Pools]:
    """`pools[W]` is a pool of W processes, which all cases share."""
    started = Pools()
    yield started
    started.close()


@pytest.fixture(scope="session")
def pool(pools: Pools) -> Pool:
    """Two processes."""
    return pools[2]


@pytest.fixture(scope="session")
def runs(pools: Pools) -> Runs:
    """The programs of the corpus, each run once."""
    from tests.programs.runs import Runs  # with Lightning, which only some tests need

    return Runs(pools)
