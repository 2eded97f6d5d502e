"""The closing table and the verdict on it."""

import re
from collections.abc import Iterator, Sequence

from lightning_retrieval_guard.demo.encoder import METRICS
from lightning_retrieval_guard.demo.runs import Run
from lightning_retrieval_guard.report.text import format_table

TOLERANCE = 1e-6
WIDTH = 80
HEADINGS = ("", "MRR", "Recall@1", "Recall@5", "beside the reference")


def difference(run: Run, reference: Run) -> float:
    """Returns the largest distance between two runs' numbers; infinite if one is missing or not a number."""
    if not run.numbers or not reference.numbers:
        return float("inf")
    distances = [abs(run.numbers[name] - reference.numbers[name]) for name in METRICS]
    return max(distance if distance == distance else float("inf") for distance in distances)


def render_table(runs: Sequence[Run]) -> str:
    """Draws one row a run; the first run is the reference."""
    reference = runs[0]
    rows: list[Sequence[str]] = [HEADINGS]
    for run in runs:
        cells = [f"{run.numbers[name]:.4f}" if run.numbers else "-" for name in METRICS]
        rows.append((run.label, *cells, _remark(run, reference)))
    return "\n".join(format_table(rows, WIDTH))


def problems(runs: Sequence[Run], devices: int) -> Iterator[str]:
    """Yields what is not as the demo promises; nothing means that all is well.

    Args:
        runs: One process, no guard, warn, correct and strict, in this order.
        devices: How many processes the last four ran on.
    """
    reference, *_, corrected, strict = runs
    for run in runs[:-1]:
        if run.error:
            yield f"The run {run.label!r} failed: {run.error.splitlines()[0]}"
    distance = difference(corrected, reference)
    if corrected.numbers and distance > TOLERANCE:
        yield f"The corrected numbers are off by {distance:.3g}, more than {TOLERANCE}."
    if devices > 1 and not strict.error:
        yield "Strict mode let the wrong numbers pass; it had to raise GuardError."
    if devices == 1 and strict.stopped_by_guard:
        yield "Strict mode raised on one process, where nothing is wrong."
    if strict.error and not strict.stopped_by_guard:
        yield f"The run {strict.label!r} failed, but not with GuardError: {strict.error.splitlines()[0]}"


def _remark(run: Run, reference: Run) -> str:
    if run.stopped_by_guard:
        return " ".join(["stopped:", *dict.fromkeys(re.findall(r"LRG\d+", run.error))])
    if run.error:
        return "failed"
    if run is reference:
        return "the reference"
    distance = difference(run, reference)
    return "the same" if distance <= TOLERANCE else f"off by up to {distance:.4g}"
