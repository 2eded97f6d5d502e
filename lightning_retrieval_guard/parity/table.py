"""What a check found, as text of at most 80 columns."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lightning_retrieval_guard.findings import Finding, Severity, show_number
from lightning_retrieval_guard.parity.compare import Difference, Key, Parity, Run, processes_text
from lightning_retrieval_guard.report.faults import several
from lightning_retrieval_guard.report.text import format_table, printable

WIDTH = 80
# Beside the one of the reference; more go into a table of their own.
NUMBERS_IN_A_ROW = 4
RANKS_SHOWN = 4


def render(parity: Parity) -> str:
    """The whole text: table, explanations, what could not be run, verdict."""
    parts: list[Iterable[str]] = [_head(parity)]
    if parity.keys:
        parts += _tables(parity)
    parts += [_explained(key, parity) for key in parity.different]
    parts += [_not_run(run) for run in parity.problems]
    parts += [_other_findings(parity), _verdict(parity)]
    return "\n\n".join(filter(None, map("\n".join, parts)))


def _head(parity: Parity) -> list[str]:
    options = parity.options
    lines = _wrapped(f"Parity of {printable(options.target.text)}: {options.stage}, guard in mode {options.mode}", 0)
    sizes = [
        f"{'/'.join(str(loader.batch_size or '?') for loader in run.loaders)} on {run.world_size}"
        for run in parity.runs
        if run.loaders
    ]
    return lines + (_wrapped(f"Batch of each process: {', '.join(sizes)}", 0) if sizes else [])


def _tables(parity: Parity) -> Iterator[list[str]]:
    first, *others = parity.keys[0].numbers
    for start in range(0, max(1, len(others)), NUMBERS_IN_A_ROW):
        yield _table(parity.keys, [first, *others[start : start + NUMBERS_IN_A_ROW]])


def _table(keys: Sequence[Key], sizes: list[int]) -> list[str]:
    rows = [["processes", *map(str, sizes), "largest difference", ""]]
    for key in keys:
        numbers = [_number(key.numbers[size]) for size in sizes]
        distance = f"{key.distance:.2g}" if math.isfinite(key.distance) else "-"
        rows.append([printable(key.name), *numbers, distance, "different" if key.differences else "same"])
    return format_table(rows, WIDTH)


def _number(value: float | None) -> str:
    return "-" if value is None else show_number(value)


# --- explanations ---------------------------------------------------------------------------------------------


def _explained(key: Key, parity: Parity) -> Iterator[str]:
    by_size = {run.world_size: run for run in parity.runs}
    yield from _wrapped(
        f"{printable(key.name)} is different on {_sizes(difference.world_size for difference in key.differences)}.", 0
    )
    for difference in key.differences:
        yield from _ranks(key.name, difference, by_size[difference.world_size])
    for finding, sizes in _together(
        (difference.world_size, finding) for difference in key.differences for finding in difference.findings
    ):
        yield from _wrapped(f"On {_sizes(sizes)}: {_place(finding)}: {printable(finding.text())}", 2)
    for what, has_findings in (("it", False), ("all of it", True)):
        sizes = [
            difference.world_size
            for difference in key.differences
            if not difference.explained and bool(difference.findings) == has_findings
        ]
        if sizes:
            yield from _wrapped(f"On {_sizes(sizes)}: no finding explains {what}.{_hint(parity)}", 2)


def _ranks(name: str, difference: Difference, run: Run) -> Iterator[str]:
    shown = [numbers.get(name) for numbers in run.ranks]
    if difference.ranks == tuple(range(len(shown))) and len({_number(number) for number in shown}) == 1:
        return
    if all(number is None for number in shown[1:]):
        return
    texts = [f"rank {rank} shows {_number(number)}" for rank, number in enumerate(shown[:RANKS_SHOWN])]
    more = ", ..." if len(shown) > RANKS_SHOWN else ""
    yield from _wrapped(f"On {processes_text(run.world_size)} {', '.join(texts)}{more}.", 2)


def _hint(parity: Parity) -> str:
    reasons = []
    if any(loader.shuffled for run in parity.runs for loader in run.loaders):
        reasons.append("A loader draws its samples in a random order, so the batches hold other samples each time.")
    if parity.options.keep == "global":
        reasons.append(
            "What is computed over the batch of a process, such as in-batch candidates, depends on its size."
        )
    else:
        reasons.append("With --keep per-rank all processes together have larger batches than one.")
    return "".join(f" {reason}" for reason in reasons)


def _other_findings(parity: Parity) -> Iterator[str]:
    """Findings about numbers that are not different: corrected ones, and those that are wrong everywhere."""
    explaining = {one.identity for key in parity.different for own in key.differences for one in own.findings}
    others = _together(
        (run.world_size, finding)
        for run in parity.runs
        for finding in run.findings
        if finding.severity is not Severity.NOTE and finding.identity not in explaining
    )
    if others:
        yield "Findings that go with no difference:"
    for finding, sizes in others:
        corrected = ", corrected" if finding.corrected else ""
        text = f"{_place(finding)}: {finding.code} {finding.rule}: {printable(finding.key)!r}"
        yield from _wrapped(f"On {_sizes(sizes)}{corrected}: {text}", 2)


def _together(pairs: Iterable[tuple[int, Finding]]) -> list[tuple[Finding, list[int]]]:
    """Each finding once, with the numbers of processes on which it was made."""
    together: dict[tuple[str, str, str, int], tuple[Finding, list[int]]] = {}
    for world_size, finding in pairs:
        together.setdefault(finding.identity, (finding, []))[1].append(world_size)
    return list(together.values())


def _place(finding: Finding) -> str:
    path = Path(finding.path)
    here = Path(os.getcwd())
    return printable(f"{path.relative_to(here) if path.is_relative_to(here) else path}:{finding.line}")


# --- the end --------------------------------------------------------------------------------------------------


def _not_run(run: Run) -> Iterator[str]:
    yield f"{processes_text(run.world_size)}: not possible."
    for line in (printable(line.expandtabs()) for line in run.problem.splitlines()):
        # stacks and tracebacks are indented, and stay as they are
        yield from [f"  {line}"] if line.startswith(" ") else _wrapped(line, 2)


def _verdict(parity: Parity) -> Iterator[str]:
    compared = [run.world_size for run in parity.runs if not run.problem]
    different = len(parity.different)
    if different:
        yield f"DIFFERENT: {different} of {several(len(parity.keys), 'key')}."
    elif len(compared) > 1:
        yield f"SAME: {several(len(parity.keys), 'key')} on {_sizes(compared)}."
    if parity.problems:
        yield f"NOT RUN: {_sizes(run.world_size for run in parity.problems)}."


def _sizes(sizes: Iterable[int]) -> str:
    """Such as "1, 2 and 4 processes"."""
    *others, last = sizes
    return f"{', '.join(map(str, others))} and {last} processes" if others else processes_text(last)


def _wrapped(text: str, indent: int) -> list[str]:
    first, rest = " " * indent, " " * (2 * indent)
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
