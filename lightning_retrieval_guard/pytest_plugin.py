"""A pytest plugin: the `parity` fixture. pytest loads it at its start, so it imports torch only where it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(scope="session")
def parity() -> Iterator[Callable[..., None]]:
    """`assert_same_on_any_world_size`, with processes that are kept until the session ends."""
    from lightning_retrieval_guard import testing

    yield testing.assert_same_on_any_world_size
    testing.end_processes()
