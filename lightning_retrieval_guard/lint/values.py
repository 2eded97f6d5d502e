"""What is known of a value; what is not known is left out, and nothing follows from it."""

from __future__ import annotations

import ast
import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lightning_retrieval_guard.lint.modules import ClassInfo, Function, Module


class Origin(enum.Enum):
    """What a value surely depends on: data of this rank alone, rows of all ranks, or perhaps either."""

    RANK = enum.auto()
    GATHERED = enum.auto()
    UNSURE = enum.auto()


class Lead(enum.Enum):
    """What a dimension counts: samples of a batch, or samples or batches that this rank saw in the epoch."""

    BATCH = "batch"
    RANK = "rank"


class Symbol(enum.Enum):
    """Numbers that have a meaning in a distributed run."""

    DEVICES = enum.auto()
    PRODUCT = enum.auto()  # with the number of devices
    SHARE = enum.auto()  # something divided by the number of devices
    GLOBAL_RANK = enum.auto()
    IS_ZERO = enum.auto()


class Value:
    """Anything that is known."""


@dataclass(frozen=True)
class Data(Value):
    """A number or tensor."""

    origin: frozenset[Origin] = frozenset()  # nothing means the same on every rank
    lead: Lead | None = None  # what its first dimension counts
    size: Lead | None = None  # what it is the number of
    ndim: int | None = None
    ids: Lead | None = None  # what its numbers start again with, where they count samples or batches
    scores: tuple[Score, ...] = ()  # the metric values that it is, or is made of
    symbol: Symbol | None = None
    is_batch: bool = False  # a batch, whose items all have the samples first
    line: int = field(default=0, compare=False)  # where ids were made or rows were gathered
    factor: ast.expr | None = field(default=None, compare=False)  # what is multiplied with the number of devices


_UNSURE = frozenset({Origin.UNSURE})


@dataclass(frozen=True)
class Unknown(Data):
    """Something that may be anything, a Metric object as well."""

    origin: frozenset[Origin] = _UNSURE


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Score(Value):
    """A value of a metric."""

    how: str  # "forward", "compute" or "functional"
    metric: Metric | None = None  # None for a function
    is_own: bool = False  # rows of this rank alone surely went into it
    is_exact: bool = True  # nothing was done with it since
    name: str = ""  # of the function


@dataclass(frozen=True)
class Const(Value):
    """A constant of Python, the same on every rank."""

    value: object


NONE = Const(None)


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
    """A list of any length, whose items count something."""

    item: Value | None = None  # what each item is; None where nothing was put in
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
        if not isinstance(key, Const):
            return joined(self.all())
        return dict(self.items).get(key.value, self.rest or UNKNOWN)

    def with_item(self, key: Value, value: Value) -> Mapping:
        """This dictionary with one more item."""
        return self.merged(Mapping(((key.value, value),)) if isinstance(key, Const) else Mapping(rest=value))

    def merged(self, other: Value) -> Mapping:
        """This dictionary with the items of another."""
        if not isinstance(other, Mapping):
            other = Mapping(rest=UNKNOWN)
        items = {**dict(self.items), **dict(other.items)}
        return replace(self, items=tuple(items.items()), rest=_joined_or_none(self.rest, other.rest))

    def all(self) -> list[Value]:
        """Every item."""
        return [item for _, item in self.items] + ([] if self.rest is None else [self.rest])


@dataclass(frozen=True)
class Shape(Value):
    """The shape of a tensor."""

    of: Data


@dataclass(frozen=True)
class Built:
    """A call that builds a metric, and the file it stands in."""

    kind: str  # the class, such as "RetrievalRecall"
    is_synced: bool  # compute() surely combines ranks
    call: ast.Call
    module: Module

    @property
    def is_retrieval(self) -> bool:
        """Whether it groups rows by query ids."""
        return self.kind.startswith("Retrieval")

    def option(self, name: str) -> object:
        """A constant that was passed by name; ``None`` where there is none, ``...`` where it is no constant."""
        given = [keyword.value for keyword in self.call.keywords if keyword.arg == name]
        if not given:
            return None
        return given[0].value if isinstance(given[0], ast.Constant) else ...


@dataclass(frozen=True)
class Metric(Value):
    """A metric or a MetricCollection."""

    choices: tuple[tuple[Built, ...], ...]  # the members of each metric that it may be; it surely is one of them
    is_collection: bool = False
    name: str = field(default="", compare=False)  # as the source names it
    identity: object = None  # where it was made, or the attribute that holds it

    def surely(self, test: Callable[[Built], bool]) -> bool:
        """Whether a member fulfils the test, whichever metric it is."""
        return bool(self.choices) and all(any(map(test, members)) for members in self.choices)

    @property
    def members(self) -> list[Built]:
        """All members of all metrics that it may be."""
        return [member for members in self.choices for member in members]

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
class Reference(Value):
    """Something that is imported, or an attribute of the object of which nothing is known, by its full dotted name."""

    dotted: str


@dataclass(frozen=True)
class Callee(Value):
    """A function of the source."""

    function: Function
    module: Module
    cls: ClassInfo | None = None
    instance: Value | None = None


class Arguments(NamedTuple):
    """What a call passes."""

    values: list[Value]
    keywords: dict[str, Value]
    is_complete: bool = True

    @property
    def all(self) -> list[Value]:
        """Everything that is passed."""
        return [*self.values, *self.keywords.values()]

    def get(self, position: int, name: str) -> Value | None:
        """What is passed by name or position."""
        return self.keywords.get(name, self.values[position] if len(self.values) > position else None)

    @property
    def first(self) -> Value:
        """What is passed first, by position."""
        return self.values[0] if self.values else UNKNOWN


def is_known(value: Value) -> bool:
    """Whether a value surely is a number or tensor."""
    return isinstance(value, Data) and not isinstance(value, Unknown)


def as_data(value: Value) -> Data:
    """A value as a number or tensor."""
    return value if isinstance(value, Data) else unsure(value)


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
    return frozenset().union(*map(origin_of, inner)) if inner is not None else _UNSURE


def contents(value: Value) -> list[Value] | None:
    """The items of a list, tuple or dictionary; ``None`` for anything else."""
    if isinstance(value, Items):
        return list(value.items)
    if isinstance(value, Many):
        return [] if value.item is None else [value.item]
    return value.all() if isinstance(value, Mapping) else None


def item_of(value: Value) -> Value:
    """What each item of what is iterated is."""
    if isinstance(value, Data) and not isinstance(value, Unknown):
        return unsure(value) if value.is_batch else Data(value.origin, ids=value.ids, line=value.line)
    if isinstance(value, Mapping):
        return Text()
    return joined(contents(value) or ())


def scores_of(value: Value) -> tuple[Score, ...]:
    """The metric values that a value surely consists of; none where something else is in it."""
    if isinstance(value, Data):
        return value.scores
    scores = [scores_of(item) for item in contents(value) or ()]
    return tuple(dict.fromkeys(score for part in scores for score in part)) if all(scores) else ()


def metrics_in(value: Value) -> list[Metric]:
    """The metrics that a value is or holds."""
    if isinstance(value, Metric):
        return [value]
    return [metric for item in contents(value) or () for metric in metrics_in(item)]


def mapped(value: Value, change: Callable[[Value], Value]) -> Value:
    """The same lists and dictionaries with other items."""
    if isinstance(value, Items):
        return replace(value, items=tuple(mapped(item, change) for item in value.items))
    if isinstance(value, Many) and value.item is not None:
        return replace(value, item=mapped(value.item, change))
    if isinstance(value, Mapping):
        rest = None if value.rest is None else mapped(value.rest, change)
        return replace(value, items=tuple((key, mapped(item, change)) for key, item in value.items), rest=rest)
    return change(value)


# --- one value or the other -----------------------------------------------------------------------------------------


def joined(values: Iterable[Value]) -> Value:
    """What holds of each of the values."""
    result = _joined_or_none(*values)
    return UNKNOWN if result is None else result


def _joined_or_none(*values: Value | None) -> Value | None:
    result: Value | None = None
    for value in values:
        if value is not None:
            result = value if result is None else join(result, value)
    return result


def join(one: Value, other: Value) -> Value:
    """What holds of both values; ``None`` of Python says nothing, as its use fails."""
    if one == other or other == NONE:
        return one
    if one == NONE:
        return other
    if isinstance(one, Metric) and isinstance(other, Metric) and one.is_collection == other.is_collection:
        choices = tuple(dict.fromkeys((*one.choices, *other.choices)))
        return Metric(choices, one.is_collection, one.name, one.identity if one.identity == other.identity else None)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        first, second = dict(one.items), dict(other.items)
        items = {key: join(first.get(key, NONE), second.get(key, NONE)) for key in (*first, *second)}
        rest = _joined_or_none(one.rest, other.rest)
        return Mapping(tuple(items.items()), rest, one.is_module and other.is_module)
    if isinstance(one, (Items, Many)) and isinstance(other, (Items, Many)):
        return _join_lists(one, other)
    if isinstance(one, (Data, Const)) and isinstance(other, (Data, Const)):
        return _join_data(as_data(one), as_data(other))
    return UNKNOWN


def _join_lists(one: Items | Many, other: Items | Many) -> Value:
    is_module = one.is_module and other.is_module
    if isinstance(one, Items) and isinstance(other, Items) and len(one.items) == len(other.items):
        return Items(tuple(map(join, one.items, other.items)), is_module)
    items = [*(contents(one) or ()), *(contents(other) or ())]
    # an empty list says nothing of what its items count
    leads = {part.lead if isinstance(part, Many) else None for part in (one, other) if contents(part)}
    return Many(_joined_or_none(*items), leads.pop() if len(leads) == 1 else None, is_module)


def _join_data(one: Data, other: Data) -> Data:
    if isinstance(one, Unknown) or isinstance(other, Unknown):
        return UNKNOWN
    both_count = all(part.ids or not part.origin for part in (one, other))
    return Data(
        origin=one.origin if one.origin == other.origin else _UNSURE,
        lead=one.lead if one.lead is other.lead else None,
        size=one.size if one.size is other.size else None,
        ndim=one.ndim if one.ndim == other.ndim else None,
        ids=one.ids if one.ids is other.ids else (Lead.RANK if both_count else None),
        scores=tuple(dict.fromkeys((*one.scores, *other.scores))) if one.scores and other.scores else (),
        symbol=one.symbol if one.symbol is other.symbol else None,
        is_batch=one.is_batch and other.is_batch,
        line=one.line or other.line,
    )
