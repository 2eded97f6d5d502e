"""What ranks tell each other in the store of the process group, where nobody has to be waited for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

_SOON = timedelta(seconds=1)  # to read what a rank has told, if it has
_ONE_YES = 1 << 32  # ranks are counted below, those that say yes above
_LEFT = "-1"


@dataclass(frozen=True)
class RankStatus:
    """What a rank tells in the store.

    Attributes:
        meeting: The last meeting it came to.
        point: What it does that needs all ranks, or an empty text.
        said_yes: The last agreement to which it said yes.
        alone: Whether it has found that not all ranks do it.
        left: Why it has left, if it has.
        failed: Whether it left because the guard failed there.
    """

    meeting: int = 0
    point: str = ""
    said_yes: int = 0
    alone: bool = False
    left: str | None = None
    failed: bool = False


class RankStore:
    """A rank's end of the store.

    Args:
        store: Of torch.distributed.
        name: The same on all ranks, and of no one else.
        rank: This rank.
        world_size: The number of ranks.

    Every method raises ``RuntimeError`` where the store is gone or a wait is over.
    """

    def __init__(self, store: Any, name: str, rank: int, world_size: int) -> None:
        self._store = store
        self._name = name
        self._rank = rank
        self._world_size = world_size
        self._state = RankStatus()
        self._agreements = 0
        # since the last meeting
        self._starts = 0
        self._begun: list[str] = []

    def tell(self, **news: Any) -> None:
        """Write what the others may have to know of this rank: attributes of ``RankStatus``."""
        self._state = replace(self._state, **news)
        self._store.set(f"{self._name}/{self._rank}", json.dumps(asdict(self._state)))

    def states(self) -> dict[int, RankStatus]:
        """What is known of every rank that has told anything."""
        found: dict[int, RankStatus] = {}
        for rank in range(self._world_size):
            key = f"{self._name}/{rank}"
            try:
                self._store.wait([key], _SOON)
                found[rank] = RankStatus(**json.loads(self._store.get(key)))
            except RuntimeError:  # it never came, or the store went away with the process that held it
                continue
        return found

    def wait_for_all(self, timeout: timedelta) -> None:
        """Wait until all ranks have come here, or one has left."""
        self.tell()
        if self._store.add(f"{self._name}/came", 1) == self._world_size:
            self._store.set(self._all, "")
        self._store.wait([self._all], timeout)

    def come(self, meeting: int) -> None:
        """Tell that this rank has come to a meeting; it starts nothing before that is over."""
        self._release()
        begun = [self._start(number) for number in range(1, self._starts + 2)]
        self.tell(meeting=meeting, point="")
        if self._rank == 0:  # since the last meeting nobody waits any more for what was started before it
            self._forget(*self._begun)
        self._begun, self._starts = begun, 0

    def start(self, point: str, timeout: timedelta) -> bool:
        """Wait until all ranks start what needs all of them, and tell whether they do.

        Args:
            point: What that is.
            timeout: How long ranks wait for each other.
        """
        self._starts += 1
        self.tell(point=point)
        key = self._start(self._starts)
        if self._store.add(f"{key}/came", 1) == self._world_size:
            self._store.set(key, "")
        self._store.wait([key], timeout)
        return bool(self._store.get(key) != _LEFT.encode())

    def agree(self, answer: bool, timeout: timedelta) -> list[bool]:
        """Wait until all ranks have answered; their answers, in order of rank."""
        self._agreements += 1
        point = self._agreement(self._agreements)
        if answer:
            self.tell(said_yes=self._agreements)
        came = self._store.add(f"{point}/came", 1 + answer * _ONE_YES)
        if came % _ONE_YES == self._world_size:
            self._store.set(point, str(came // _ONE_YES))
            self._forget(self._agreement(self._agreements - 1))  # all have read it, or they would not be here
        self._store.wait([point], timeout)
        yes = int(self._store.get(point))
        if yes < 0:
            raise RuntimeError("a rank has left")
        states = self.states() if yes else {}
        return [rank in states and states[rank].said_yes == self._agreements for rank in range(self._world_size)]

    def leave(self, reason: str, failed: bool) -> None:
        """Tell why this rank goes; who waits for all, now or later, need not wait for it."""
        self.tell(left=reason, failed=failed)
        self._store.set(self._all, "")
        self._store.set(self._agreement(self._agreements + 1), _LEFT)
        self._release()

    def _release(self) -> None:
        """Let nobody wait for this rank to start anything more."""
        self._store.set(self._start(self._starts + 1), _LEFT)

    @property
    def _all(self) -> str:
        return f"{self._name}/all"

    def _agreement(self, number: int) -> str:
        """The key that comes to be when all have answered or one has left: how many said yes, or that."""
        return f"{self._name}/agreed/{number}"

    def _start(self, number: int) -> str:
        """The key that comes to be when all have started something after the last meeting, or one will not."""
        return f"{self._name}/started/{self._state.meeting}/{number}"

    def _forget(self, *keys: str) -> None:
        for key in keys:
            self._store.delete_key(key)
            self._store.delete_key(f"{key}/came")
