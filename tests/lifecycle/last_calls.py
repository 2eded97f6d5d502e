"""Runs that end on rank zero, whose process holds the store, while other ranks are late at a call of the store.

    python -m lifecycle.last_calls bare 3      # the exchange alone, each call late in a run of its own
    python -m lifecycle.last_calls validate 3  # a trainer that forks, all calls late in one run

`bare` prints what went wrong, a line each.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from lightning_retrieval_guard.distributed.exchange import GroupExchange

LATE = 0.25
TIMEOUT = timedelta(seconds=20)
ENDS = ("agree", "agree-yes", "compute")


class Late:
    """A store some of whose calls are late.

    Args:
        store: The store.
        is_late: Whether a call is, from its number.
    """

    def __init__(self, store: Any, is_late: Callable[[int], bool]) -> None:
        self._store = store
        self._is_late = is_late
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*arguments: Any) -> Any:
            self.calls += 1
            if self._is_late(self.calls):
                time.sleep(LATE)
            return method(*arguments)

        return call


def run_bare(end: str, late: int) -> int:
    """An epoch on this rank; how many calls of the store came after its last collective.

    Args:
        end: What comes last.
        late: Which of these calls is late.
    """
    exchange = GroupExchange()
    exchange.join(TIMEOUT)
    exchange.meet("batches", {})
    exchange.start("compute", waits=True)
    dist.barrier()
    exchange.finish()
    exchange.meet("epoch", {})
    store = Late(exchange._store._store, lambda call: call == late and exchange.rank > 0)
    exchange._store._store = store
    if end == "compute":
        exchange.start("compute", waits=False)
        dist.barrier()
        exchange.finish()
    else:
        assert exchange.agree(end == "agree-yes") == [end == "agree-yes"] * exchange.world_size
    return store.calls


def fork(world_size: int, body: Callable[[], None]) -> list[str]:
    """Call it on ranks that are processes of their own and are gone as soon as it returns; their errors."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    errors, write = os.pipe()
    children = []
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store = dist.TCPStore("127.0.0.1", port, is_master=rank == 0, timeout=TIMEOUT)
                dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
                body()
                code = 0
            except BaseException:  # it goes to the parent; nothing of it may run on in a child
                os.write(write, f"rank {rank}: {traceback.format_exc().splitlines()[-1]}\n".encode())
            finally:
                os._exit(code)
        children.append(child)
    os.close(write)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    with os.fdopen(errors) as written:
        lines = written.read().splitlines()
    return lines or [f"rank {rank} ended with {code}" for rank, code in enumerate(codes) if code]


def bare(world_size: int) -> None:
    """Each end, and each call in turn, until a run has fewer."""
    for end in ENDS:
        read, write = os.pipe()
        late = calls = 1
        while late <= calls:
            number = late

            def body(end: str = end, number: int = number, to: int = write) -> None:
                os.write(to, run_bare(end, number).to_bytes(1, "little"))

            for line in fork(world_size, body):
                print(f"{end}, call {late}: {line}")
            calls = max(os.read(read, world_size))
            late += 1
        print(f"{end}: {calls} calls", file=sys.stderr)


def validate(world_size: int) -> None:
    """Correct mode in a trainer, all calls of the other ranks late."""
    from distributed.evaluate import guards
    from lightning.pytorch import Trainer

    from .programs import Sharded

    join = GroupExchange.join

    def join_late(self: GroupExchange, *arguments: Any) -> None:
        join(self, *arguments)
        self._store._store = Late(self._store._store, lambda _: self.rank > 0)

    GroupExchange.join = join_late  # type: ignore[method-assign]  # in the forked processes
    for mode in ("correct", "warn"):
        trainer = Trainer(
            accelerator="cpu",
            strategy="ddp_fork",
            devices=world_size,
            callbacks=guards(mode, {}),
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.validate(Sharded(), verbose=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"bare": bare, "validate": validate}[sys.argv[1]](int(sys.argv[2]))
