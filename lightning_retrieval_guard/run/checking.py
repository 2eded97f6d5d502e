"""What other ranks told is checked before anything is allocated, looked up or decided by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lightning_retrieval_guard.distributed.payload import read_all
from lightning_retrieval_guard.epoch.facts import KeyFacts, SourceFacts, Unregistered
from lightning_retrieval_guard.epoch.row_facts import RowFacts

# No rank holds more rows than this, at 16 bytes a row.
_MOST_ROWS = 1 << 36
_WORD = 1 << 63
_MESSAGE = {
    "batches": int,
    "samples": int | None,
    "repeated": int,
    "monitored": list[str],
    "more": bool,
    "ignores": bool,
    "keys": list[dict[str, Any]],
    "rows": list[dict[str, Any]],
    "sources": dict[str, dict[str, Any]],
    "unregistered": list[dict[str, Any]],
}
_MAY_LACK = {"unregistered"}
# Of RowFacts, numbers that are no counts of rows.
_ANY_WORD = ("id_min", "id_max", "fingerprint")
_OF_WORDS = (*_ANY_WORD, "id_step", "sketch")


def check_messages(messages: Sequence[Any]) -> None:
    """Check what all ranks told.

    Args:
        messages: In order of rank, as JSON gave them.

    Raises:
        ProtocolError: On all ranks, with the ranks whose message is not of the form that this version sends.
    """
    read_all(lambda message: _check(message, len(messages)), messages)


def _check(message: dict[str, Any], world_size: int) -> None:
    _need(message.keys() - _MAY_LACK == _MESSAGE.keys() - _MAY_LACK, "it lacks a part, or has another")
    for name, told in message.items():
        _need(_fits(told, _MESSAGE[name]), f"{name!r} is {type(told).__name__}")
    for name in ("batches", "samples", "repeated"):
        # samples are not known where a batch did not show its size
        _need(message[name] is None or 0 <= message[name] < _WORD, f"{name!r} is out of range")
    for key in message["keys"]:
        _check_fields(key, KeyFacts, may_lack=("storage",))
    for stray in message.get("unregistered", ()):
        _check_fields(stray, Unregistered)
    for rows in message["rows"]:
        _check_fields(rows, RowFacts)
        _check_rows(RowFacts.from_payload(rows), world_size)
    for source in message["sources"].values():
        _check_fields(source, SourceFacts)
        _check_source(source, len(message["rows"]), world_size)


def _check_fields(told: dict[str, Any], kind: type, may_lack: Sequence[str] = ()) -> None:
    """Whether a message is one of a dataclass: no other fields, none missing that has no default, each of its type."""
    hints, needed = _hints(kind)
    _need(told.keys() <= hints.keys(), f"{kind.__name__} has a field that is not known")
    _need(needed - {*may_lack} <= told.keys(), f"{kind.__name__} lacks a field")
    for name, value in told.items():
        _need(_fits(value, hints[name]), f"{kind.__name__}.{name} is {type(value).__name__}")


@cache
def _hints(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    hints, own = get_type_hints(kind), fields(kind)
    needed = (field.name for field in own if field.default is MISSING and field.default_factory is MISSING)
    return {field.name: hints[field.name] for field in own}, frozenset(needed)


def _check_rows(facts: RowFacts, world_size: int) -> None:
    counts = [value for name, value in vars(facts).items() if type(value) is int and name not in _OF_WORDS]
    _need(all(0 <= count <= _MOST_ROWS for count in counts), "a number of rows is out of range")
    words = [facts.id_step, *facts.sketch, *(getattr(facts, name) for name in _ANY_WORD)]
    _need(all(-_WORD <= word < _WORD for word in words), "an id is out of range")
    _need(max(facts.queries, facts.pieces, facts.longest_query) <= facts.rows, "it has more queries than rows")
    _need(facts.queries <= facts.pieces, "it has more queries than updates hold")
    if facts.shares:
        queries, rows = (sum(column) for column in zip(*facts.shares, strict=True))
        _need(len(facts.shares) <= world_size, "it shares rows out to more ranks than there are")
        _need(min(map(min, facts.shares)) >= 0 and queries <= facts.queries and rows <= facts.rows, "shares too many")


def _check_source(source: dict[str, Any], sets_of_rows: int, world_size: int) -> None:
    _need(0 <= source["rows"] < sets_of_rows, "a metric has rows that are not told of")
    _need(0 <= source.get("columns", 1) <= _MOST_ROWS, "a metric has too many numbers")
    group = source.get("group")
    if group is not None:
        inside = all(0 <= rank < world_size for rank in group)
        _need(bool(group) and inside and sorted({*group}) == [*group], "a group has ranks that there are not")


def _need(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is of a type; a list may stand for a tuple, and an integer for a float."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is dict:
        return isinstance(value, dict) and all(_fits(part, parts[1]) for part in value.values())
    if origin is tuple and parts[-1] is not Ellipsis:
        return _is_list(value) and len(value) == len(parts) and all(map(_fits, value, parts))
    if origin is not None:
        return _is_list(value) and all(_fits(part, parts[0]) for part in value)
    if hint is float:
        return type(value) in (int, float)
    return hint is Any or type(value) is (NoneType if hint is None else hint)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
