"""The exchange itself, between simulated ranks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch

from lightning_retrieval_guard.distributed import exchange as exchange_module
from lightning_retrieval_guard.distributed.exchange import (
    Exchange,
    ExchangeError,
    RanksFailedError,
    WorldSizeError,
    make_exchange,
)
from tests.fuzz.ranks import Ranks

TIMEOUT = timedelta(seconds=7)


def on_ranks(world_size: int, body: Callable[[Exchange], Any]) -> tuple[Ranks, list[Any]]:
    """What `body(exchange)` returns on each rank, an error of the exchange in its place where it raises one."""
    ranks = Ranks(world_size)

    def run(rank: int) -> Any:
        exchange = make_exchange(world_size)
        try:
            exchange.join(TIMEOUT)
            return body(exchange)
        except (ExchangeError, RanksFailedError) as error:
            return error
        finally:
            exchange.close()

    return ranks, ranks.run(run)


def test_one_process_gets_back_what_it_gives() -> None:
    exchange = make_exchange(1)
    block = torch.ones(3, dtype=torch.uint8)
    assert (exchange.rank, exchange.world_size, exchange.ranks_of(None)) == (0, 1, [0])
    assert exchange.meet("here", {"a": 1}) == [{"a": 1}]
    assert exchange.gather_blocks(block, [3])[0] is block
    assert [exchange.agree(answer) for answer in (True, False)] == [[True], [False]]


def test_one_process_joins_unless_something_is_wrong() -> None:
    exchange = make_exchange(1)
    exchange.join(TIMEOUT)
    with pytest.raises(RanksFailedError, match="out of order") as caught:
        exchange.join(TIMEOUT, "out of order")
    assert caught.value.ranks == [0]


def test_another_number_of_ranks_is_refused() -> None:
    with pytest.raises(WorldSizeError, match=r"works on 2 ranks, but torch\.distributed connects 1"):
        make_exchange(2)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_messages_come_in_order_of_rank(world_size: int) -> None:
    ranks, results = on_ranks(world_size, lambda exchange: exchange.meet("here", {"rank": exchange.rank}))
    assert results == [[{"rank": rank} for rank in range(world_size)]] * world_size
    assert ranks.collectives == ["new_group", "all_gather"]


def test_each_rank_knows_its_number_and_all_ranks() -> None:
    _, results = on_ranks(3, lambda exchange: (exchange.rank, exchange.ranks_of(None)))
    assert results == [(rank, [0, 1, 2]) for rank in range(3)]


@pytest.mark.parametrize(("size", "collectives"), [(8000, 1), (9500, 2), (20_000, 2)])
def test_a_long_message_takes_a_second_collective_once(size: int, collectives: int) -> None:
    """The text is random, so that nothing can be pressed out of it."""
    text = "".join(chr(33 + int(one)) for one in torch.randint(0, 90, (size,), generator=torch.manual_seed(0)))

    def body(exchange: Exchange) -> list[Any]:
        return [exchange.meet("here", {"text": text[exchange.rank :]}) for _ in range(2)]

    ranks, results = on_ranks(2, body)
    assert results == [[[{"text": text}, {"text": text[1:]}]] * 2] * 2
    assert ranks.collectives == ["new_group", *["all_gather"] * (collectives + 1)]


def test_blocks_of_unequal_sizes_are_gathered() -> None:
    sizes = [2, 0, 3]

    def body(exchange: Exchange) -> list[list[int]]:
        block = torch.full((sizes[exchange.rank],), exchange.rank + 1, dtype=torch.uint8)
        return [part.tolist() for part in exchange.gather_blocks(block, sizes)]

    _, results = on_ranks(3, body)
    assert results == [[[1, 1], [], [3, 3, 3]]] * 3


def test_nothing_at_all_takes_no_collective() -> None:
    empty = torch.zeros(0, dtype=torch.uint8)
    ranks, results = on_ranks(2, lambda exchange: [part.numel() for part in exchange.gather_blocks(empty, [0, 0])])
    assert results == [[0, 0]] * 2
    assert ranks.collectives == ["new_group"]


def test_ranks_at_different_points_hear_of_it() -> None:
    def body(exchange: Exchange) -> Any:
        return exchange.meet("there" if exchange.rank == 2 else "here", {})

    _, results = on_ranks(3, body)
    for error in results:
        assert str(error) == (
            "the ranks are at different points of the program: rank 0 at 'here', rank 1 at 'here', rank 2 at 'there'"
        )
        assert error.elsewhere == {2: "there"}


@pytest.mark.parametrize("finishes", [True, False])
def test_a_rank_that_does_not_come_is_named_with_what_it_has_started(finishes: bool) -> None:
    def body(exchange: Exchange) -> Any:
        exchange.meet("first", {})
        exchange.start("validate/compute/mrr", waits=True)
        if finishes:
            exchange.finish()
        return None if exchange.rank == 1 else exchange.meet("second", {})

    _, results = on_ranks(3, body)
    for error in (results[0], results[2]):
        assert str(error) == "rank(s) 1 did not come to 'second' (time-out 7 s): all_gather: connection closed by peer"
        assert error.elsewhere == {1: "" if finishes else "validate/compute/mrr"}


def test_a_rank_that_left_is_not_waited_for() -> None:
    def body(exchange: Exchange) -> Any:
        exchange.meet("first", {})
        if exchange.rank == 0:
            exchange.leave("out of memory", failed=False)
            return None
        return exchange.start("validate/compute/mrr", waits=True)

    _, results = on_ranks(2, body)
    assert str(results[1]) == "rank(s) 0 left the run before 'validate/compute/mrr': out of memory"


def test_what_only_some_start_is_named_on_all_ranks() -> None:
    def body(exchange: Exchange) -> Any:
        exchange.meet("first", {})
        return exchange.meet("second", {}) if exchange.rank == 0 else exchange.start("validate/compute/mrr", waits=True)

    _, results = on_ranks(3, body)
    for error in results:
        assert isinstance(error, ExchangeError)
        assert str(error).endswith(" waited for the others")
        assert 1 in error.elsewhere
        assert {*error.elsewhere.values()} == {"validate/compute/mrr"}


def test_who_does_not_wait_goes_on_at_once_and_the_others_hear_of_it() -> None:
    """In either order: rank 2 comes to the meeting before anything is started, rank 0 afterwards."""

    def body(exchange: Exchange) -> Any:
        exchange.meet("first", {})
        if exchange.rank == 1:
            exchange.start("validate/compute/mrr", waits=False)
            exchange.agree(False)  # of nobody: the others are elsewhere
        return exchange.meet("second", {})

    _, results = on_ranks(3, body)
    for error in results:
        assert isinstance(error, ExchangeError)
        assert error.elsewhere == {1: "validate/compute/mrr"}


def test_who_started_alone_and_came_all_the_same_is_named() -> None:
    def body(exchange: Exchange) -> Any:
        exchange.meet("first", {})
        if exchange.rank == 1:
            exchange.start("validate/compute/mrr", waits=False)
            exchange.finish()
        return exchange.meet("second", {})

    _, results = on_ranks(2, body)
    for error in results:
        assert str(error) == "rank(s) 1 waited for the others"
        assert [*error.elsewhere] == [1]


def test_a_rank_that_has_left_meets_no_more() -> None:
    def body(exchange: Exchange) -> Any:
        exchange.meet("first", {})
        exchange.leave("out of memory", failed=False)
        return exchange.meet("second", {})

    for error in on_ranks(2, body)[1]:
        assert isinstance(error, ExchangeError)


def test_a_rank_that_never_came_anywhere_is_named() -> None:
    """What its start has left in the store tells where the others are to look."""
    _, results = on_ranks(2, lambda exchange: None if exchange.rank == 1 else exchange.meet("first", {}))
    assert "rank(s) 1 did not come to 'first'" in str(results[0])
    assert results[0].elsewhere == {1: ""}


def test_a_rank_that_is_lost_between_is_missed() -> None:
    block = torch.zeros(1, dtype=torch.uint8)

    def body(exchange: Exchange) -> Any:
        exchange.meet("first", {})
        return None if exchange.rank == 1 else exchange.gather_blocks(block, [1, 1])

    _, results = on_ranks(2, body)
    assert str(results[0]).startswith("a rank was lost on the way to 'rows' (time-out 7 s): all_gather")


def test_closing_twice_gives_up_the_group_once() -> None:
    def body(exchange: Exchange) -> None:
        exchange.close()
        exchange.close()

    assert on_ranks(2, body)[1] == [None, None]


def test_ranks_agree_on_what_each_of_them_answers() -> None:
    _, results = on_ranks(3, lambda exchange: exchange.agree(exchange.rank == 1))
    assert results == [[False, True, False]] * 3


@pytest.mark.parametrize("failed", [True, False])
def test_who_waits_for_a_rank_that_left_hears_why(failed: bool) -> None:
    def body(exchange: Exchange) -> Any:
        exchange.meet("first", {})
        if exchange.rank == 1:
            exchange.leave("out of memory", failed)
            return None
        return exchange.meet("second", {})

    _, results = on_ranks(2, body)
    if failed:
        assert isinstance(results[0], RanksFailedError)
        assert (str(results[0]), results[0].ranks) == ("out of memory", [1])
    else:
        assert str(results[0]) == "rank(s) 1 left the run before 'second': out of memory"


def test_a_rank_that_is_not_ready_keeps_all_from_starting() -> None:
    ranks = Ranks(2)

    def run(rank: int) -> Any:
        exchange = make_exchange(2)
        try:
            exchange.join(TIMEOUT, "no memory" if rank else None)
        except RanksFailedError as error:
            return str(error), error.ranks

    assert ranks.run(run) == [("no memory", [1])] * 2


def test_a_rank_that_is_too_late_for_the_start_hears_that_the_others_have_gone() -> None:
    ranks = Ranks(2)

    def run(rank: int) -> Any:
        exchange = make_exchange(2)
        if rank == 1:
            with pytest.raises(RuntimeError):  # once the other waits no more
                torch.distributed.barrier()
        try:
            exchange.join(TIMEOUT)
        except (ExchangeError, RanksFailedError) as error:
            return error

    waited, late = ranks.run(run)
    assert str(waited).startswith("rank(s) 1 did not come to 'the start' (time-out 7 s)")
    assert isinstance(late, RanksFailedError)
    assert (str(late), late.ranks) == (str(waited), [0])


def test_ranks_that_run_different_versions_are_named_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(3)

    def run(rank: int) -> Any:
        monkeypatch.setattr(exchange_module, "VERSION", "0.0.9/1" if rank == 1 else "0.1.0/2")
        with pytest.raises(RanksFailedError) as caught:
            make_exchange(3).join(TIMEOUT)
        return str(caught.value), caught.value.ranks

    text = (
        "the ranks run different versions of lightning-retrieval-guard: 0.0.9/1 on rank(s) 1; 0.1.0/2 on rank(s) 0, 2."
        " Install the same one everywhere"
    )
    assert ranks.run(run) == [(text, [1])] * 3
    assert "new_group" not in ranks.collectives
