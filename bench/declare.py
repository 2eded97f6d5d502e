"""What a bench is: a name, the lines it adds to the table with their targets, and a function that measures them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


class NotMeasured(Exception):  # noqa: N818 - not an error: the table says so and goes on
    """A bench cannot run here; the text says why."""


@dataclass(frozen=True)
class Target:
    """A limit that a measured value should keep."""

    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


def at_most(limit: float) -> Target:
    return Target(limit)


def at_least(limit: float) -> Target:
    return Target(limit, at_least=True)


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        text: What is measured.
        target: What it should reach, if anything.
        unit: Stands behind the value: "x" for a ratio.
    """

    text: str
    target: Target | None = None
    unit: str = "x"


@dataclass(frozen=True)
class Figure:
    """A measured value: the median of the rounds, with their middle half where there are several."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Result:
    """What a bench measured.

    Attributes:
        figures: Values by the name of their line; a line without one was not measured.
        data: Whatever else the document should hold, as JSON can hold it.
        notes: Why a line has no value, by its name.
    """

    figures: Mapping[str, Figure]
    data: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """How much work a run may take."""

    quick: bool = False

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Bench:
    """A bench.

    Attributes:
        name: For ``--only`` and the document.
        lines: The lines of the table by name.
        run: Measures them.
    """

    name: str
    lines: Mapping[str, Line]
    run: Callable[[Scale], Result]


def attempted(function: Callable[..., T], *arguments: Any) -> T | NotMeasured:
    """What the function returns, or why it cannot."""
    try:
        return function(*arguments)
    except NotMeasured as reason:
        return reason


def measured(bench: Bench, scale: Scale) -> Result:
    """Run a bench; where it cannot run or fails, its lines say why and the next one follows."""
    try:
        return bench.run(scale)
    except NotMeasured as reason:
        return Result({}, notes=dict.fromkeys(bench.lines, str(reason)))
    except Exception as error:
        traceback.print_exc()
        return Result({}, notes=dict.fromkeys(bench.lines, f"failed: {type(error).__name__}"))
