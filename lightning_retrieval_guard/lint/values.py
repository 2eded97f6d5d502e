"""What is known of a value; what is not known is left out, and nothing follows from it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from lightning_retrieval_guard.lint.source import SourceFile

# What a value surely depends on: data of this rank alone, rows of all ranks, or perhaps either. A value with the empty
# set is the same on every rank.
Origins = frozenset[Literal["rank", "gathered", "unsure"]]
SAME, RANK, GATHERED, UNSURE = Origins(), Origins({"rank"}), Origins({"gathered"}), Origins({"unsure"})

# What a dimension counts: samples of a batch, or samples or batches that this rank saw in the epoch.
Count = Literal["batch", "rank"]

# Numbers with a meaning in a distributed run. A product is one with the number of devices; a share is divided by it.
Symbol = Literal["devices", "product", "share", "global rank", "is rank zero"]


@dataclass(frozen=True, kw_only=True)
class Value:
    """Anything; by itself something of which nothing is known, a Metric object perhaps."""

    origin: Origins = UNSURE
    rows: Count | None = None  # what its first dimension counts
    size: Count | None = None  # what it is the number of
    ids: Count | None = None  # what its numbers start again with, where they count samples or batches
    ndim: int | None = None
    scores: tuple[Score, ...] = ()  # the metric values that it is, or is made of
    symbol: Symbol | None = None
    is_batch: bool = False  # a batch, whose items all have the samples first
    line: int = field(default=0, compare=False)  # where ids were made or rows were gathered


UNKNOWN = Value()


@dataclass(frozen=True)
class Data(Value):
    """A number or tensor."""

    origin: Origins = SAME
    factor: ast.expr | None = field(default=None, compare=False)  # what is multiplied with the number of devices


@dataclass(frozen=True)
class Const(Value):
    """A constant of Python."""

    value: object
    origin: Origins = field(default=SAME, kw_only=True)


NONE = Const(None)


@dataclass(frozen=True)
class Text(Value):
    """A string of which only the pattern is known; without one it may be any."""

    pattern: str = ""
    origin: Origins = field(default=SAME, kw_only=True)


@dataclass(frozen=True)
class Shape(Value):
    """The shape of a tensor."""

    of: Data


@dataclass(frozen=True)
class Reference(Value):
    """Something that is imported, or an attribute of the object of which nothing is known, by its full dotted name."""

    dotted: str


SELF = Reference("self")  # the object whose methods run


@dataclass(frozen=True)
class Listing(Value):
    """A list or tuple: its items one by one, or at most one that stands for any number of them."""

    items: tuple[Value, ...] = ()
    is_exact: bool = True
    is_module: bool = False


def many(*items: Value, rows: Count | None = None) -> Listing:
    """A list of any length of such items."""
    return Listing((joined(items),) if items else (), is_exact=False, rows=rows)


@dataclass(frozen=True)
class Mapping(Value):
    """A dictionary, with what stands under keys that are not known as ``rest``."""

    items: dict[Any, Value] = field(default_factory=dict)
    rest: Value | None = None
    is_module: bool = False

    @property
    def values(self) -> list[Value]:
        """What stands under any key."""
        return [*self.items.values(), *([] if self.rest is None else [self.rest])]

    def get(self, key: Value) -> Value:
        """What stands under a key, or all that may."""
        return self.items.get(key.value, self.rest or UNKNOWN) if isinstance(key, Const) else joined(self.values)

    def with_item(self, key: Value, value: Value) -> Mapping:
        """This dictionary with one more item."""
        return self.merged(Mapping({key.value: value}) if isinstance(key, Const) else Mapping(rest=value))

    def merged(self, other: Value) -> Mapping:
        """This dictionary with the items of another."""
        if not isinstance(other, Mapping):
            other = Mapping(rest=UNKNOWN)
        return replace(self, items=self.items | other.items, rest=_join_optional(self.rest, other.rest))


@dataclass(frozen=True)
class MetricCall:
    """A call that builds a metric, and the file it stands in."""

    kind: str  # the class, such as "RetrievalRecall"
    is_synced: bool  # compute() surely combines ranks
    call: ast.Call
    source: SourceFile

    @property
    def is_retrieval(self) -> bool:
        """Whether it groups rows by query ids."""
        return self.kind.startswith("Retrieval")

    def option(self, name: str) -> object:
        """A constant that was passed by name; ``None`` where there is none, ``...`` where it is no constant."""
        return constant_keywords(self.call).get(name)


def constant_keywords(call: ast.Call) -> dict[str | None, object]:
    """What a call passes by name; ``...`` stands for what is no constant."""
    passed = [(keyword.arg, keyword.value) for keyword in call.keywords]
    return {name: value.value if isinstance(value, ast.Constant) else ... for name, value in passed}


@dataclass(frozen=True)
class Metric(Value):
    """A metric or a MetricCollection."""

    choices: tuple[tuple[MetricCall, ...], ...]  # the members of each metric that it may be; it surely is one of them
    is_collection: bool = False
    name: str = field(default="", compare=False)  # as the source names it
    identity: object = None  # where it was made, or the attribute that holds it

    @property
    def members(self) -> list[MetricCall]:
        """All members of all metrics that it may be."""
        return [member for members in self.choices for member in members]

    def surely(self, test: Callable[[MetricCall], bool]) -> bool:
        """Whether a member fulfils the test, whichever metric it is."""
        return bool(self.choices) and all(any(map(test, members)) for members in self.choices)

    def is_same(self, other: Metric | None) -> bool:
        """Whether both surely are one object."""
        return other is not None and self.identity == other.identity

    @property
    def single(self) -> Metric:
        """One of the members, whichever."""
        return replace(self, choices=tuple((member,) for member in self.members), is_collection=False)

    @property
    def label(self) -> str:
        """The metric in words."""
        kind = "MetricCollection" if self.is_collection else self.members[0].kind
        return f"{self.name} ({kind})" if self.name else kind


@dataclass(frozen=True)
class Score:
    """A value of a metric."""

    how: Literal["forward", "compute", "functional"]
    metric: Metric | None = None  # None for a function
    is_local: bool = False  # rows of this rank alone surely went into it
    is_exact: bool = True  # nothing was done with it since
    name: str = ""  # of the function


class Arguments(NamedTuple):
    """What a call passes."""

    values: list[Value]
    keywords: dict[str, Value]
    is_complete: bool = True

    @property
    def all(self) -> list[Value]:
        """Everything that is passed."""
        return [*self.values, *self.keywords.values()]

    @property
    def first(self) -> Value:
        """What is passed first, by position."""
        return self.values[0] if self.values else UNKNOWN

    def get(self, position: int, name: str) -> Value | None:
        """What is passed by name or position."""
        return self.keywords.get(name, self.values[position] if len(self.values) > position else None)


# --- what values are made of ----------------------------------------------------------------------------------------


def contents(value: Value) -> list[Value] | None:
    """The items of a list, tuple or dictionary; ``None`` for anything else."""
    if isinstance(value, Listing):
        return list(value.items)
    return value.values if isinstance(value, Mapping) else None


def leaves(*values: Value) -> Iterator[Value]:
    """The values, with what they hold instead of lists and dictionaries."""
    for value in values:
        items = contents(value)
        if items is None:
            yield value
        else:
            yield from leaves(*items)


def made_of(*values: Value) -> Data:
    """A number or tensor that is made of these, with nothing else known of it."""
    return Data(SAME.union(*(leaf.of.origin if isinstance(leaf, Shape) else leaf.origin for leaf in leaves(*values))))


def as_data(value: Value) -> Data:
    """A value as a number or tensor."""
    return value if isinstance(value, Data) else made_of(value)


def item_of(value: Value) -> Value:
    """What each item of what is iterated is."""
    if isinstance(value, Data):
        # a batch may be iterated by its columns or by its samples
        return made_of(value) if value.is_batch else Data(value.origin, ids=value.ids, line=value.line)
    return Text() if isinstance(value, Mapping) else joined(contents(value) or ())


def metrics_in(*values: Value) -> list[Metric]:
    """The metrics that values are or hold."""
    return [leaf for leaf in leaves(*values) if isinstance(leaf, Metric)]


def scores_of(value: Value) -> tuple[Score, ...]:
    """The metric values that a value surely consists of; none where something else is in it."""
    scores = [leaf.scores for leaf in leaves(value)]
    return tuple(dict.fromkeys(chain.from_iterable(scores))) if all(scores) else ()


def mapped(value: Value, change: Callable[[Value], Value]) -> Value:
    """The same lists and dictionaries with other items."""
    if isinstance(value, Listing):
        return replace(value, items=tuple(mapped(item, change) for item in value.items))
    if isinstance(value, Mapping):
        items = {key: mapped(item, change) for key, item in value.items.items()}
        return replace(value, items=items, rest=None if value.rest is None else mapped(value.rest, change))
    return change(value)


# --- one value or the other -----------------------------------------------------------------------------------------


def joined(values: Iterable[Value]) -> Value:
    """What holds of each of the values."""
    return _join_optional(*values) or UNKNOWN


def _join_optional(*values: Value | None) -> Value | None:
    known = [value for value in values if value is not None]
    return reduce(join, known) if known else None


def join(one: Value, other: Value) -> Value:
    """What holds of both values; ``None`` of Python says nothing, as its use fails."""
    if one == other or other == NONE:
        return one
    if one == NONE:
        return other
    # a metric that is one of two is judged where a rule holds of both
    if isinstance(one, Metric) and isinstance(other, Metric) and one.is_collection == other.is_collection:
        identity = one.identity if one.identity == other.identity else None
        choices = tuple(dict.fromkeys(one.choices + other.choices))
        return Metric(choices, one.is_collection, one.name, identity)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        items = {key: join(one.items.get(key, NONE), other.items.get(key, NONE)) for key in one.items | other.items}
        return Mapping(items, _join_optional(one.rest, other.rest), one.is_module and other.is_module)
    if isinstance(one, Listing) and isinstance(other, Listing):
        return _join_lists(one, other)
    if isinstance(one, (Data, Const)) and isinstance(other, (Data, Const)):
        return _join_data(as_data(one), as_data(other))
    return UNKNOWN


def _join_lists(one: Listing, other: Listing) -> Listing:
    is_module = one.is_module and other.is_module
    if one.is_exact and other.is_exact and len(one.items) == len(other.items):
        return Listing(tuple(map(join, one.items, other.items)), is_module=is_module)
    # an empty list says nothing of what its items count
    rows = {listing.rows for listing in (one, other) if listing.items}
    return replace(many(*one.items, *other.items, rows=rows.pop() if len(rows) == 1 else None), is_module=is_module)


def _join_data(one: Data, other: Data) -> Data:
    # a counter is a constant at first, such as 0, and counts afterwards
    both_count = all(value.ids or not value.origin for value in (one, other))
    return Data(
        origin=one.origin if one.origin == other.origin else UNSURE,
        rows=one.rows if one.rows == other.rows else None,
        size=one.size if one.size == other.size else None,
        ndim=one.ndim if one.ndim == other.ndim else None,
        ids=one.ids if one.ids == other.ids else ("rank" if both_count else None),
        scores=tuple(dict.fromkeys(one.scores + other.scores)) if one.scores and other.scores else (),
        symbol=one.symbol if one.symbol == other.symbol else None,
        is_batch=one.is_batch and other.is_batch,
        line=one.line or other.line,
    )
