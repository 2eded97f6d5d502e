"""Pools of real processes that run many test cases over one process group.

1. `Pool(W)` starts W processes with the environment torchrun would give them.
2. `Pool.run("module:function", ...)` calls the function on every rank and waits for every answer.
3. A rank that raises, dies or hangs ends the case, not the test run: the others get a few seconds, then the
   processes of this pool are killed, and the next case starts fresh ones.
4. Where every rank raised the same error, a probe finds out whether the group still works, and is kept then.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "raised", "died", "running", "killed"]

LOG_TAIL = 200_000
"""Characters kept of what a rank wrote: the stacks of a loaded machine's many threads must not push the rest out."""

# A fork server imports the heavy modules once and starts no thread: its children start in milliseconds.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["lightning.pytorch", "torchmetrics.retrieval", "pytest"])


class CaseTimeout(AssertionError):
    """No answer in time; the text holds the stacks of every rank.

    Attributes:
        outcomes: what each rank did until then.
    """

    def __init__(self, text: str, outcomes: list[Outcome]) -> None:
        super().__init__(text)
        self.outcomes = outcomes


@dataclass(frozen=True)
class Outcome:
    """What one rank did with a case.

    Attributes:
        status: "ok" (returned), "raised", "died" (the process ended), or "killed" (it still ran some seconds
            after another rank had failed).
        value: what the function returned.
        error_types: names of the exception's class and of its bases.
        error: the exception's text.
        log: what the rank wrote to stdout and stderr, with its stacks where it was killed.
    """

    rank: int
    status: Status
    value: Any = None
    error_types: tuple[str, ...] = ()
    error: str = ""
    log: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def failed(self) -> bool:
        return self.status in ("raised", "died")

    def __str__(self) -> str:
        return f"rank {self.rank} {self.status} {self.error_types[:1]} {self.error}\n{self.log}"


class Pool:
    """W processes, started at the first case and kept for the next ones."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self._ranks: list[_Rank] = []
        self._probes = 0
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")

    def run(
        self, target: str, *, case: str = "", timeout: float = 30.0, grace: float = 5.0, **kwargs: Any
    ) -> list[Outcome]:
        """Call `module:function` with `kwargs` on every rank.

        Args:
            target: the function; its result must be picklable.
            case: what to call this in the text of a time-out.
            timeout: seconds until the case fails.
            grace: seconds that ranks have after one of them has failed.
            kwargs: the arguments of the function; they must be picklable.

        Raises:
            CaseTimeout: no rank failed, and one still runs after `timeout` seconds.
        """
        if not self._ranks:
            self._start()
        outcomes = self._call(target, kwargs, timeout, grace)
        if all(outcome.ok for outcome in outcomes):
            return outcomes
        if any(outcome.status == "running" for outcome in outcomes):
            outcomes = self._kill()
            if not any(outcome.failed for outcome in outcomes):
                stacks = "\n".join(map(str, outcomes))
                raise CaseTimeout(f"{case or target}: {self.world_size} ranks, {timeout:g} s\n{stacks}", outcomes)
        elif len({outcome.error_types for outcome in outcomes}) > 1 or not self._works():
            self._kill()
        return outcomes

    def close(self) -> None:
        """End the processes of this pool."""
        for rank in self._ranks:
            rank.connection.close()
        for rank in self._ranks:
            rank.process.join(1.0)
        self._kill()
        self._folder.cleanup()

    def _start(self) -> None:
        environment = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "TORCHELASTIC_RUN_ID": uuid.uuid4().hex,
            "OMP_NUM_THREADS": "1",
            "GROUP_RANK": "0",
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.world_size),
        }
        self._ranks = [_Rank(rank, environment, Path(self._folder.name)) for rank in range(self.world_size)]

    def _call(self, target: str, kwargs: dict[str, Any], timeout: float, grace: float) -> list[Outcome]:
        for rank in self._ranks:
            rank.send(target, kwargs)
        deadline = time.monotonic() + timeout
        while pending := [rank for rank in self._ranks if rank.answer.status == "running"]:
            ready = wait([rank.connection for rank in pending], max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for rank in pending:
                if rank.connection in ready:
                    rank.receive()
                    if rank.answer.failed:
                        deadline = min(deadline, time.monotonic() + grace)
        return [rank.outcome() for rank in self._ranks]

    def _works(self) -> bool:
        """Whether the ranks still meet."""
        self._probes += 1
        outcomes = self._call(f"{__name__}:probe", {"token": self._probes}, 5.0, 1.0)
        return all(outcome.ok and outcome.value for outcome in outcomes)

    def _kill(self) -> list[Outcome]:
        running = [rank for rank in self._ranks if rank.answer.status == "running"]
        for rank in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank.process.pid, signal.SIGUSR1)  # faulthandler writes the stacks
        time.sleep(0.3 if running else 0.0)
        for rank in self._ranks:
            rank.process.kill()
            rank.process.join()
        for rank in running:
            rank.answer = Outcome(rank.rank, "killed")
        outcomes = [rank.outcome() for rank in self._ranks]
        self._ranks = []
        return outcomes


class _Rank:
    """The parent's end of one process."""

    def __init__(self, rank: int, environment: dict[str, str], folder: Path) -> None:
        self.rank = rank
        self.answer = Outcome(rank, "ok")
        self.log = folder / f"rank{rank}.log"
        self.connection, theirs = _context.Pipe()
        environment = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        arguments = (environment, theirs, self.log, sys.path)
        self.process = _context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def send(self, target: str, kwargs: dict[str, Any]) -> None:
        self.answer = Outcome(self.rank, "running")
        self.log.write_text("")
        with contextlib.suppress(BrokenPipeError):  # a dead rank is noticed when its answer is read
            self.connection.send((target, kwargs))

    def receive(self) -> None:
        try:
            self.answer = Outcome(self.rank, **self.connection.recv())
        except (EOFError, ConnectionResetError):
            self.process.join(1.0)
            self.answer = Outcome(self.rank, "died", error=f"exit code {self.process.exitcode}")

    def outcome(self) -> Outcome:
        return replace(self.answer, log=self.log.read_text(errors="replace")[-LOG_TAIL:])


def _serve(environment: dict[str, str], connection: Connection, log: Path, path: list[str]) -> None:
    """The life of one rank: take a case, call it, send the answer."""
    os.environ.update(environment)
    sys.path[:] = path
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    import torch  # loaded by the fork server already

    torch.set_num_threads(1)
    for target, kwargs in _cases(connection):
        connection.send(_answer(target, kwargs))


def _cases(connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    with contextlib.suppress(EOFError):  # the parent closed the pool, or ended
        while True:
            yield connection.recv()


def _answer(target: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    module, _, function = target.partition(":")
    try:
        return {"status": "ok", "value": getattr(importlib.import_module(module), function)(**kwargs)}
    except BaseException as error:  # SystemExit and KeyboardInterrupt are results too
        traceback.print_exc()
        sys.stderr.flush()
        names = tuple(base.__name__ for base in type(error).__mro__)
        return {"status": "raised", "error_types": names, "error": str(error)}


def probe(token: int) -> bool:
    """Whether every rank sends the same token through the default group."""
    import torch.distributed as dist

    tokens = [None] * int(os.environ["WORLD_SIZE"])
    if dist.is_initialized():
        dist.all_gather_object(tokens, token)
    return all(other in (token, None) for other in tokens)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
