"""The pool of processes itself: answers, errors, hangs and crashes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from .harness import CaseTimeout, Pool

HERE = __name__


def answer(text: str) -> dict[str, object]:
    variables = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")
    return {"text": text, "pid": os.getpid(), **{name: os.environ[name] for name in variables}}


def raise_on(ranks: list[int]) -> None:
    print("before the error", file=sys.stderr)
    if int(os.environ["RANK"]) in ranks:
        raise ZeroDivisionError("on purpose")


def raise_on_one_and_hang() -> None:
    raise_on([0])
    time.sleep(60)


def hang_in_here() -> None:
    time.sleep(60)


def abort_on_one() -> None:
    if os.environ["RANK"] == "1":
        os.abort()


def total() -> int:
    """Over a group that stays for the next case."""
    import torch

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    ranks = torch.tensor(int(os.environ["RANK"]))
    dist.all_reduce(ranks)
    return int(ranks)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.close()


def test_every_rank_answers(pool: Pool) -> None:
    outcomes = pool.run(f"{HERE}:answer", text="hello")
    assert [outcome.rank for outcome in outcomes] == [0, 1]
    for rank, outcome in enumerate(outcomes):
        assert outcome.ok
        assert outcome.value["text"] == "hello"
        assert outcome.value["RANK"] == outcome.value["LOCAL_RANK"] == str(rank)
        assert outcome.value["WORLD_SIZE"] == outcome.value["LOCAL_WORLD_SIZE"] == "2"
        assert outcome.value["OMP_NUM_THREADS"] == "1"


def test_processes_are_kept(pool: Pool) -> None:
    first, second = (pool.run(f"{HERE}:answer", text="") for _ in range(2))
    assert [outcome.value["pid"] for outcome in first] == [outcome.value["pid"] for outcome in second]
    assert os.getpid() not in [outcome.value["pid"] for outcome in first]


def test_an_error_on_every_rank_is_told_and_the_group_is_kept(pool: Pool) -> None:
    assert [outcome.value for outcome in pool.run(f"{HERE}:total")] == [1, 1]
    before = [outcome.value["pid"] for outcome in pool.run(f"{HERE}:answer", text="")]
    for outcome in pool.run(f"{HERE}:raise_on", ranks=[0, 1]):
        assert outcome.status == "raised"
        assert outcome.error_types[:2] == ("ZeroDivisionError", "ArithmeticError")
        assert outcome.error == "on purpose"
        assert "before the error" in outcome.log
    assert [outcome.value["pid"] for outcome in pool.run(f"{HERE}:answer", text="")] == before
    assert [outcome.value for outcome in pool.run(f"{HERE}:total")] == [1, 1]


def test_an_error_on_one_rank_replaces_the_processes(pool: Pool) -> None:
    before = [outcome.value["pid"] for outcome in pool.run(f"{HERE}:answer", text="")]
    assert [outcome.status for outcome in pool.run(f"{HERE}:raise_on", ranks=[1])] == ["ok", "raised"]
    after = [outcome.value["pid"] for outcome in pool.run(f"{HERE}:answer", text="")]
    assert not set(before) & set(after)


def test_a_rank_left_waiting_is_killed(pool: Pool) -> None:
    first, second = pool.run(f"{HERE}:raise_on_one_and_hang", grace=0.5)
    assert (first.status, second.status) == ("raised", "killed")
    assert "raise_on_one_and_hang" in second.log
    assert all(outcome.ok for outcome in pool.run(f"{HERE}:answer", text=""))


def test_a_hang_fails_with_name_and_stacks(pool: Pool) -> None:
    with pytest.raises(CaseTimeout) as caught:
        pool.run(f"{HERE}:hang_in_here", case="the slow case", timeout=0.5)
    assert "the slow case" in str(caught.value)
    assert str(caught.value).count("in hang_in_here") == 2


def test_a_crash_is_told(pool: Pool) -> None:
    outcomes = pool.run(f"{HERE}:abort_on_one")
    assert outcomes[1].status == "died"
    assert "exit code -6" in outcomes[1].error
    assert all(outcome.ok for outcome in pool.run(f"{HERE}:answer", text=""))
