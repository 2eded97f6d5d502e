"""Runs on different numbers of processes, laid side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.parity.cut import Loader
from lightning_retrieval_guard.parity.options import Options

SAME, DIFFERENT, NOT_RUN = 0, 1, 2


@dataclass(frozen=True)
class Run:
    """One number of processes.

    Attributes:
        world_size: The number of processes.
        ranks: The numbers by key, one mapping a rank; empty where it could not be run.
        findings: Of the guard.
        loaders: As rank zero had them.
        seconds: How long it took.
        problem: Why it could not be run, and what to do; empty where it could.
    """

    world_size: int
    ranks: tuple[Mapping[str, float], ...] = ()
    findings: tuple[Finding, ...] = ()
    loaders: tuple[Loader, ...] = ()
    seconds: float = 0.0
    problem: str = ""

    @property
    def numbers(self) -> Mapping[str, float]:
        """The numbers that the logger got: those of rank zero."""
        return self.ranks[0] if self.ranks else {}


@dataclass(frozen=True)
class Difference:
    """What is different about one key on one number of processes.

    Attributes:
        world_size: The number of processes.
        ranks: The ranks that show another number than one process.
        size: The largest distance; infinite where one side is missing or not finite.
        findings: Those of the guard about the key.
        explained: Whether they explain all of it: without what they tell of, the number would be that of one process.
    """

    world_size: int
    ranks: tuple[int, ...]
    size: float
    findings: tuple[Finding, ...]
    explained: bool


@dataclass(frozen=True)
class Key:
    """One key on all numbers of processes.

    Attributes:
        name: The key.
        numbers: What rank zero shows, by world size; ``None`` where it has no such key.
        distance: The largest distance to the number of one process, small ones too.
        differences: Those that are larger than the tolerance.
    """

    name: str
    numbers: Mapping[int, float | None]
    distance: float
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Parity:
    """What came of it.

    Attributes:
        options: What was asked.
        runs: In ascending order of the number of processes; the first is the reference.
        keys: Every key of a run, sorted.
    """

    options: Options
    runs: tuple[Run, ...]
    keys: tuple[Key, ...]

    @property
    def different(self) -> tuple[Key, ...]:
        """The keys that are not the same everywhere."""
        return tuple(key for key in self.keys if key.differences)

    @property
    def problems(self) -> tuple[Run, ...]:
        """The runs that could not be made."""
        return tuple(run for run in self.runs if run.problem)

    @property
    def exit_code(self) -> int:
        """1 where a number is different, else 2 where a run could not be made, else 0."""
        if self.different:
            return DIFFERENT
        return NOT_RUN if self.problems else SAME


def compare(options: Options, runs: Sequence[Run]) -> Parity:
    """Lay the runs side by side; those that could not be made are left out."""
    reference, *others = [run for run in runs if not run.problem] or [Run(1)]
    names = sorted({key for run in (reference, *others) for key in run.numbers})
    return Parity(options, tuple(runs), tuple(_key(name, reference, others, options) for name in names))


def _key(name: str, reference: Run, others: Sequence[Run], options: Options) -> Key:
    expected = reference.numbers.get(name)
    differences, largest = [], 0.0
    limit = options.atol
    if expected is not None and math.isfinite(expected):
        limit += options.rtol * abs(expected)
    # on one process a number may be wrong too
    known = [expected, *_references(explanations(name, reference.findings))]
    for run in others:
        distances = _distances(name, expected, run)
        largest = max([largest, *distances.values()])
        ranks = tuple(rank for rank, distance in distances.items() if distance > limit)
        if ranks:
            size = max(distances[rank] for rank in ranks)
            findings = explanations(name, run.findings)
            explained = any(_explains(own, known, limit) for own in findings)
            differences.append(Difference(run.world_size, ranks, size, findings, explained))
    numbers = {run.world_size: run.numbers.get(name) for run in (reference, *others)}
    return Key(name, numbers, largest, tuple(differences))


def _explains(finding: Finding, known: Sequence[float | None], limit: float) -> bool:
    """Whether the number would be one of those known without what a finding tells of; what is corrected is not left."""
    if finding.corrected:
        return False
    return finding.effect is None or any(_distance(right, finding.effect.reference) <= limit for right in known)


def _references(findings: Sequence[Finding]) -> list[float]:
    return [finding.effect.reference for finding in findings if finding.effect is not None]


def _distances(name: str, expected: float | None, run: Run) -> dict[int, float]:
    """By rank; a key that rank zero has may be missing on the others, which is how a program logs on rank zero."""
    shown = {rank: numbers.get(name) for rank, numbers in enumerate(run.ranks)}
    return {rank: _distance(expected, own) for rank, own in shown.items() if rank == 0 or own is not None}


def _distance(expected: float | None, shown: float | None) -> float:
    if expected is None or shown is None:
        return 0.0 if expected is shown else math.inf
    if expected == shown or (math.isnan(expected) and math.isnan(shown)):
        return 0.0
    distance = abs(expected - shown)
    return math.inf if math.isnan(distance) else distance


def explanations(name: str, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings about a key, those that tell of a wrong number; Lightning adds the loader to a key."""
    keys = (name, name.partition("/dataloader_idx_")[0])
    return tuple(own for own in findings if own.key in keys and own.severity is not Severity.NOTE)
