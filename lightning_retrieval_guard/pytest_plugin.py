"""A pytest plugin: the `parity` and `retrieval_guard` fixtures.

pytest loads it at its start, so it imports torch only where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lightning_retrieval_guard.callback import RetrievalGuard


@pytest.fixture(scope="session")
def parity() -> Iterator[Callable[..., None]]:
    """`assert_same_on_any_world_size`, with processes that are kept until the session ends."""
    from lightning_retrieval_guard import testing

    yield testing.assert_same_on_any_world_size
    testing.end_processes()


@pytest.fixture
def retrieval_guard() -> RetrievalGuard:
    """A guard for the trainers of a test, which fails if it finds a warning or an error."""
    from lightning_retrieval_guard import RetrievalGuard

    return RetrievalGuard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail the test itself, not its teardown, on what its guard found."""
    __tracebackhide__ = True
    result = yield
    guard: RetrievalGuard | None = getattr(item, "funcargs", {}).get("retrieval_guard")
    if guard is not None:
        guard.raise_for_findings()
    return result
