"""The only module that talks to torch.distributed.

How ranks meet:

0. Before the first meeting every rank writes to the store what it runs and whether it is ready; the group comes to be
   if all are ready and run the same version.
1. Each rank writes to the store that it has come; writing waits for nobody.
2. One ``all_gather`` of a frame of fixed size, on a gloo group of the guard's: a label and a message, compressed.
   Where one is too long, a second gather follows, and frames are larger from then on.
3. The labels must agree; otherwise the ranks are at different points of the program.
4. What the messages call for follows, one ``all_gather`` each time; every rank knows all sizes beforehand.
5. On a time-out or a lost connection the store tells which ranks did not come.
6. Before anything is done, all wait until the store has counted every rank (``agree``); rank zero goes on last.
7. Before a metric of the program combines ranks by itself outside of steps, ranks write that to the store (``start``).
   A rank that goes to a meeting instead, or finds there that others have started something, gets an error at once.
8. A rank that cannot go on writes why and closes its end of the group. All who wait for it, or come to wait, get an
   error at once, and read in the store what happened.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import override

from lightning_retrieval_guard import __version__
from lightning_retrieval_guard.distributed.payload import ProtocolError, as_entry, read_all
from lightning_retrieval_guard.distributed.store import RankStatus, RankStore, waiting_alone

# The second number changes with whatever travels.
VERSION = f"{__version__}/3"
_FRAME_BYTES = 7 << 10
_LENGTH_BYTES = 4
_SIZE_BYTES = 8
# No message is nearly as long; what claims to be is not one, and memory is not spent on it.
_MOST_BYTES = 1 << 22
_MOST_TEXT_BYTES = 1 << 26
_KEPT = 32  # collectives of which a thread may still hold something
_instances = 0


class ExchangeError(RuntimeError):
    """The ranks did not meet.

    Attributes:
        elsewhere: What is known of the ranks that were not there: where each is, or an empty text.
    """

    def __init__(self, message: str, elsewhere: Mapping[int, str]) -> None:
        super().__init__(message)
        self.elsewhere = dict(elsewhere)


class RanksFailedError(RuntimeError):
    """The guard failed on one rank or more, and all ranks hear of it where they meet.

    Attributes:
        ranks: Those on which it failed.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__("; ".join(dict.fromkeys(reasons.values())))
        self.ranks = list(reasons)


class WorldSizeError(RuntimeError):
    """The trainer and ``torch.distributed`` disagree about the ranks."""


class Exchange:
    """Exchanges messages between the ranks; with one process it hands back what it gets."""

    rank = 0
    world_size = 1

    def join(self, timeout: timedelta, trouble: str | None = None) -> None:
        """Hear from all ranks whether they are ready, before the first meeting.

        Args:
            timeout: How long ranks wait for each other, here and later.
            trouble: Why this rank is not ready.

        Raises:
            RanksFailedError: A rank is not ready, or runs another version; every rank gets that.
            ExchangeError: A rank did not come.
        """
        if trouble is not None:
            raise RanksFailedError({self.rank: trouble})

    def meet(self, label: str, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Exchange one message with every rank.

        Args:
            label: Names the point of the program; must be the same on all ranks.
            message: Anything that JSON can hold.

        Returns:
            The messages of all ranks, in order of rank.

        Raises:
            ExchangeError: A rank did not come, or came from another point of the program.
            ProtocolError: A rank sent something else than a label and a message.
        """
        return [message]

    def gather_blocks(self, block: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Gather one block of bytes from every rank.

        Args:
            block: This rank's bytes, uint8 of shape ``(sizes[rank],)``.
            sizes: The number of bytes of every rank, the same list on all ranks.

        Returns:
            The blocks of all ranks, uint8, in order of rank.
        """
        return [block]

    def gather_any(self, block: Tensor) -> list[Tensor]:
        """Gather blocks of whose sizes the ranks do not know; ``gather_blocks`` of the sizes, then of the blocks.

        Args:
            block: This rank's bytes, uint8.

        Returns:
            The blocks of all ranks, uint8, in order of rank.
        """
        sizes = self.gather_blocks(torch.tensor([block.numel()]).view(torch.uint8), [_SIZE_BYTES] * self.world_size)
        return self.gather_blocks(block, [int(size.clone().view(torch.int64)) for size in sizes])

    def agree(self, answer: bool) -> list[bool]:
        """Wait for all ranks before anything is done, so that it is done on all ranks or on none.

        Args:
            answer: What this rank tells the others.

        Returns:
            The answers of all ranks, in order of rank.

        Raises:
            RanksFailedError: The guard failed on a rank.
            ExchangeError: A rank did not come.
        """
        return [answer]

    def ranks_of(self, group: Any) -> list[int]:
        """The ranks of a process group; of ``None`` all ranks."""
        return list(range(self.world_size))

    def leave(self, reason: str, failed: bool) -> None:
        """Meet no more, and let nobody wait for this rank.

        Args:
            reason: Why, for the others.
            failed: Whether the guard failed here, so that all ranks go on without it; else the run ends on this rank.
        """

    def start(self, point: str, waits: bool) -> None:
        """Begin something that all ranks do together without the exchange.

        Args:
            point: What this rank starts.
            waits: Whether to wait for the others, so that whoever starts it alone gets an error in place of a hang.

        Raises:
            ExchangeError: A rank has gone past it or left, or did not come.
            RanksFailedError: The guard failed on a rank.
        """

    def finish(self) -> None:
        """What was started is over here."""

    def close(self) -> None:
        """Give up the group. May be called twice."""


class GroupExchange(Exchange):
    """Exchanges through a gloo group over all ranks that only the guard uses."""

    def __init__(self) -> None:
        global _instances
        _instances += 1
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._timeout = timedelta()
        self._frame_bytes = _FRAME_BYTES
        self._meetings = 0
        # every rank makes its guards in the same order, so the number names the same guard everywhere
        name = f"lightning_retrieval_guard/{_instances}"
        self._store = RankStore(dist.distributed_c10d._get_default_store(), name, self.rank, self.world_size)
        self._group: Any = None
        self._sent: deque[Tensor] = deque(maxlen=_KEPT * (1 + self.world_size))

    @override
    def join(self, timeout: timedelta, trouble: str | None = None) -> None:
        self._timeout = timeout
        if trouble is not None:
            self.leave(trouble, failed=True)
            raise RanksFailedError({self.rank: trouble})
        try:
            self._store.wait_for_all(VERSION, timeout)
            statuses = self._store.statuses()
            failure = _failure_of(statuses) or _differing_versions(statuses)
            if failure is None:
                self._group = dist.new_group(backend="gloo", timeout=timeout)
                return
        except RuntimeError as error:
            lost = self._lost("the start", error)
            self.leave(str(lost), failed=True)  # for a rank that comes later
            raise lost from error
        raise failure

    @override
    def meet(self, label: str, message: dict[str, Any]) -> list[dict[str, Any]]:
        self._meetings += 1
        text = _compress(json.dumps([label, message], separators=(",", ":")).encode())
        try:
            if self._store.come(self._meetings):
                raise RuntimeError("others wait elsewhere")
            texts = self._gather_texts(text)
        except RuntimeError as error:
            raise self._lost(label, error) from error
        entries = read_all(_read, texts)
        labels = [label for label, _ in entries]
        if len(set(labels)) > 1:
            points = ", ".join(f"rank {rank} at {at!r}" for rank, at in enumerate(labels))
            usual = max(Counter(labels).values())
            # those that are not where most are, and those that compute a metric where others do not
            apart = {rank: at for rank, at in enumerate(labels) if labels.count(at) < usual or "/compute/" in at}
            raise ExchangeError(f"the ranks are at different points of the program: {points}", apart)
        return [message for _, message in entries]

    @override
    def gather_blocks(self, block: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        longest = max(sizes)
        if longest == 0:
            return [block.new_empty(0) for _ in sizes]
        # gloo gathers blocks of one size
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: block.numel()] = block
        try:
            gathered = self._all_gather(padded)
        except RuntimeError as error:
            raise self._lost("rows", error) from error
        return [whole[:size] for whole, size in zip(gathered, sizes, strict=True)]

    @override
    def agree(self, answer: bool) -> list[bool]:
        try:
            return self._store.agree(answer, self._timeout)
        except RuntimeError as error:
            raise self._lost("an agreement", error) from error

    @override
    def ranks_of(self, group: Any) -> list[int]:
        return super().ranks_of(group) if group is None else sorted(dist.get_process_group_ranks(group))

    @override
    def leave(self, reason: str, failed: bool) -> None:
        with contextlib.suppress(RuntimeError):  # without a store the others know that a rank is gone
            self._store.leave(reason, failed)
        self.close()

    @override
    def start(self, point: str, waits: bool) -> None:
        try:
            if self._store.start(point, self._timeout, waits):
                return
        except RuntimeError as error:
            raise self._lost(point, error) from error
        self.close()  # those who are at the meeting need not wait for this rank
        raise self._lost(point, RuntimeError("a rank went past it"))

    @override
    def finish(self) -> None:
        self._store.finish()

    @override
    def close(self) -> None:
        group, self._group = self._group, None
        if group is not None and dist.is_initialized():
            dist.destroy_process_group(group)

    def _gather_texts(self, text: bytes) -> list[bytes]:
        frame = self._frame_bytes
        rows = self._all_gather(_pack(text, frame))
        lengths = [int.from_bytes(bytes(row[:_LENGTH_BYTES].tolist()), "little") for row in rows]
        too_long = {rank: f"{length} bytes" for rank, length in enumerate(lengths) if length > _MOST_BYTES}
        if too_long:
            raise ProtocolError(too_long)
        longest = max(lengths) + _LENGTH_BYTES
        if longest > frame:
            # with room to grow, so that the next message fits into one gather
            self._frame_bytes = 2 * longest
            rows = self._all_gather(_pack(text, longest))
        return [
            bytes(row[_LENGTH_BYTES : _LENGTH_BYTES + length].tolist())
            for row, length in zip(rows, lengths, strict=True)
        ]

    def _all_gather(self, block: Tensor) -> list[Tensor]:
        blocks = [torch.empty_like(block) for _ in range(self.world_size)]
        dist.all_gather(blocks, block, group=self._open_group())
        results = [part.clone() for part in blocks]
        # gloo's thread may let go of them last and needs Python's lock for that, which torch 2.1 to 2.6 hold while they
        # wait for the thread at the group's end: so they live on, without their memory
        for part in (block, *blocks):
            part.untyped_storage().resize_(0)
            self._sent.append(part)
        return results

    def _open_group(self) -> Any:
        if self._group is None:  # which would mean the program's
            raise RuntimeError("this rank has left")
        return self._group

    def _lost(self, label: str, error: RuntimeError) -> RuntimeError:
        statuses = self._store.statuses()
        failure, alone = _failure_of(statuses), waiting_alone(statuses)
        if failure is not None:
            return failure
        if alone:
            return ExchangeError(f"rank(s) {_joined(alone)} waited for the others", alone)
        # a rank that said why it went explains more than ranks that are merely not there
        left = {rank: status.left for rank, status in statuses.items() if status.left is not None and rank != self.rank}
        if left:
            why = "; ".join(dict.fromkeys(left.values()))
            return ExchangeError(f"rank(s) {_joined(left)} left the run before {label!r}: {why}", left)
        away = {rank: status.point for rank, status in statuses.items() if status.meeting < self._meetings}
        silent = [rank for rank in range(self.world_size) if rank not in statuses]
        elsewhere = away | (dict.fromkeys(silent, "") if self.rank in statuses else {})  # else the store is gone
        who = f"rank(s) {_joined(elsewhere)} did not come" if elsewhere else "a rank was lost on the way"
        limit = f"time-out {self._timeout.total_seconds():g} s"
        return ExchangeError(f"{who} to {label!r} ({limit}): {str(error).splitlines()[0]}", elsewhere)


def _failure_of(statuses: Mapping[int, RankStatus]) -> RanksFailedError | None:
    reasons = {rank: status.left or "" for rank, status in statuses.items() if status.failed}
    return RanksFailedError(reasons) if reasons else None


def _differing_versions(statuses: Mapping[int, RankStatus]) -> RanksFailedError | None:
    """The error where ranks run several versions, with those that do not run what most do."""
    ranks: dict[str, list[int]] = {}
    for rank, status in statuses.items():
        ranks.setdefault(status.version, []).append(rank)
    if len(ranks) < 2:
        return None
    listed = "; ".join(f"{version or 'unknown'} on rank(s) {_joined(ranks[version])}" for version in sorted(ranks))
    reason = f"the ranks run different versions of lightning-retrieval-guard: {listed}. Install the same one everywhere"
    usual = max(ranks.values(), key=len)
    return RanksFailedError({rank: reason for rank in sorted(statuses) if rank not in usual})


def _joined(ranks: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(ranks)))


def _compress(text: bytes) -> bytes:
    return zlib.compress(text, level=9)


def _read(block: bytes) -> tuple[str, dict[str, Any]]:
    press = zlib.decompressobj()
    text = press.decompress(block, _MOST_TEXT_BYTES)
    if not press.eof or press.unused_data:
        raise ValueError("it is not whole")
    return as_entry(json.loads(text))


def _pack(text: bytes, size: int) -> Tensor:
    head = len(text).to_bytes(_LENGTH_BYTES, "little") + text
    block = torch.zeros(size, dtype=torch.uint8)
    fits = head[:size]
    block[: len(fits)] = torch.frombuffer(bytearray(fits), dtype=torch.uint8)
    return block


def make_exchange(world_size: int) -> Exchange:
    """The exchange for this process: over all ranks where several processes run, else with itself.

    Args:
        world_size: The number of ranks that the trainer works with.

    Raises:
        WorldSizeError: ``torch.distributed`` does not connect just these ranks.
    """
    connected = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if connected != world_size:
        raise WorldSizeError(f"the trainer works on {world_size} ranks, but torch.distributed connects {connected}")
    return GroupExchange() if connected > 1 else Exchange()
