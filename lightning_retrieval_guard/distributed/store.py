"""What ranks leave for each other in the store of the process group, where nobody has to be waited for.

The store may live in the process of rank zero and end with it. So after an agreement rank zero goes on last, and what
follows the last meeting needs no answer from the store.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from typing import Any

_SOON = timedelta(seconds=1)  # to read what a rank has written, if it has
# All have answered: who takes longer than this to read the answers is stuck or dead, and is missed where ranks meet.
_LONGEST_READ = timedelta(seconds=60)
_ONE_YES = 1 << 32  # ranks are counted below, those that say yes above
_LEFT = "-1"


@dataclass(frozen=True)
class RankStatus:
    """What a rank has written in the store.

    Attributes:
        version: What it runs.
        meeting: The last meeting it came to.
        starts: What it has started since then that needs all ranks.
        starts_before: What it had started between that meeting and the one before.
        point: What it is doing that needs all ranks, or an empty text.
        said_yes: The last agreement to which it said yes.
        left: Why it has left, if it has.
        failed: Whether it left because the guard failed there.
    """

    version: str = ""
    meeting: int = 0
    starts: int = 0
    starts_before: int = 0
    point: str = ""
    said_yes: int = 0
    left: str | None = None
    failed: bool = False


def waiting_alone(statuses: Mapping[int, RankStatus]) -> dict[int, str]:
    """The ranks that have started what others went past on their way to a meeting, and what that is, if it goes on."""
    last = max((status.meeting for status in statuses.values()), default=0)
    ahead = [status for status in statuses.values() if status.meeting == last]
    fewest = min((status.starts_before for status in ahead), default=0)
    starts = {
        rank: status.starts_before if status.meeting == last else status.starts for rank, status in statuses.items()
    }
    return {
        rank: status.point for rank, status in statuses.items() if status.meeting >= last - 1 and starts[rank] > fewest
    }


class RankStore:
    """A rank's end of the store.

    Args:
        store: Of torch.distributed.
        name: The same on all ranks, and of no one else.
        rank: This rank.
        world_size: The number of ranks.

    Every method but ``finish`` raises ``RuntimeError`` where the store is gone or a wait is over.
    """

    def __init__(self, store: Any, name: str, rank: int, world_size: int) -> None:
        self._store = store
        self._name = name
        self._rank = rank
        self._world_size = world_size
        self._status = RankStatus()
        self._agreements = 0
        self._old_starts: list[str] = []

    def write(self, **changes: Any) -> None:
        """Write what the others may have to know of this rank: attributes of ``RankStatus``."""
        self._status = replace(self._status, **changes)
        self._store.set(f"{self._name}/{self._rank}", json.dumps(asdict(self._status)))

    def statuses(self) -> dict[int, RankStatus]:
        """What is known of every rank that has written anything."""
        statuses: dict[int, RankStatus] = {}
        for rank in range(self._world_size):
            key = f"{self._name}/{rank}"
            try:
                self._store.wait([key], _SOON)
                statuses[rank] = _read(self._store.get(key))
            except RuntimeError:  # it never came, or the store went away with the process that held it
                continue
        return statuses

    def wait_for_all(self, version: str, timeout: timedelta) -> None:
        """Wait until all ranks have come here, or one has left."""
        self.write(version=version)
        # nobody can wait for a count, so the last to come sets a key
        if self._store.add(f"{self._name}/came", 1) == self._world_size:
            self._store.set(self._all, "")
        self._store.wait([self._all], timeout)

    def come(self, meeting: int) -> bool:
        """Write that this rank has come to a meeting; it starts nothing before that is over.

        Returns:
            Whether another rank has started what this one went past. If it does so from now on, it hears of it there.
        """
        starts = self._status.starts
        # with the one that comes next: who starts it from now on must hear that not all will
        keys = [self._start(number) for number in range(1, starts + 2)]
        self.write(meeting=meeting, point="", starts=0, starts_before=starts)
        self._go_past(keys[-1])
        went_past = bool(self._store.add(f"{keys[-1]}/came", 0) > 0)
        if self._rank == 0:  # since the last meeting nobody waits any more for what was started before it
            self._forget(*self._old_starts)
        self._old_starts = keys
        return went_past

    def start(self, point: str, timeout: timedelta, waits: bool) -> bool:
        """Write that this rank starts what needs all of them.

        Args:
            point: What that is.
            timeout: How long ranks wait for each other.
            waits: Whether to wait until all start it, or one will not.

        Returns:
            Whether no rank is known to have gone past it or left.
        """
        self.write(point=point, starts=self._status.starts + 1)
        key = self._start(self._status.starts)
        if self._store.add(f"{key}/came", 1) == self._world_size:
            self._store.set(key, "")
        if waits:
            self._store.wait([key], timeout)
        return not bool(self._store.add(f"{key}/left", 0) > 0)  # older versions of torch cannot ask for a key

    def _go_past(self, key: str) -> None:
        """Write that not all ranks will start something."""
        self._store.add(f"{key}/left", 1)
        self._store.set(key, _LEFT)

    def finish(self) -> None:
        """What was started is over; where the store is gone, so are all who could ask."""
        with contextlib.suppress(RuntimeError):
            self.write(point="")

    def agree(self, answer: bool, timeout: timedelta) -> list[bool]:
        """Wait until all ranks have answered; their answers, in order of rank. No rank needs the store afterwards."""
        self._agreements += 1
        key = self._agreement(self._agreements)
        if answer:
            self.write(said_yes=self._agreements)
        # one atomic sum counts those who came and those who said yes
        came = self._store.add(f"{key}/came", 1 + answer * _ONE_YES)
        if came % _ONE_YES == self._world_size:
            self._store.set(key, str(came // _ONE_YES))
            self._forget(self._agreement(self._agreements - 1))  # all have read it, or they would not be here
        self._store.wait([key], timeout)
        yes = int(self._store.get(key))
        if yes < 0:
            raise RuntimeError("a rank has left")
        # the common case, in which all say no, needs no further reading
        statuses = self.statuses() if yes else {}
        self._end_reading(key, timeout)
        return [rank in statuses and statuses[rank].said_yes == self._agreements for rank in range(self._world_size)]

    def _end_reading(self, key: str, timeout: timedelta) -> None:
        """Rank zero goes on when the others have read the answers."""
        if self._rank > 0:
            if self._store.add(f"{key}/read", 1) == self._world_size - 1:
                self._store.set(f"{key}/over", "")
            return
        with contextlib.suppress(RuntimeError):  # what was agreed stands
            self._store.wait([f"{key}/over"], min(timeout, _LONGEST_READ))

    def leave(self, reason: str, failed: bool) -> None:
        """Write why this rank goes; who waits for all, now or later, need not wait for it."""
        self.write(left=reason, failed=failed)
        self._store.set(self._all, "")
        # rank zero may be waiting for this rank to read the answers
        self._store.set(f"{self._agreement(self._agreements)}/over", "")
        self._store.set(self._agreement(self._agreements + 1), _LEFT)
        self._go_past(self._start(self._status.starts + 1))

    @property
    def _all(self) -> str:
        return f"{self._name}/all"

    def _agreement(self, number: int) -> str:
        """The key that comes to be when all have answered or one has left: how many said yes, or that."""
        return f"{self._name}/agreed/{number}"

    def _start(self, number: int) -> str:
        """The key that comes to be when all have started something after the last meeting, or one will not."""
        return f"{self._name}/started/{self._status.meeting}/{number}"

    def _forget(self, *keys: str) -> None:
        for key in keys:
            for part in ("", "/came", "/left", "/read", "/over"):
                self._store.delete_key(f"{key}{part}")


def _read(written: bytes) -> RankStatus:
    """A status; another version may have written other fields beside those that are read here."""
    values = json.loads(written)
    return RankStatus(**{field.name: values[field.name] for field in fields(RankStatus) if field.name in values})
