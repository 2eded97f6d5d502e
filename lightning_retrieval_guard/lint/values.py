"""What is known of a value; what is not known is left out, and nothing follows from it."""

from __future__ import annotations

import ast
import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_retrieval_guard.lint.modules import ClassInfo, Function, Module


class Origin(enum.Enum):
    """What a value surely depends on."""

    RANK = enum.auto()
    """Data of this rank alone."""
    GATHERED = enum.auto()
    UNSURE = enum.auto()


class Lead(enum.Enum):
    """What a dimension counts."""

    BATCH = "batch"
    RANK = "rank"
    """Samples or batches that this rank saw in the epoch."""


class Symbol(enum.Enum):
    """Numbers that have a meaning in a distributed run."""

    DEVICES = enum.auto()
    PRODUCT = enum.auto()
    """A product with the number of devices."""
    SHARE = enum.auto()
    """Something divided by the number of devices."""
    GLOBAL_RANK = enum.auto()
    IS_ZERO = enum.auto()


class Value:
    """Anything that is known."""


@dataclass(frozen=True)
class Data(Value):
    """A number or tensor.

    Attributes:
        origin: What it depends on; nothing means the same on every rank.
        lead: What its first dimension counts.
        size: What it is the number of.
        ndim: The number of its dimensions.
        ids: What its numbers start again with, where they count samples or batches.
        scores: The metric values that it is, or is made of.
        symbol: Its meaning in a distributed run.
        is_batch: Whether it is a batch, whose items all have the samples first.
        line: Where ids were made or rows were gathered.
        factor: What is multiplied with the number of devices.
    """

    origin: frozenset[Origin] = frozenset()
    lead: Lead | None = None
    size: Lead | None = None
    ndim: int | None = None
    ids: Lead | None = None
    scores: tuple[Score, ...] = ()
    symbol: Symbol | None = None
    is_batch: bool = False
    line: int = field(default=0, compare=False)
    factor: ast.expr | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Unknown(Data):
    """Something that may be anything, a Metric object as well."""

    origin: frozenset[Origin] = frozenset({Origin.UNSURE})


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Score(Value):
    """A value of a metric.

    Attributes:
        how: ``"forward"``, ``"compute"`` or ``"functional"``.
        metric: The metric; ``None`` for a function.
        is_own: Whether rows of this rank alone surely went into it.
        is_exact: Whether nothing was done with it since.
        name: Of the function.
    """

    how: str
    metric: Metric | None = None
    is_own: bool = False
    is_exact: bool = True
    name: str = ""


@dataclass(frozen=True)
class Const(Value):
    """A constant of Python, the same on every rank."""

    value: object


@dataclass(frozen=True)
class Text(Value):
    """A string of which only the pattern is known; without one it may be any."""

    pattern: str = ""


@dataclass(frozen=True)
class Items(Value):
    """A list or tuple whose items are known one by one."""

    items: tuple[Value, ...]
    is_module: bool = False


@dataclass(frozen=True)
class Many(Value):
    """A list of any length.

    Attributes:
        item: What each item is; ``None`` where nothing was put in.
        lead: What its items count.
        is_module: Whether it is a ModuleList.
    """

    item: Value | None = None
    lead: Lead | None = None
    is_module: bool = False


@dataclass(frozen=True)
class Mapping(Value):
    """A dictionary, with what stands under keys that are not known as ``rest``."""

    items: tuple[tuple[object, Value], ...] = ()
    rest: Value | None = None
    is_module: bool = False

    def get(self, key: Value) -> Value:
        """What stands under a key, or all that may."""
        known = dict(self.items)
        if isinstance(key, Const) and key.value in known:
            return known[key.value]
        options = self.all() if not isinstance(key, Const) else ([] if self.rest is None else [self.rest])
        return joined(options) if options else UNKNOWN

    def merged(self, other: Mapping) -> Mapping:
        """This dictionary with the items of another."""
        rest = [own.rest for own in (self, other) if own.rest is not None]
        items = {**dict(self.items), **dict(other.items)}
        return replace(self, items=tuple(items.items()), rest=joined(rest) if rest else None)

    def all(self) -> list[Value]:
        """Every item."""
        return [item for _, item in self.items] + ([] if self.rest is None else [self.rest])


@dataclass(frozen=True)
class Shape(Value):
    """The shape of a tensor."""

    of: Data


@dataclass(frozen=True)
class Built:
    """A call that builds a metric.

    Attributes:
        kind: The class, such as ``"RetrievalRecall"``.
        is_synced: Whether ``compute()`` surely combines ranks.
        call: The call.
        module: The file it stands in.
    """

    kind: str
    is_synced: bool
    call: ast.Call
    module: Module

    @property
    def is_retrieval(self) -> bool:
        """Whether it groups rows by query ids."""
        return self.kind.startswith("Retrieval")

    def option(self, name: str) -> object:
        """A constant that was passed by name; ``None`` where there is none, ``...`` where it is no constant."""
        given = [own.value for own in self.call.keywords if own.arg == name]
        if not given:
            return None
        return given[0].value if isinstance(given[0], ast.Constant) else ...


@dataclass(frozen=True)
class Metric(Value):
    """A metric or a MetricCollection.

    Attributes:
        choices: The members of each metric that it may be; it surely is one of them.
        is_collection: Whether it is a MetricCollection.
        name: As the source names it.
        place: Where it was made, or the attribute that holds it.
    """

    choices: tuple[tuple[Built, ...], ...]
    is_collection: bool = False
    name: str = field(default="", compare=False)
    place: object = None

    def surely(self, test: Callable[[Built], bool]) -> bool:
        """Whether a member fulfils the test, whichever metric it is."""
        return bool(self.choices) and all(any(map(test, members)) for members in self.choices)

    @property
    def members(self) -> list[Built]:
        """All members of all metrics that it may be."""
        return [own for members in self.choices for own in members]

    @property
    def label(self) -> str:
        """The metric in words."""
        kind = "MetricCollection" if self.is_collection else self.members[0].kind
        return f"{self.name} ({kind})" if self.name else kind


@dataclass(frozen=True)
class Reference(Value):
    """Something that is imported, by its full dotted name."""

    dotted: str


@dataclass(frozen=True)
class Method(Value):
    """A function that is bound to an object, and is looked up where it is called."""

    owner: Value
    name: str


@dataclass(frozen=True)
class Callee(Value):
    """A function of the source."""

    function: Function
    module: Module
    cls: ClassInfo | None = None
    instance: Value | None = None


def unsure(*values: Value) -> Data:
    """A number or tensor that is made of these, with nothing else known of it."""
    return Data(frozenset().union(*map(origin_of, values)))


def origin_of(value: Value) -> frozenset[Origin]:
    """What a value depends on."""
    if isinstance(value, Data):
        return value.origin
    if isinstance(value, Shape):
        return value.of.origin
    if isinstance(value, (Const, Text)):
        return frozenset()
    inner = contents(value)
    return frozenset().union(*map(origin_of, inner)) if inner is not None else UNKNOWN.origin


def contents(value: Value) -> list[Value] | None:
    """The items of a list, tuple or dictionary; ``None`` for anything else."""
    if isinstance(value, Items):
        return list(value.items)
    if isinstance(value, Many):
        return [] if value.item is None else [value.item]
    return value.all() if isinstance(value, Mapping) else None


def scores_of(value: Value) -> tuple[Score, ...]:
    """The metric values that a value surely consists of; none where something else is in it."""
    if isinstance(value, Data):
        return value.scores
    inner = contents(value)
    found = [scores_of(own) for own in inner or ()]
    return tuple(dict.fromkeys(own for part in found for own in part)) if all(found) else ()


def metrics_in(value: Value) -> list[Metric]:
    """The metrics that a value is or holds."""
    if isinstance(value, Metric):
        return [value]
    return [own for inner in contents(value) or () for own in metrics_in(inner)]


def mapped(value: Value, change: Callable[[Value], Value]) -> Value:
    """The same lists and dictionaries with other items."""
    if isinstance(value, Items):
        return replace(value, items=tuple(mapped(own, change) for own in value.items))
    if isinstance(value, Many) and value.item is not None:
        return replace(value, item=mapped(value.item, change))
    if isinstance(value, Mapping):
        rest = None if value.rest is None else mapped(value.rest, change)
        return replace(value, items=tuple((key, mapped(own, change)) for key, own in value.items), rest=rest)
    return change(value)


# --- one value or the other -----------------------------------------------------------------------------------------


def joined(values: Iterable[Value]) -> Value:
    """What holds of each of the values."""
    result: Value | None = None
    for own in values:
        result = own if result is None else join(result, own)
    return UNKNOWN if result is None else result


def join(one: Value, other: Value) -> Value:
    """What holds of both values; ``None`` of Python says nothing, as its use fails."""
    if one == other or other == Const(None):
        return one
    if one == Const(None):
        return other
    if isinstance(one, Metric) and isinstance(other, Metric) and one.is_collection == other.is_collection:
        choices = tuple(dict.fromkeys((*one.choices, *other.choices)))
        return Metric(choices, one.is_collection, one.name, one.place if one.place == other.place else None)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return _join_mappings(one, other)
    if isinstance(one, Items) and isinstance(other, Items) and len(one.items) == len(other.items):
        return Items(tuple(map(join, one.items, other.items)), one.is_module and other.is_module)
    if isinstance(one, (Items, Many)) and isinstance(other, (Items, Many)):
        return _join_lists(one, other)
    if isinstance(one, (Data, Const)) and isinstance(other, (Data, Const)):
        return _join_data(as_data(one), as_data(other))
    return UNKNOWN


def as_data(value: Value) -> Data:
    """A value as a number or tensor."""
    return value if isinstance(value, Data) else unsure(value)


def _join_data(one: Data, other: Data) -> Data:
    if isinstance(one, Unknown) or isinstance(other, Unknown):
        return UNKNOWN
    same = one.origin == other.origin
    counters = all(own.ids or not own.origin for own in (one, other))
    return Data(
        origin=one.origin if same else frozenset({Origin.UNSURE}),
        lead=one.lead if one.lead is other.lead else None,
        size=one.size if one.size is other.size else None,
        ndim=one.ndim if one.ndim == other.ndim else None,
        ids=one.ids if one.ids is other.ids else (Lead.RANK if counters else None),
        scores=tuple(dict.fromkeys((*one.scores, *other.scores))) if one.scores and other.scores else (),
        symbol=one.symbol if one.symbol is other.symbol else None,
        is_batch=one.is_batch and other.is_batch,
        line=one.line or other.line,
    )


def _join_lists(one: Items | Many, other: Items | Many) -> Value:
    items = [*(contents(one) or ()), *(contents(other) or ())]
    # an empty list says nothing of what its items count
    leads = {own.lead if isinstance(own, Many) else None for own in (one, other) if contents(own)}
    lead = leads.pop() if len(leads) == 1 else None
    return Many(joined(items) if items else None, lead, one.is_module and other.is_module)


def _join_mappings(one: Mapping, other: Mapping) -> Mapping:
    first, second = dict(one.items), dict(other.items)
    items = {
        key: join(first[key], second[key]) if key in first and key in second else {**first, **second}[key]
        for key in (*first, *second)
    }
    rest = [own.rest for own in (one, other) if own.rest is not None]
    return Mapping(tuple(items.items()), joined(rest) if rest else None, one.is_module and other.is_module)
