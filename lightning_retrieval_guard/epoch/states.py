"""Metrics that keep states in place of rows: what a rank reports of them, how states travel, and how they are merged.

Where ranks were fed equally often, torchmetrics combines states well, and nothing of this happens but the report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.facts import GroupFacts, KeyFacts

Reduction = Literal["sum", "mean", "max", "min", "cat"] | Callable[[Any], Any] | None
Fault = Literal["absent", "lists", "joined", "weights"]
"""Why torchmetrics cannot combine the ranks: some do not come to ``compute()``; lists of which it gathers every element
by itself have unequal lengths; a rank has nothing where others have lists of another form; or states are weighed alike
on all ranks, however often these were updated."""
# for every metric in a metric, by its path, what it was fed and what it holds
States = dict[str, "Held"]

_HEAD_BYTES = 8


class Held(NamedTuple):
    """The states of one metric on one rank.

    Attributes:
        updates: How often it was updated.
        states: By name: tensors, and lists of whatever the metric keeps.
    """

    updates: int
    states: dict[str, Any]


@dataclass(frozen=True)
class StateFacts(GroupFacts):
    """What a rank reports of one metric that keeps states, with those of the metrics in it.

    Attributes:
        metric: Its class.
        path: The user's file of the first update.
        line: The line in it.
        updates: How often it was updated.
        life: How often it was reset.
        lists: The lengths of list states of which torchmetrics gathers every element by itself.
        lacks_joined: Whether it has an empty list where torchmetrics joins the elements before it gathers.
        holds_joined: Whether it has such a list that is not joined to something like what stands for an empty one.
        averages: Whether torchmetrics takes the plain mean of states over ranks.
        stacks: Whether it gets the states of every rank to see, those of ranks without an update too.
        extremes: Whether all states are maxima or minima, so that a sample may be in them twice.
        last_of: The rank whose first sample this one has as its last one, where states without it are known or sought.
        fed_repeated: Whether it was fed a repeated sample, and nothing is sought.
        is_apart: Whether the metric holds updates by another dataloader or stage, and states without these are known.
    """

    metric: str
    path: str
    line: int
    updates: int = 0
    life: int = 0
    lists: Sequence[int] = ()
    lacks_joined: bool = False
    holds_joined: bool = False
    averages: bool = False
    stacks: bool = False
    extremes: bool = False
    last_of: int | None = None
    fed_repeated: bool = False
    is_apart: bool = False


@dataclass(frozen=True)
class StateView:
    """One metric that keeps states, on the ranks that it combines.

    Attributes:
        name: The same on every rank.
        ranks: The ranks that it combines.
        facts: What they report of it; ``None`` where a rank did not update it in this epoch.
        absent: The ranks that do not come to its ``compute()``.
        shown_by_forward: Whether all that is logged of it are values of ``forward()``, so that it may never combine.
        repeated: The samples that the sampler repeated.
        problem: Why its states cannot be merged, if they cannot; empty if not tried.
    """

    name: str
    ranks: tuple[int, ...]
    facts: tuple[StateFacts | None, ...]
    absent: tuple[int, ...] = ()
    shown_by_forward: bool = False
    repeated: int = 0
    problem: str = ""

    @property
    def present(self) -> list[StateFacts]:
        """What the ranks report that updated it."""
        return [facts for facts in self.facts if facts is not None]

    @property
    def metric(self) -> str:
        """Its class."""
        return self.present[0].metric

    @property
    def path(self) -> str:
        """The user's file of the first update."""
        return self.present[0].path

    @property
    def line(self) -> int:
        """The line in it."""
        return self.present[0].line

    @property
    def leaves_out(self) -> bool:
        """Whether states without the repeated samples are sought."""
        return self.repeated > 0 and any(facts.last_of is not None for facts in self.present)

    @property
    def is_apart(self) -> bool:
        """Whether states of one dataloader or stage alone are sought."""
        return self._any("is_apart")

    @property
    def is_wanted(self) -> bool:
        """Whether other states than those of the metric are sought, or torchmetrics cannot combine these."""
        return self.fault is not None or self.leaves_out or self.is_apart

    @property
    def counts_once(self) -> bool:
        """Whether they were found, and states without them are merged."""
        return self.leaves_out and not self.problem

    @property
    def may_count_once(self) -> bool:
        """Whether correct mode counts the repeated samples once, as far as that is known."""
        return self.counts_once or sum(facts.fed_repeated for facts in self.present) == self.repeated > 0

    @property
    def updates(self) -> tuple[int, ...]:
        """The updates on each rank."""
        return tuple(0 if facts is None else facts.updates for facts in self.facts)

    @property
    def suppressed(self) -> list[Sequence[str]]:
        """For every rank that updated it the codes and prefixes of rules that are ignored at its first update."""
        return [facts.suppressed for facts in self.present]

    @property
    def fault(self) -> Fault | None:
        """Why torchmetrics cannot combine the ranks, or ``None`` where it can."""
        if len(self.ranks) < 2 or not any(self.updates):
            return None
        if self.absent:
            return "absent"
        longest = max(len(facts.lists) for facts in self.present)
        lengths = {(0,) * longest if facts is None else tuple(facts.lists) for facts in self.facts}
        if len(lengths) > 1:
            return "lists"
        # for an empty list torchmetrics sends an empty vector, which does not join states of another form
        if any(facts is None or facts.lacks_joined for facts in self.facts) and self._any("holds_joined"):
            return "joined"
        uneven = len(set(self.updates)) > 1 and self._any("averages")
        return "weights" if uneven or (0 in self.updates and self._any("stacks")) else None

    def _any(self, attribute: str) -> bool:
        return any(getattr(facts, attribute) for facts in self.present)


def make_state_views(messages: Sequence[Mapping[str, Any]]) -> list[StateView]:
    """The metrics that any rank reports, by name; one that combines groups of ranks is there for each of them."""
    ranks = [
        {name: StateFacts.from_payload(facts) for name, facts in message.get("states", {}).items()}
        for message in messages
    ]
    names = sorted({name for states in ranks for name in states})
    keys = [[KeyFacts.from_payload(key) for key in message["keys"]] for message in messages] if names else []
    skips = {rank for rank, message in enumerate(messages) if message.get("skips")}
    repeated = min(message.get("repeated", 0) for message in messages)
    views = []
    for name in names:
        shown = [{key.kind for key in rank_keys if name in key.shows} for rank_keys in keys]
        objects = {rank for rank, kinds in enumerate(shown) if "metric" in kinds}
        # where some ranks log the object, Lightning computes it on them, and the others do not come
        absent = skips | ({*range(len(messages))} - objects if objects else set())
        by_forward = {kind for kinds in shown for kind in kinds} == {"forward"}
        for group in sorted({states[name].group or tuple(range(len(messages))) for states in ranks if name in states}):
            facts = tuple(ranks[rank].get(name) for rank in group)
            if any(facts):
                views.append(StateView(name, group, facts, tuple(sorted(absent & {*group})), by_forward, repeated))
    return views


# --- how states travel ------------------------------------------------------------------------------------------


def pack_states(metrics: Mapping[str, States | str]) -> Tensor:
    """The states of some metrics as bytes, uint8; a tensor that several of them hold is there once.

    What cannot travel is replaced by the reason, which all ranks then have.
    """
    packer = _Packer()
    tree = {name: packer.pack_metric(states) for name, states in metrics.items()}
    head = json.dumps([tree, packer.shapes], separators=(",", ":")).encode()
    size = torch.tensor([len(head)]).view(torch.uint8)
    return torch.cat([size, torch.frombuffer(bytearray(head), dtype=torch.uint8), *packer.blocks])


class _Packer:
    def __init__(self) -> None:
        self.blocks: list[Tensor] = []
        self.shapes: list[tuple[str, list[int]]] = []
        self._indexes: dict[int, int] = {}
        self._held: list[Tensor] = []

    def pack_metric(self, states: States | str) -> Any:
        if isinstance(states, str):
            return states
        try:
            return {path: [held.updates, self._pack(held.states)] for path, held in states.items()}
        except (TypeError, RuntimeError) as error:  # such as sparse tensors, of which there are no plain bytes
            return str(error).splitlines()[0]

    def _pack(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return {"tensor": self._index_of(value)}
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            return {"dict": {name: self._pack(part) for name, part in value.items()}}
        if type(value) is list:
            return [self._pack(part) for part in value]
        if type(value) is tuple:
            return {"tuple": [self._pack(part) for part in value]}
        if type(value) is bytes:
            return {"bytes": value.hex()}
        if value is None or type(value) in (bool, int, float, str):
            return value
        raise TypeError(f"it holds a thing of type {type(value).__name__}, which cannot be sent to other ranks")

    def _index_of(self, tensor: Tensor) -> int:
        if id(tensor) not in self._indexes:
            plain = tensor.detach().cpu().contiguous().reshape(-1)
            self.blocks.append(plain.view(torch.uint8))
            self._indexes[id(tensor)] = len(self.shapes)
            self.shapes.append((str(tensor.dtype).removeprefix("torch."), list(tensor.shape)))
            self._held.append(tensor)  # so that no other tensor gets its id
        return self._indexes[id(tensor)]


def unpack_states(block: Tensor) -> dict[str, States | str]:
    """Read what ``pack_states`` wrote: for every metric its states, or why they could not travel.

    Raises:
        ValueError: A tensor has a dtype that there is not.
    """
    size = int(block[:_HEAD_BYTES].clone().view(torch.int64))
    head, body = block[_HEAD_BYTES:].split([size, block.numel() - _HEAD_BYTES - size])
    tree, shapes = json.loads(bytes(head.tolist()))
    dtypes = [_dtype(name) for name, _ in shapes]
    sizes = [torch.Size(shape).numel() * dtype.itemsize for dtype, (_, shape) in zip(dtypes, shapes, strict=True)]
    # cloned, since bytes can be read as wider numbers only from an aligned beginning
    tensors = [
        part.clone().view(dtype).reshape(shape)
        for part, dtype, (_, shape) in zip(body.split(sizes), dtypes, shapes, strict=True)
    ]
    return {
        name: states
        if isinstance(states, str)
        else {path: Held(updates, _unpack(held, tensors)) for path, (updates, held) in states.items()}
        for name, states in tree.items()
    }


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype")
    return dtype


def _unpack(value: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    [(kind, held)] = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "bytes":
        return bytes.fromhex(held)
    if kind == "tuple":
        return tuple(_unpack(part, tensors) for part in held)
    return {name: _unpack(part, tensors) for name, part in held.items()}


# --- repeated samples -------------------------------------------------------------------------------------------

FIRST, LAST = "first sample", "last sample"
"""Beside the states of a metric the inputs of the first and of the last sample, where these are repeated. No path has
a blank in it."""


def seek_repeated(ranks: Sequence[States], facts: Sequence[StateFacts | None], repeated: int) -> str:
    """Why the repeated samples of a metric are not found, if so.

    Args:
        ranks: What each rank sent.
        facts: What each rank reports of the metric.
        repeated: How many samples the sampler repeated.
    """
    pairs = [
        (rank, rank_facts.last_of)
        for rank, rank_facts in enumerate(facts)
        if rank_facts is not None and rank_facts.last_of is not None
    ]
    if len(pairs) != repeated or len(ranks) != len(facts):
        return f"it was fed {len(pairs)} of {repeated} repeated samples"
    for rank, first in pairs:
        again, once = ranks[rank].get(LAST), ranks[first].get(FIRST) if first < len(ranks) else None
        if again is None or once is None or not _is_close(again.states["inputs"], once.states["inputs"]):
            return f"the last sample of rank {rank} does not have the inputs of the first of rank {first}"
    return ""


def _is_close(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        close = one.is_floating_point() or one.is_complex()
        # a model may round otherwise in a batch of another size
        return torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True) if close else torch.equal(one, other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_is_close, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_close(one[name], other[name]) for name in one)
    return bool(one == other)


# --- how states are merged --------------------------------------------------------------------------------------


def merge_states(ranks: Sequence[Held], reductions: Mapping[str, Reduction]) -> dict[str, Any]:
    """What one device would hold that was fed what these ranks were.

    Args:
        ranks: The states of the ranks that have been fed, in order of rank.
        reductions: How the metric reduces each state over ranks.

    Raises:
        TypeError, RuntimeError: The states of the ranks do not fit together.
    """
    if len(ranks) == 1:
        return ranks[0].states
    updates = [held.updates for held in ranks]
    return {name: _merge([held.states[name] for held in ranks], updates, how) for name, how in reductions.items()}


def _merge(values: Sequence[Any], updates: Sequence[int], reduction: Reduction) -> Any:
    if any(isinstance(value, list) for value in values):
        parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
        return reduction(parts) if callable(reduction) else parts
    if reduction == "cat":
        return torch.cat([value.reshape(1) if value.ndim == 0 else value for value in values])
    stacked = torch.stack(list(values))
    if reduction is None:
        return stacked
    if reduction == "mean":
        # what torchmetrics leaves out: a rank counts as often as it was updated
        weights = torch.tensor(updates, dtype=torch.float64).reshape(-1, *[1] * (stacked.ndim - 1))
        mean = (stacked.to(_wide(stacked.dtype)) * weights).sum(0) / weights.sum()
        return mean.to(stacked.dtype if stacked.is_floating_point() or stacked.is_complex() else torch.float32)
    if callable(reduction):
        return reduction(stacked)
    if reduction == "sum":
        return stacked.sum(0)
    return (stacked.max(0) if reduction == "max" else stacked.min(0)).values


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64
