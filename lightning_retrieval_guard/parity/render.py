"""What a check found, as text of at most 80 columns and as JSON."""

from __future__ import annotations

import json
import math
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_retrieval_guard.findings import Finding, show_number
from lightning_retrieval_guard.parity.compare import DIFFERENT, NOT_RUN, SAME, Difference, Key, Parity, Run
from lightning_retrieval_guard.report.document import finite
from lightning_retrieval_guard.report.text import format_table, printable, several

WIDTH = 80
# Beside the one of the reference; more go into a table of their own.
NUMBERS_IN_A_ROW = 4
RANKS_SHOWN = 4
SCHEMA_VERSION = 1
VERDICTS = {SAME: "same", DIFFERENT: "different", NOT_RUN: "not run"}


def render(parity: Parity) -> str:
    """The whole text: table, explanations, what could not be run, verdict."""
    blocks = [
        _head(parity),
        *(_tables(parity.keys) if parity.keys else []),
        *(_explanation(key, parity) for key in parity.different),
        *map(_not_run, parity.problems),
        _other_findings(parity),
        _verdict(parity),
    ]
    return "\n\n".join(filter(None, map("\n".join, blocks)))


def processes_text(*world_sizes: int) -> str:
    """Such as "1 process" or "1, 2 and 4 processes"."""
    if len(world_sizes) == 1:
        return "1 process" if world_sizes == (1,) else f"{world_sizes[0]} processes"
    return f"{', '.join(map(str, world_sizes[:-1]))} and {world_sizes[-1]} processes"


def _head(parity: Parity) -> Iterator[str]:
    options = parity.options
    yield from _wrapped(f"Parity of {printable(options.target.text)}: {options.stage}, guard in mode {options.mode}")
    sizes = [
        f"{'/'.join(str(loader.batch_size or '?') for loader in run.loaders)} on {run.world_size}"
        for run in parity.runs
        if run.loaders
    ]
    if sizes:
        yield from _wrapped(f"Batch of each process: {', '.join(sizes)}")


def _tables(keys: Sequence[Key]) -> Iterator[list[str]]:
    first, *others = keys[0].numbers
    for start in range(0, max(1, len(others)), NUMBERS_IN_A_ROW):
        sizes = [first, *others[start : start + NUMBERS_IN_A_ROW]]
        head = ["processes", *map(str, sizes), "largest difference", ""]
        yield format_table([head, *(_row(key, sizes) for key in keys)], WIDTH)


def _row(key: Key, sizes: Sequence[int]) -> list[str]:
    numbers = [_number(key.numbers[size]) for size in sizes]
    distance = f"{key.distance:.2g}" if math.isfinite(key.distance) else "-"
    return [printable(key.name), *numbers, distance, "different" if key.differences else "same"]


def _number(value: float | None) -> str:
    return "-" if value is None else show_number(value)


def _explanation(key: Key, parity: Parity) -> Iterator[str]:
    runs = {run.world_size: run for run in parity.runs}
    sizes = processes_text(*(difference.world_size for difference in key.differences))
    yield from _wrapped(f"{printable(key.name)} is different on {sizes}.")
    for difference in key.differences:
        yield from _ranks(key.name, difference, runs[difference.world_size])
    findings = [(entry.world_size, finding) for entry in key.differences for finding in entry.findings]
    for finding, on in _merged(findings):
        yield from _wrapped(f"On {on}: {_location(finding)}: {printable(finding.text())}", 2)
    unexplained = [difference for difference in key.differences if not difference.explained]
    # A finding may explain a part of the difference only.
    for what, has_findings in (("it", False), ("all of it", True)):
        on_sizes = [entry.world_size for entry in unexplained if bool(entry.findings) == has_findings]
        if on_sizes:
            yield from _wrapped(f"On {processes_text(*on_sizes)}: no finding explains {what}. {_hint(parity)}", 2)


def _ranks(name: str, difference: Difference, run: Run) -> Iterator[str]:
    """What each rank shows, where they do not show the same; a key may be logged on rank zero alone."""
    shown = [numbers.get(name) for numbers in run.ranks]
    # The table has the number already.
    all_same = len(difference.ranks) == len(shown) and len(set(map(_number, shown))) == 1
    if all_same or all(number is None for number in shown[1:]):
        return
    texts = [f"rank {rank} shows {_number(number)}" for rank, number in enumerate(shown[:RANKS_SHOWN])]
    more = ", ..." if len(shown) > RANKS_SHOWN else ""
    yield from _wrapped(f"On {processes_text(run.world_size)} {', '.join(texts)}{more}.", 2)


def _hint(parity: Parity) -> str:
    shuffled = any(loader.shuffled for run in parity.runs for loader in run.loaders)
    order = "A loader draws its samples in a random order, so the batches hold other samples each time. "
    batch = (
        "What is computed over the batch of a process, such as in-batch candidates, depends on its size."
        if parity.options.keep == "global"
        else "With --keep per-rank all processes together have larger batches than one."
    )
    return (order if shuffled else "") + batch


def _other_findings(parity: Parity) -> Iterator[str]:
    """Findings about numbers that are not different: corrected ones, and those that are wrong everywhere."""
    differences = [difference for key in parity.different for difference in key.differences]
    explaining = {finding.identity for difference in differences for finding in difference.findings}
    serious = [(run.world_size, finding) for run in parity.runs for finding in run.findings if finding.is_serious]
    others = _merged(entry for entry in serious if entry[1].identity not in explaining)
    if others:
        yield "Findings that go with no difference:"
    for finding, on in others:
        corrected = ", corrected" if finding.corrected else ""
        text = f"{_location(finding)}: {finding.code} {finding.rule}: {printable(finding.key)!r}"
        yield from _wrapped(f"On {on}{corrected}: {text}", 2)


def _merged(findings: Iterable[tuple[int, Finding]]) -> list[tuple[Finding, str]]:
    """Each finding once, with the numbers of processes on which it was made."""
    merged: dict[tuple[str, str, str, int], tuple[Finding, list[int]]] = {}
    for world_size, finding in findings:
        merged.setdefault(finding.identity, (finding, []))[1].append(world_size)
    return [(finding, processes_text(*sizes)) for finding, sizes in merged.values()]


def _location(finding: Finding) -> str:
    path, folder = Path(finding.path), Path(os.getcwd())
    return printable(f"{path.relative_to(folder) if path.is_relative_to(folder) else path}:{finding.line}")


def _not_run(run: Run) -> Iterator[str]:
    yield f"{processes_text(run.world_size)}: not possible."
    for line in (printable(line.expandtabs()) for line in run.problem.splitlines()):
        # stacks and tracebacks are indented, and stay as they are
        yield from [f"  {line}"] if line.startswith(" ") else _wrapped(line, 2)


def _verdict(parity: Parity) -> Iterator[str]:
    compared = [run.world_size for run in parity.runs if not run.problem]
    keys, different = several(len(parity.keys), "key"), len(parity.different)
    if different:
        yield f"DIFFERENT: {different} of {keys}."
    elif len(compared) > 1:
        yield f"SAME: {keys} on {processes_text(*compared)}."
    if parity.problems:
        yield f"NOT RUN: {processes_text(*(run.world_size for run in parity.problems))}."


def _wrapped(text: str, indent: int = 0) -> list[str]:
    first, rest = " " * indent, " " * (2 * indent)
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


# --- JSON -----------------------------------------------------------------------------------------------------


def write_document(path: Path, parity: Parity) -> None:
    """Write the JSON; raises OSError where that is not possible."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(build_document(parity), indent=2) + "\n", encoding="utf-8")


def build_document(parity: Parity) -> dict[str, Any]:
    """Schema version 1; NaN and infinity, which JSON does not know, are null."""
    options = parity.options
    document: dict[str, Any] = finite(
        {
            "version": SCHEMA_VERSION,
            "verdict": VERDICTS[parity.exit_code],
            "target": options.target.text,
            **{name: getattr(options, name) for name in ("stage", "mode", "keep", "rtol", "atol", "seed")},
            "runs": list(map(_run_fields, parity.runs)),
            "keys": {key.name: _key_fields(key) for key in parity.keys},
        }
    )
    return document


def _run_fields(run: Run) -> dict[str, Any]:
    return {
        "world_size": run.world_size,
        "problem": run.problem or None,
        "seconds": round(run.seconds, 3),
        "batch_sizes": [loader.batch_size for loader in run.loaders],
        "ranks": [dict(numbers) for numbers in run.ranks],
        "findings": [finding.to_dict() for finding in run.findings],
    }


def _key_fields(key: Key) -> dict[str, Any]:
    return {
        "numbers": {str(size): number for size, number in key.numbers.items()},
        "largest_difference": key.distance,
        "differences": list(map(_difference_fields, key.differences)),
    }


def _difference_fields(difference: Difference) -> dict[str, Any]:
    return {
        "world_size": difference.world_size,
        "ranks": list(difference.ranks),
        "difference": difference.size,
        "explained": difference.explained,
        "findings": [{"code": entry.code, "path": entry.path, "line": entry.line} for entry in difference.findings],
    }
