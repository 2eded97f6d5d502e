"""Processes that run many cases over one process group.

1. ``Pool(W)`` starts W processes at the first case, with the environment that torchrun would give them.
2. ``Pool.run("module:function", ...)`` calls the function on every rank and waits for every answer.
3. A rank that raises, dies or hangs ends the case: the others get a few seconds, then the processes of the pool are
   killed, each with the processes that it started. The next case starts fresh ones.
4. A process whose parent is gone ends itself.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import importlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "raised", "died", "running", "killed"]

# Of what a rank wrote: the stacks of many threads must not push the rest out.
LOG_TAIL = 200_000

# A launcher around this process describes other processes.
_OF_LAUNCHERS = ("SLURM_", "TORCHELASTIC_", "PL_")
_SECONDS_FOR_STACKS = 0.3
_POSIX = os.name == "posix"


@dataclass(frozen=True)
class Outcome:
    """What one rank did with a case."""

    rank: int
    status: Status  # "killed" where it still ran at the end of the time, or some seconds after another rank had failed
    value: Any = None  # what the function returned
    error_types: tuple[str, ...] = ()  # the names of the exception's class and of its bases
    error: str = ""  # the exception's text
    log: str = ""  # what the rank wrote to stdout and stderr, with its stacks where it was killed

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return self.status == "ok"

    @property
    def failed(self) -> bool:
        """Whether this rank ended the case by itself."""
        return self.status in ("raised", "died")

    def __str__(self) -> str:
        return f"rank {self.rank} {self.status} {self.error_types[:1]} {self.error}\n{self.log}"


class Pool:
    """W processes on this machine, started at the first case and kept for the next ones.

    Args:
        world_size: The number of processes.
        environment: Variables that they have beside those of this process; ``None`` takes one away.
        preloaded: Modules that are imported once for all processes, where the system can do that.
    """

    def __init__(
        self, world_size: int, environment: Mapping[str, str | None] | None = None, preloaded: Sequence[str] = ()
    ) -> None:
        self.world_size = world_size
        self._environment = environment or {}
        self._preloaded = list(preloaded)
        self._ranks: list[_Rank] = []
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")

    def run(self, target: str, *, timeout: float, grace: float = 5.0, **kwargs: Any) -> list[Outcome]:
        """Call a function on every rank; where an outcome is not ok, the next case has new processes.

        Args:
            target: ``"module:function"``; what it returns must be picklable.
            timeout: Seconds until the case is over.
            grace: Seconds that ranks have after one of them has failed.
            kwargs: The arguments of the function; they must be picklable.
        """
        if not self._ranks:
            self._start()
        outcomes = self._call(target, kwargs, timeout, grace)
        if any(outcome.status == "running" for outcome in outcomes):
            return self._kill()
        if not all(outcome.ok for outcome in outcomes) and not self._can_go_on(outcomes):
            self._kill()
        return outcomes

    def close(self) -> None:
        """End the processes. May be called twice."""
        atexit.unregister(self.close)
        self._kill()
        self._folder.cleanup()

    def _can_go_on(self, outcomes: list[Outcome]) -> bool:
        """Whether the processes are still of use after a case in which each has answered, one with an error."""
        return False

    def _start(self) -> None:
        # multiprocessing waits for its children when this process ends, and does so after this handler
        atexit.register(self.close)
        context, size = _context(self._preloaded), str(self.world_size)
        # the environment of this process, and what torchrun would add
        given = {
            **{name: value for name, value in os.environ.items() if not name.startswith(_OF_LAUNCHERS)},
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "TORCHELASTIC_RUN_ID": uuid.uuid4().hex,
            "OMP_NUM_THREADS": "1",
            "GROUP_RANK": "0",
            "WORLD_SIZE": size,
            "LOCAL_WORLD_SIZE": size,
            **_loopback(),
            **self._environment,
        }
        environment = {name: value for name, value in given.items() if value is not None}
        for rank in range(self.world_size):
            of_rank = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            self._ranks.append(_Rank(context, rank, of_rank, Path(self._folder.name, f"rank{rank}.log")))

    def _call(self, target: str, kwargs: dict[str, Any], timeout: float, grace: float) -> list[Outcome]:
        for rank in self._ranks:
            rank.send(target, kwargs)
        deadline = time.monotonic() + timeout
        while pending := [rank for rank in self._ranks if rank.answer.status == "running"]:
            ready = wait([rank.connection for rank in pending], max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for rank in (rank for rank in pending if rank.connection in ready):
                rank.receive()
                if rank.answer.failed:
                    # The others may wait for this rank for ever, or fail because it is gone.
                    deadline = min(deadline, time.monotonic() + grace)
        return [rank.outcome() for rank in self._ranks]

    def _kill(self) -> list[Outcome]:
        running = [rank for rank in self._ranks if rank.answer.status == "running"]
        for rank in running:
            rank.write_stacks()
        time.sleep(_SECONDS_FOR_STACKS if running else 0.0)
        for rank in self._ranks:
            rank.kill()
        for rank in running:
            rank.answer = Outcome(rank.rank, "killed")
        outcomes = [rank.outcome() for rank in self._ranks]
        self._ranks = []
        return outcomes


class _Rank:
    """The parent's end of one process."""

    def __init__(self, context: Any, rank: int, environment: dict[str, str], log: Path) -> None:
        self.rank = rank
        self.answer = Outcome(rank, "ok")
        self.log = log
        self.log.touch()
        self.connection, other_end = context.Pipe()
        start_method = multiprocessing.get_start_method(allow_none=True)
        # Not a daemon: those may not have children, which loaders with workers need.
        self.process = context.Process(
            target=_serve, args=(environment, other_end, log, sys.path, start_method), daemon=False
        )
        self.process.start()
        other_end.close()

    def send(self, target: str, kwargs: dict[str, Any]) -> None:
        self.answer = Outcome(self.rank, "running")
        self.log.write_text("")
        with contextlib.suppress(BrokenPipeError):  # a dead rank is noticed when its answer is read
            self.connection.send((target, kwargs))

    def receive(self) -> None:
        try:
            self.answer = Outcome(self.rank, **self.connection.recv())
        except (EOFError, ConnectionResetError):
            self.process.join(1.0)  # only then there is an exit code
            self.answer = Outcome(self.rank, "died", error=f"exit code {self.process.exitcode}")

    def outcome(self) -> Outcome:
        return replace(self.answer, log=self.log.read_text(errors="replace")[-LOG_TAIL:])

    def write_stacks(self) -> None:
        if _POSIX:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGUSR1)

    def kill(self) -> None:
        """End the process and, where it has a group of its own, all that it started."""
        if _POSIX:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it had no time to open its group
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()


def _context(preloaded: list[str]) -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    # A fork server imports the heavy modules once and starts no thread: its children start in milliseconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloaded)
    return context


def _loopback() -> dict[str, str]:
    """What makes gloo use the loopback interface; by the host's name it may wait for a name server."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")] if _POSIX else []
    return {"GLOO_SOCKET_IFNAME": names[0]} if names else {}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# --- in the processes -------------------------------------------------------------------------------------------


def _serve(
    environment: dict[str, str], connection: Connection, log: Path, path: list[str], start_method: str | None
) -> None:
    """The life of one rank: take a case, call it, send the answer."""
    if _POSIX:
        os.setpgrp()  # Ctrl-C on the terminal is for the parent, which ends this process
        faulthandler.register(signal.SIGUSR1, all_threads=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.clear()  # a fork server has the variables of the moment in which it started
    os.environ.update(environment)
    sys.path[:] = path
    multiprocessing.set_start_method(start_method, force=True)  # as in the parent, for the workers of loaders
    # Appended, because the parent empties the file before each case.
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import torch  # loaded by the fork server already

    torch.set_num_threads(1)
    with contextlib.suppress(EOFError):  # the parent closed the pool, or ended
        while True:
            connection.send(_answer(*connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        if _POSIX:
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


def _answer(target: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    module, _, function = target.partition(":")
    try:
        return {"status": "ok", "value": getattr(importlib.import_module(module), function)(**kwargs)}
    except BaseException as error:  # SystemExit and KeyboardInterrupt are results too
        traceback.print_exc()
        sys.stderr.flush()
        names = tuple(base.__name__ for base in type(error).__mro__)
        return {"status": "raised", "error_types": names, "error": str(error)}
