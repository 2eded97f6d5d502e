"""Runs of the corpus over processes that many programs share, and what they show: numbers and findings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.distributed.harness import CaseTimeout, Outcome, Pool

from .evaluate import TARGET
from .expectations import Place, Program, read_programs

TOLERANCE = 1e-5
Numbers = dict[str, list[float]]

ELSEWHERE = 0
"""The line of a finding in another file, which no program expects."""

_WARNING = re.compile(r"^(?P<path>.+):(?P<line>\d+): GuardWarning: (?P<code>LRG\d{3})", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """What the guard found in one program on one number of devices, beside what is right.

    Attributes:
        found: the findings above note.
        notes: the other findings.
    """

    program: Program
    world_size: int
    found: frozenset[Place]
    notes: frozenset[Place]

    @property
    def expected(self) -> frozenset[Place]:
        return self.program.expected(self.world_size)

    @property
    def missed(self) -> frozenset[Place]:
        return self.expected - self.found

    @property
    def false(self) -> frozenset[Place]:
        return self.found - self.expected


class Runs:
    """Runs programs in processes that it is given; each run is made once."""

    def __init__(self, pools: Mapping[int, Pool]) -> None:
        self.programs = read_programs()
        self._pools = pools
        self._kept: dict[tuple[Any, ...], list[Outcome]] = {}

    def outcomes(self, name: str, world_size: int, mode: str, **options: Any) -> list[Outcome]:
        """The outcome on every rank."""
        key = (name, world_size, mode, *options.items())
        if key not in self._kept:
            case = f"{name} on {world_size} in mode {mode}"
            self._kept[key] = self._pools[world_size].run(TARGET, case=case, program=name, mode=mode, **options)
        return self._kept[key]

    def values(self, name: str, world_size: int, mode: str, **options: Any) -> list[dict[str, Any]]:
        """What every rank shows; all of them must have returned."""
        outcomes = self.outcomes(name, world_size, mode, **options)
        assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
        return [outcome.value for outcome in outcomes]

    def reference(self, program: Program) -> Numbers:
        """What the program's right form logs on one device, without a guard."""
        [value] = self.values(program.right_form, 1, "none")
        return numbers_of(value)

    def verdict(self, program: Program, world_size: int) -> Verdict:
        """What the guard finds in mode warn."""
        if program.fails(world_size):
            return Verdict(program, world_size, self._found_before_failure(program, world_size), frozenset())
        value = self.values(program.name, world_size, "warn")[0]
        places = {"note": set[Place](), "above": set[Place]()}
        for finding in value["findings"]:
            places["note" if finding["severity"] == "note" else "above"].add(_place(program, finding))
        return Verdict(program, world_size, frozenset(places["above"]), frozenset(places["note"]))

    def _found_before_failure(self, program: Program, world_size: int) -> frozenset[Place]:
        try:
            outcomes = self._pools[world_size].run(TARGET, timeout=15.0, grace=1.0, program=program.name, mode="warn")
        except CaseTimeout as hang:
            log = str(hang)
        else:
            assert not all(outcome.ok for outcome in outcomes), f"{program.name} ended well"
            log = outcomes[0].log
        return frozenset(_place(program, found.groupdict()) for found in _WARNING.finditer(log))


def _place(program: Program, finding: Mapping[str, Any]) -> Place:
    own = finding["path"] == str(program.path)
    return Place(finding["code"], int(finding["line"]) if own else ELSEWHERE)


def numbers_of(value: Mapping[str, Any]) -> Numbers:
    """By key, every number that the logger got and the last one that callbacks saw."""
    numbers: Numbers = {}
    for metrics in (*value["logged"], *value["shown"]):
        for key, number in metrics.items():
            numbers.setdefault(key, []).append(number)
    return numbers


def off(program: Program, value: Mapping[str, Any], reference: Numbers) -> dict[str, tuple[list[float], list[float]]]:
    """The keys whose numbers are not the reference, with both; keys that are each rank's own do not count."""
    own = program.fields.get("Own", "").split()
    pairs = {key: (shown, reference.get(key, [])) for key, shown in numbers_of(value).items() if key not in own}
    return {key: pair for key, pair in pairs.items() if not _same(*pair)}


def _same(one: list[float], other: list[float]) -> bool:
    same = (math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for a, b in zip(one, other, strict=False))
    return len(one) == len(other) and all(same)
