"""What ranks tell each other in a real store, a thread for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from torch.distributed import TCPStore

from lightning_retrieval_guard.distributed.store import RankStore, waiting_alone

pytestmark = pytest.mark.timeout(60)

LONG = timedelta(seconds=40)
SOON = 10.0


def stores(count: int) -> list[TCPStore]:
    """A store, and connections to it."""
    first = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return [first, *(TCPStore("127.0.0.1", first.port, is_master=False) for _ in range(count - 1))]


def on_stores(connections: Sequence[TCPStore], body: Callable[[int, RankStore], Any]) -> list[Any]:
    """What `body(rank, store)` returns on each rank, or the error that it raises."""

    def run(rank: int) -> Any:
        try:
            return body(rank, RankStore(connections[rank], "guard", rank, len(connections)))
        except RuntimeError as error:
            return error

    with ThreadPoolExecutor(len(connections)) as threads:
        return list(threads.map(run, range(len(connections))))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_hear_who_said_yes(world_size: int) -> None:
    def body(rank: int, store: RankStore) -> Any:
        return [store.agree(answer, LONG) for answer in (False, rank == 1, False, rank != 1)]

    nobody, one = [False] * world_size, [rank == 1 for rank in range(world_size)]
    others = [not answer for answer in one]
    assert on_stores(stores(world_size), body) == [[nobody, one, nobody, others]] * world_size


def test_where_nobody_says_yes_nothing_more_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(RankStore, "statuses")
    assert on_stores(stores(2), lambda _, store: store.agree(False, LONG)) == [[False, False]] * 2


def test_nobody_goes_on_before_all_have_come() -> None:
    came: list[int] = []

    def body(rank: int, store: RankStore) -> list[int]:
        time.sleep(0.3 * rank)
        came.append(rank)
        store.agree(False, LONG)
        return list(came)

    assert on_stores(stores(3), body) == [[0, 1, 2]] * 3


def test_who_waits_for_a_rank_that_left_hears_of_it_at_once() -> None:
    def body(rank: int, store: RankStore) -> Any:
        store.agree(False, LONG)
        if rank == 1:
            time.sleep(0.3)
            store.leave("out of memory", failed=True)
            return None
        return store.agree(False, LONG)

    start = time.monotonic()
    connections = stores(3)
    results = on_stores(connections, body)
    assert time.monotonic() - start < SOON
    assert [str(results[0]), results[1], str(results[2])] == ["a rank has left", None, "a rank has left"]
    state = RankStore(connections[0], "guard", 0, 3).statuses()[1]
    assert (state.left, state.failed) == ("out of memory", True)


def test_who_waits_for_all_at_the_start_hears_of_a_rank_that_left() -> None:
    def body(rank: int, store: RankStore) -> Any:
        if rank == 1:
            return store.leave("not ready", failed=True)
        store.wait_for_all("1", LONG)
        return store.statuses()[1].left

    start = time.monotonic()
    assert on_stores(stores(2), body) == ["not ready", None]
    assert time.monotonic() - start < SOON


def test_all_wait_at_the_start_until_each_has_told_of_itself() -> None:
    came: list[int] = []

    def body(rank: int, store: RankStore) -> Any:
        time.sleep(0.3 * rank)
        came.append(rank)
        store.wait_for_all("1", LONG)
        return list(came), sorted(store.statuses())

    assert on_stores(stores(3), body) == [([0, 1, 2], [0, 1, 2])] * 3


def test_a_rank_that_does_not_come_is_waited_for_no_longer_than_told() -> None:
    def body(rank: int, store: RankStore) -> Any:
        return store.agree(False, timedelta(seconds=0.2)) if rank == 0 else None

    assert isinstance(on_stores(stores(2), body)[0], RuntimeError)


def keys_after(body: Callable[[int, RankStore], Any]) -> int:
    """How many keys the store of two ranks has when both have done this."""
    connections = stores(2)
    assert on_stores(connections, body) == [None, None]
    return int(connections[0].num_keys())


def test_the_store_does_not_grow() -> None:
    def agreements(count: int, rank: int, store: RankStore) -> None:
        store.write()
        for number in range(count):
            store.agree(number % 3 == rank, LONG)

    assert keys_after(partial(agreements, 3)) == keys_after(partial(agreements, 50))


def test_ranks_start_together() -> None:
    came: list[int] = []

    def body(rank: int, store: RankStore) -> Any:
        store.come(1)
        time.sleep(0.2 * rank)
        came.append(rank)
        started = [store.start("compute", LONG, waits=True)]
        seen = list(came)
        started.append(store.start("compute", LONG, waits=True))
        store.come(2)
        return started, seen

    assert on_stores(stores(3), body) == [([True, True], [0, 1, 2])] * 3


@pytest.mark.parametrize("waits_first", [True, False])
@pytest.mark.parametrize("leaves", [True, False])
def test_who_starts_alone_hears_of_it_at_once(waits_first: bool, leaves: bool) -> None:
    """After a start together, too, and in a later meeting again."""

    def body(rank: int, store: RankStore) -> Any:
        results = []
        for meeting in (1, 2):
            store.come(meeting)
            store.agree(False, LONG)
            results.append(store.start("compute", LONG, waits=True))
            if (rank == 1) == waits_first:
                time.sleep(0.3)
            if rank == 0 and (meeting == 2 or not leaves):
                results.append(store.start("compute", LONG, waits=True))
        if rank == 1 and leaves:
            store.leave("out of memory", failed=False)
        elif rank == 1:
            store.come(3)
        return results

    start = time.monotonic()
    alone, other = on_stores(stores(2), body)
    assert time.monotonic() - start < SOON
    assert alone == ([True, True, False] if leaves else [True, False, True, False])
    assert other == [True, True]


def test_the_store_keeps_nothing_of_meetings_that_are_over() -> None:
    def meetings(count: int, rank: int, store: RankStore) -> None:
        for meeting in range(1, count + 1):
            store.come(meeting)
            store.agree(False, LONG)
            store.start("compute", LONG, waits=True)
            store.agree(False, LONG)

    assert keys_after(partial(meetings, 4)) == keys_after(partial(meetings, 40))


def test_who_does_not_wait_for_a_start_is_heard_of_by_whoever_comes_to_a_meeting_instead() -> None:
    def body(rank: int, store: RankStore) -> Any:
        store.come(1)
        store.agree(False, LONG)
        if rank == 0:
            results = store.start("compute", LONG, waits=False)
            store.agree(False, LONG)
            return results
        store.agree(False, LONG)
        return store.come(2), waiting_alone(store.statuses())

    assert on_stores(stores(2), body) == [True, (True, {0: "compute"})]


def test_who_starts_what_others_have_gone_past_hears_of_it_without_a_wait() -> None:
    def body(rank: int, store: RankStore) -> Any:
        store.come(1)
        results = store.come(2) if rank == 1 else None
        store.agree(False, LONG)
        return results if rank == 1 else (store.start("compute", LONG, waits=False), waiting_alone(store.statuses()))

    assert on_stores(stores(2), body) == [(False, {0: "compute"}), False]


class Asked:
    """A store that a rank reaches late, and that notes who asks."""

    def __init__(self, store: Any, rank: int, asked: list[int]) -> None:
        self._store = store
        self._rank = rank
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            time.sleep(0.1 * self._rank)
            self._asked.append(self._rank)
            return getattr(self._store, name)(*arguments)

        return call


@pytest.mark.parametrize("world_size", [2, 3])
def test_rank_zero_goes_on_last(world_size: int) -> None:
    """When no other rank needs the store any more: it is in the process of rank zero, and may go."""
    asked: list[int] = []

    def body(rank: int, store: RankStore) -> int:
        late = RankStore(Asked(connections[rank], rank, asked), "guard", rank, world_size)
        late.agree(rank == 1, LONG)
        return len(asked)

    connections = stores(world_size)
    first, *_ = on_stores(connections, body)
    assert len(asked) == first
