"""Several ranks in one process: a thread each, one at a time, that meet in place of `torch.distributed`.

Everything above the collectives is the real thing: Lightning's Trainer and reductions, torchmetrics' synchronisation,
and the guard with its `GroupExchange`. A rank runs until it enters a collective or returns; then the next one runs.
What a process has of its own (the guard's patches, its counters) is put on and taken off with each turn.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.distributed import ReduceOp
from torchmetrics import Metric, MetricCollection

from lightning_retrieval_guard.distributed import exchange
from lightning_retrieval_guard.watch import metrics as watched

LONGEST_TURN = 60.0
"""Seconds that a rank may run before it enters a collective or returns."""

# What differs from process to process: the owner and the name of each attribute.
OF_A_PROCESS: tuple[tuple[Any, str], ...] = (
    *((Metric, name) for name in ("__init__", "__setstate__", "reset", "__call__", "to")),
    (MetricCollection, "update"),
    (LightningModule, "log"),
    (exchange, "_instances"),
)


ABSENT = object()
WAIT = "wait"
"""What ranks enter that wait for the store."""


def look() -> list[Any]:
    """What the process has now, by place in `OF_A_PROCESS`."""
    return [vars(owner).get(name, ABSENT) for owner, name in OF_A_PROCESS]


def put_on(state: Sequence[Any]) -> None:
    """Give the process what `look` saw."""
    for (owner, name), value in zip(OF_A_PROCESS, state, strict=True):
        if value is not ABSENT:
            setattr(owner, name, value)
        elif name in vars(owner):
            delattr(owner, name)


class RankLostError(RuntimeError):
    """A collective that not all ranks of the group entered, as gloo reports it."""


@dataclass(eq=False)
class Group:
    """A process group of simulated ranks."""

    ranks: tuple[int, ...]


@dataclass(eq=False)
class _Rank:
    number: int
    body: Callable[[int], Any]
    returned: Any = None
    raised: BaseException | None = None
    done: bool = False
    entered: tuple[Any, ...] | None = None
    answer: list[Any] | None = None
    metrics: Callable[[], Sequence[Metric]] = tuple
    of_process: list[Any] = field(default_factory=list)
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Ranks:
    """Runs one function on W ranks, and passes on what they tell each other.

    Attributes:
        collectives: The names of the collectives that rank 0 has entered.
    """

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.world = Group(tuple(range(world_size)))
        self.collectives: list[str] = []
        self.store: dict[str, bytes] = {}
        self._ranks: list[_Rank] = []
        self._running: _Rank | None = None
        self._back = threading.Semaphore(0)

    def run(self, body: Callable[[int], Any]) -> list[Any]:
        """What `body(rank)` returns on every rank.

        Raises:
            TimeoutError: A rank neither entered a collective nor returned.
            BaseException: What the lowest rank raised that raised anything.
        """
        plain = look()
        self.store.clear()  # guards are numbered from here on as in the run before
        self._ranks = [_Rank(number, body, of_process=plain) for number in range(self.world_size)]
        with self._installed():
            for rank in self._ranks:
                threading.Thread(target=self._live, args=(rank,), daemon=True).start()
            while not all(rank.done for rank in self._ranks):
                ready = [rank for rank in self._ranks if not rank.done and rank.entered is None]
                if ready:
                    self._give_turn(ready[0])
                else:
                    self._answer()
        for rank in self._ranks:
            if rank.raised is not None:
                raise rank.raised
            pairs = zip(OF_A_PROCESS, rank.of_process, plain, strict=True)
            left = [name for (_, name), now, before in pairs if now is not before and name != "_instances"]
            assert not left, f"rank {rank.number} left {left} patched"
        return [rank.returned for rank in self._ranks]

    def has(self, metrics: Callable[[], Sequence[Metric]]) -> None:
        """Name the metrics of the rank that runs, among which the guard looks for those of its process."""
        self._now.metrics = metrics

    # --- turns ------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> _Rank:
        assert self._running is not None
        return self._running

    def _live(self, rank: _Rank) -> None:
        rank.turn.acquire()
        try:
            rank.returned = rank.body(rank.number)
        except BaseException as error:  # it comes up in the thread of the test
            rank.raised = error
        rank.done = True
        self._back.release()

    def _give_turn(self, rank: _Rank) -> None:
        plain = look()
        put_on(rank.of_process)
        self._running = rank
        rank.turn.release()
        if not self._back.acquire(timeout=LONGEST_TURN):
            raise TimeoutError(f"rank {rank.number} neither entered a collective nor returned")
        self._running = None
        rank.of_process = look()
        put_on(plain)

    def _enter(self, name: str, group: Group | None, *payload: Any) -> list[Any]:
        """Enter a collective; what all ranks of the group brought, in order of rank."""
        rank = self._now
        if rank.number == 0 and name != WAIT:
            self.collectives.append(name)
        rank.entered = (name, self.world if group is None else group, *payload)
        self._back.release()
        rank.turn.acquire()
        answer, rank.entered, rank.answer = rank.answer, None, None
        if answer is None:
            raise RankLostError(f"{name}: connection closed by peer")
        return answer

    def _answer(self) -> None:
        """Every rank waits or is done: let those go on that all wait for the same, or else all that wait."""
        waiting = [rank for rank in self._ranks if not rank.done and rank.entered is not None]
        met = [
            group for group in {id(rank.entered[1]): rank.entered[1] for rank in waiting}.values() if self._met(group)
        ]
        for group in met:
            members = [self._ranks[number] for number in group.ranks]
            brought = [rank.entered[2:] for rank in members]
            for rank in members:
                rank.answer = brought
        for rank in waiting:
            if not met or rank.answer is not None:
                self._give_turn(rank)

    def _met(self, group: Group) -> bool:
        members = [self._ranks[number] for number in group.ranks]
        entered = [rank.entered for rank in members if not rank.done and rank.entered is not None]
        return len(entered) == len(members) and len({(one[0], id(one[1])) for one in entered}) == 1

    # --- what stands in for torch.distributed -----------------------------------------------------------------

    @contextlib.contextmanager
    def _installed(self) -> Iterator[None]:
        names = (
            "is_initialized get_rank get_world_size get_backend new_group destroy_process_group"
            " get_process_group_ranks barrier all_gather all_reduce"
        )
        with contextlib.ExitStack() as stack:
            for name in names.split():
                stack.enter_context(mock.patch.object(torch.distributed, name, getattr(self, f"_{name}")))
            c10d = torch.distributed.distributed_c10d
            stack.enter_context(mock.patch.object(c10d, "_get_default_store", return_value=self._Store(self)))
            stack.enter_context(mock.patch.object(watched, "_living_metrics", self._living_metrics))
            yield

    @dataclass
    class _Store:
        ranks: Ranks

        def set(self, key: str, value: str) -> None:
            self.ranks.store[key] = value.encode()

        def get(self, key: str) -> bytes:
            if key not in self.ranks.store:
                raise RankLostError(f"no {key} in the store")
            return self.ranks.store[key]

        def add(self, key: str, amount: int) -> int:
            self.set(key, str(int(self.ranks.store.get(key, b"0")) + amount))
            return int(self.ranks.store[key])

        def delete_key(self, key: str) -> bool:
            return self.ranks.store.pop(key, None) is not None

        def check(self, keys: Sequence[str]) -> bool:
            return all(key in self.ranks.store for key in keys)

        def wait(self, keys: Sequence[str], timeout: Any) -> None:
            if keys[0].endswith("/over"):  # ranks take turns here, and none is ever late
                return
            starts = "/started/" in keys[0] and self.ranks.store.get(keys[0]) != b"-1"
            if keys[0].endswith("/all") or "/agreed/" in keys[0] or starts:  # all ranks come here
                self.ranks._enter(WAIT, None)
            for key in keys:
                self.get(key)

    def _living_metrics(self) -> list[Metric]:
        return list(self._now.metrics())

    def _is_initialized(self) -> bool:
        return self.world_size > 1

    def _get_rank(self, group: Group | None = None) -> int:
        return (group or self.world).ranks.index(self._now.number)

    def _get_world_size(self, group: Group | None = None) -> int:
        return len((group or self.world).ranks)

    def _get_backend(self, group: Group | None = None) -> str:
        return "gloo"

    def _new_group(self, ranks: Sequence[int] | None = None, **_: Any) -> Group:
        made = Group(tuple(range(self.world_size) if ranks is None else ranks))
        [first, *_] = self._enter("new_group", None, made)
        return first[0]

    def _destroy_process_group(self, group: Group) -> None:
        assert isinstance(group, Group)

    def _get_process_group_ranks(self, group: Group) -> list[int]:
        return list(group.ranks)

    def _barrier(self, group: Group | None = None) -> None:
        self._enter("barrier", group)

    def _all_gather(self, into: list[Tensor], sent: Tensor, group: Group | None = None) -> None:
        brought = [tensor for (tensor,) in self._enter("all_gather", group, sent.clone())]
        if len({(tensor.shape, tensor.dtype) for tensor in brought}) > 1:
            raise RankLostError("all_gather: unequal sizes")
        for target, tensor in zip(into, brought, strict=True):
            target.copy_(tensor)

    def _all_reduce(self, reduced: Tensor, op: Any = ReduceOp.SUM, group: Group | None = None, **_: Any) -> None:
        brought = torch.stack([tensor for (tensor,) in self._enter("all_reduce", group, reduced.clone())])
        reductions = {
            ReduceOp.SUM: lambda: brought.sum(dim=0),
            ReduceOp.MIN: lambda: brought.amin(dim=0),
            ReduceOp.MAX: lambda: brought.amax(dim=0),
        }
        reduced.copy_(next(reduce() for kind, reduce in reductions.items() if kind == op))


class SimulatedStrategy(SingleDeviceStrategy):
    """One device of several, whose values Lightning reduces as under DDP."""

    def __init__(self, ranks: Ranks, rank: int) -> None:
        super().__init__(device=torch.device("cpu"))
        self.world_size, self.global_rank = ranks.world_size, rank

    @property
    def is_global_zero(self) -> bool:
        return self.global_rank == 0

    @property
    def is_distributed(self) -> bool:
        return self.world_size > 1

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        from lightning.fabric.utilities.distributed import _sync_ddp_if_available

        return _sync_ddp_if_available(tensor, group, reduce_op) if isinstance(tensor, Tensor) else tensor

    def barrier(self, name: str | None = None) -> None:
        if self.world_size > 1:
            torch.distributed.barrier()
