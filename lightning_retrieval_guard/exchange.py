"""The only module that talks to torch.distributed.

How ranks meet:

1. Each rank writes to the store that it has come; writing waits for nobody.
2. One ``all_gather`` of a frame of fixed size, on a gloo group of the guard's own, with that group's time-out.
   A frame holds a label and a message, compressed. Where one message is too long, a second gather of the longest
   length follows, and the frame is larger from then on, on all ranks.
3. What came is checked before it is used, in the same way on all ranks. The labels must agree; otherwise the ranks are
   at different points of the program.
4. What the messages call for follows: ``send_blocks`` from each rank to each (one ``all_to_all_single``), and
   ``gather_blocks`` from each rank to all (one ``all_gather``); every rank knows all sizes beforehand.
5. On a time-out or a lost connection the store tells which ranks did not come.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import override

_FRAME_BYTES = 384
_LENGTH_BYTES = 4
# No message is nearly as long; what claims to be is not one, and memory is not spent on it.
_MOST_BYTES = 1 << 22
_MOST_TEXT_BYTES = 1 << 26
_instances = 0

Told = TypeVar("Told")
Read = TypeVar("Read")


class ExchangeError(RuntimeError):
    """The ranks did not meet.

    Attributes:
        elsewhere: What is known of the ranks that were not there: where each is, or an empty text.
    """

    def __init__(self, message: str, elsewhere: Mapping[int, str]) -> None:
        super().__init__(message)
        self.elsewhere = dict(elsewhere)


class UnreadableError(ValueError):
    """What some ranks sent is not what this version of the guard sends; all ranks find that out together.

    Attributes:
        reasons: What is wrong, by rank.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        told = "; ".join(f"rank {rank} sent what cannot be read: {reason}" for rank, reason in reasons.items())
        super().__init__(f"{told}. All ranks must run the same version of lightning-retrieval-guard.")
        self.reasons = dict(reasons)


def read_all(read: Callable[[Told], Read], told: Sequence[Told]) -> list[Read]:
    """Read what every rank sent.

    Args:
        read: Reads what one rank sent; raises ``ValueError`` where it is malformed.
        told: What was sent, in order of rank.

    Raises:
        UnreadableError: With all ranks that sent something malformed.
    """
    results = [_try(read, own) for own in told]
    wrong = {rank: str(result) for rank, result in enumerate(results) if isinstance(result, Exception)}
    if wrong:
        raise UnreadableError(wrong)
    return [result for result in results if not isinstance(result, Exception)]


def _try(read: Callable[[Told], Read], told: Told) -> Read | Exception:
    try:
        return read(told)
    except (zlib.error, ValueError, RecursionError) as error:
        return error


class WorldSizeError(RuntimeError):
    """The trainer and ``torch.distributed`` disagree about the ranks."""


class Exchange:
    """Exchanges messages between the ranks; with one process it hands back what it gets."""

    rank = 0
    world_size = 1
    vocabulary = b""
    """What messages are likely to contain, the same on all ranks: it need not travel."""

    @property
    def speaks(self) -> bool:
        """Whether this process is the one that warns, prints and writes."""
        return self.rank == 0

    def meet(self, label: str, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Exchange one message with every rank.

        Args:
            label: Names the point of the program; must be the same on all ranks.
            message: Anything that JSON can hold.

        Returns:
            The messages of all ranks, in order of rank.

        Raises:
            ExchangeError: A rank did not come, or came from another point of the program.
            UnreadableError: A rank sent something else than a label and a message.
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

    def send_blocks(self, blocks: Sequence[Tensor], sizes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Send one block of bytes to every rank, this one included, and receive one from every rank.

        Args:
            blocks: For every rank its bytes, uint8 of shape ``(sizes[self.rank][rank],)``.
            sizes: For every sender the number of bytes for every receiver, the same on all ranks.

        Returns:
            The blocks for this rank, uint8, in order of their senders.
        """
        return list(blocks)

    def ranks_of(self, group: Any) -> list[int]:
        """The ranks of a process group; of ``None`` all ranks."""
        return list(range(self.world_size))

    def announce(self, point: str) -> None:
        """Tell, without waiting for anyone, that this rank starts something that needs all ranks; empty when done."""

    def close(self) -> None:
        """Give up the group. May be called twice."""


class GroupExchange(Exchange):
    """Exchanges through a gloo group of its own over all ranks."""

    def __init__(self, timeout: timedelta) -> None:
        global _instances
        _instances += 1
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._timeout = timeout
        self._frame_bytes = _FRAME_BYTES
        self._meetings = 0
        # every rank makes its guards in the same order, so the number names the same guard everywhere
        self._name = f"lightning_retrieval_guard/{_instances}"
        self._store: Any = dist.distributed_c10d._get_default_store()
        self._come(0)
        self.announce("")
        self._group: Any = dist.new_group(backend="gloo", timeout=timeout)

    @override
    def meet(self, label: str, message: dict[str, Any]) -> list[dict[str, Any]]:
        self._meetings += 1
        text = self._compress(json.dumps([label, message], separators=(",", ":")).encode())
        try:
            self._come(self._meetings)
            texts = self._gather_texts(text)
        except RuntimeError as error:
            raise self._lost(label, error) from error
        entries = read_all(self._read, texts)
        labels = [label for label, _ in entries]
        if len(set(labels)) > 1:
            points = ", ".join(f"rank {rank} at {at!r}" for rank, at in enumerate(labels))
            usual = max(Counter(labels).values())
            apart = {rank: at for rank, at in enumerate(labels) if labels.count(at) < usual or "/compute/" in at}
            raise ExchangeError(f"the ranks are at different points of the program: {points}", apart)
        return [told for _, told in entries]

    @override
    def gather_blocks(self, block: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        longest = max(sizes)
        if longest == 0:
            return [block.new_empty(0) for _ in sizes]
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: block.numel()] = block
        try:
            gathered = self._all_gather(padded)
        except RuntimeError as error:
            raise self._lost("rows", error) from error
        return [whole[:size] for whole, size in zip(gathered, sizes, strict=True)]

    @override
    def send_blocks(self, blocks: Sequence[Tensor], sizes: Sequence[Sequence[int]]) -> list[Tensor]:
        incoming = [own[self.rank] for own in sizes]
        received = torch.empty(sum(incoming), dtype=torch.uint8)
        try:
            dist.all_to_all_single(received, torch.cat(list(blocks)), incoming, list(sizes[self.rank]), self._group)
        except RuntimeError as error:
            raise self._lost("rows", error) from error
        return list(received.split(incoming))

    @override
    def ranks_of(self, group: Any) -> list[int]:
        return super().ranks_of(group) if group is None else sorted(dist.get_process_group_ranks(group))

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
            raise UnreadableError(too_long)
        longest = max(lengths) + _LENGTH_BYTES
        if longest > frame:
            self._frame_bytes = 2 * longest
            rows = self._all_gather(_pack(text, longest))
        return [
            bytes(row[_LENGTH_BYTES : _LENGTH_BYTES + length].tolist())
            for row, length in zip(rows, lengths, strict=True)
        ]

    def _compress(self, text: bytes) -> bytes:
        press = zlib.compressobj(level=9, zdict=self.vocabulary)
        return press.compress(text) + press.flush()

    def _read(self, block: bytes) -> tuple[str, dict[str, Any]]:
        return _as_entry(json.loads(self._decompress(block)))

    def _decompress(self, block: bytes) -> bytes:
        press = zlib.decompressobj(zdict=self.vocabulary)
        text = press.decompress(block, _MOST_TEXT_BYTES)
        if not press.eof or press.unused_data:
            raise ValueError("it is not whole")
        return text

    def _all_gather(self, block: Tensor) -> list[Tensor]:
        blocks = [torch.empty_like(block) for _ in range(self.world_size)]
        dist.all_gather(blocks, block, group=self._group)
        return blocks

    @override
    def announce(self, point: str) -> None:
        self._store.set(f"{self._name}/{self.rank}/point", point)

    def _come(self, meeting: int) -> None:
        self._store.set(f"{self._name}/{self.rank}/meeting", str(meeting))

    def _lost(self, label: str, error: RuntimeError) -> ExchangeError:
        elsewhere = self._elsewhere()
        ranks = ", ".join(map(str, elsewhere))
        who = f"rank(s) {ranks} did not come" if elsewhere else "a rank was lost on the way"
        limit = f"time-out {self._timeout.total_seconds():g} s"
        return ExchangeError(f"{who} to {label!r} ({limit}): {str(error).splitlines()[0]}", elsewhere)

    def _elsewhere(self) -> dict[int, str]:
        """The ranks that have not come to this meeting, each with what it announced."""
        missing: dict[int, str] = {}
        for rank in range(self.world_size):
            try:
                came = int(self._store.get(f"{self._name}/{rank}/meeting"))
                point = self._store.get(f"{self._name}/{rank}/point").decode()
            except RuntimeError:  # the store went away with the process that held it
                return missing
            if came < self._meetings:
                missing[rank] = point
        return missing


def _as_entry(told: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(told, list) and len(told) == 2 and isinstance(told[0], str) and isinstance(told[1], dict):
        return told[0], told[1]
    raise ValueError("it is no label with a message")


def _pack(text: bytes, size: int) -> Tensor:
    head = len(text).to_bytes(_LENGTH_BYTES, "little") + text
    block = torch.zeros(size, dtype=torch.uint8)
    fits = head[:size]
    block[: len(fits)] = torch.frombuffer(bytearray(fits), dtype=torch.uint8)
    return block


def make_exchange(timeout: timedelta, world_size: int) -> Exchange:
    """The exchange for this process: over all ranks where several processes run, else with itself.

    Args:
        timeout: How long ranks wait for each other.
        world_size: The number of ranks that the trainer works with.

    Raises:
        WorldSizeError: ``torch.distributed`` does not connect just these ranks.
    """
    connected = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if connected != world_size:
        raise WorldSizeError(f"the trainer works on {world_size} ranks, but torch.distributed connects {connected}")
    return GroupExchange(timeout) if connected > 1 else Exchange()
