"""Runs on different numbers of processes, side by side: which keys differ, and which findings explain it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_retrieval_guard.findings import Finding
from lightning_retrieval_guard.parity.options import Options
from lightning_retrieval_guard.parity.worker import Loader

SAME, DIFFERENT, NOT_RUN = 0, 1, 2


@dataclass(frozen=True)
class Run:
    """One number of processes."""

    world_size: int
    ranks: tuple[Mapping[str, float], ...] = ()  # the numbers by key, one mapping a rank; empty where it was not run
    findings: tuple[Finding, ...] = ()
    loaders: tuple[Loader, ...] = ()  # as rank zero had them
    problem: str = ""  # why it could not be run, and what to do; empty where it could
    seconds: float = 0.0

    @property
    def numbers(self) -> Mapping[str, float]:
        """The numbers that the logger got: those of rank zero."""
        return self.ranks[0] if self.ranks else {}


@dataclass(frozen=True)
class Difference:
    """What is different about one key on one number of processes."""

    world_size: int
    ranks: tuple[int, ...]  # those that show another number than one process
    size: float  # the largest distance; infinite where one side is missing or not finite
    findings: tuple[Finding, ...]  # about the key
    explained: bool  # without what the findings report, the number would be that of one process


@dataclass(frozen=True)
class Key:
    """One key on all numbers of processes."""

    name: str
    numbers: Mapping[int, float | None]  # what rank zero shows, by world size; None where it has no such key
    distance: float  # the largest distance to the number of one process, small ones too
    differences: tuple[Difference, ...]  # those that are larger than the tolerance


@dataclass(frozen=True)
class Parity:
    """What came of a check."""

    options: Options
    runs: tuple[Run, ...]  # in ascending order of the number of processes; the first is the reference
    keys: tuple[Key, ...]  # every key of a run, sorted

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
    """Compare each run with the first; those that could not be made are left out."""
    # Where no run could be made there is no key either.
    reference, *others = [run for run in runs if not run.problem] or [Run(1)]
    names = sorted({key for run in (reference, *others) for key in run.numbers})
    return Parity(options, tuple(runs), tuple(_key(name, reference, others, options) for name in names))


def _key(name: str, reference: Run, others: Sequence[Run], options: Options) -> Key:
    expected, limit = reference.numbers.get(name), options.atol
    # Nothing is relative to a number that is missing, or is NaN or infinite.
    if expected is not None and math.isfinite(expected):
        limit += options.rtol * abs(expected)
    # On one process a number may be wrong too: then the right one is what its finding gives as the reference.
    right = [expected, *(cause.effect.reference for cause in _findings(name, reference) if cause.effect)]
    differences, distances = [], [0.0]
    for run in others:
        by_rank = _distances(name, expected, run)
        distances += by_rank.values()
        if larger := {rank: distance for rank, distance in by_rank.items() if distance > limit}:
            findings = _findings(name, run)
            explained = any(_explains(finding, right, limit) for finding in findings)
            differences.append(Difference(run.world_size, tuple(larger), max(larger.values()), findings, explained))
    numbers = {run.world_size: run.numbers.get(name) for run in (reference, *others)}
    return Key(name, numbers, max(distances), tuple(differences))


def _findings(name: str, run: Run) -> tuple[Finding, ...]:
    """The findings of a run about a key that are more than a note; Lightning adds the loader to a key."""
    keys = (name, name.partition("/dataloader_idx_")[0])
    return tuple(finding for finding in run.findings if finding.key in keys and finding.is_serious)


def _explains(finding: Finding, right: Sequence[float | None], limit: float) -> bool:
    """Whether the number would be a right one without what a finding reports, and that was not corrected already."""
    if finding.corrected:
        return False
    return finding.effect is None or any(_distance(number, finding.effect.reference) <= limit for number in right)


def _distances(name: str, expected: float | None, run: Run) -> dict[int, float]:
    """By rank; a key that rank zero has may be missing on the others, which is how a program logs on rank zero."""
    shown = {rank: numbers.get(name) for rank, numbers in enumerate(run.ranks)}
    return {rank: _distance(expected, number) for rank, number in shown.items() if rank == 0 or number is not None}


def _distance(expected: float | None, shown: float | None) -> float:
    if expected is None or shown is None:
        return 0.0 if expected is shown else math.inf
    if expected == shown or (math.isnan(expected) and math.isnan(shown)):
        return 0.0
    distance = abs(expected - shown)
    return math.inf if math.isnan(distance) else distance
