"""The demo, step by step: what it prints, the closing table, and the verdict on it."""

import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch.utils.data import DataLoader

from lightning_retrieval_guard import RetrievalGuard
from lightning_retrieval_guard.demo.corpus import CorpusError, read_corpus
from lightning_retrieval_guard.demo.encoder import HELD_OUT, METRICS, global_batch_size, split_pairs
from lightning_retrieval_guard.demo.runs import Run, evaluate, train
from lightning_retrieval_guard.report.text import format_table

MAX_DEVICES = 8
# Fewer would leave less to train on than to evaluate on.
MIN_PAIRS = 2 * HELD_OUT
TOLERANCE = 1e-6
_WIDTH = 80
_HEADINGS = ("", "MRR", "Recall@1", "Recall@5", "beside the reference")


def run_demo(devices: int = 2, seed: int = 0, report: Path | None = None) -> int:
    """Trains a small retriever on the standard library and evaluates it on one and on several processes.

    Args:
        devices: How many processes to compare with one, 1 to `MAX_DEVICES`.
        seed: Of the weights, the split and the order of the batches.
        report: Where the guard writes its report of the warn run.

    Returns:
        0 when the corrected numbers are those of one process and strict mode raised where it had to, 1 when
        not, 2 when this Python comes without the source of its standard library.
    """
    # Built first, so that a guard refuses what it does not like before anything takes long.
    evaluations = _evaluations(devices, report)
    _say_heading("Reading the Python standard library")
    try:
        corpus = read_corpus(min_pairs=MIN_PAIRS)
    except CorpusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    training, held_out = split_pairs(corpus.pairs, seed)
    batch_size = global_batch_size(devices)
    _say(
        f"{len(corpus.pairs)} functions with the first sentence of their docstring "
        f"({corpus.unparsed} skipped: they do not parse).",
        f"{HELD_OUT} are held out; each sentence is to find its function among {batch_size}.",
    )
    _say_heading("Training a dual encoder on one process")
    model = train(training, DataLoader(held_out, batch_size), seed)
    runs = []
    for label, explanation, processes, guard in evaluations:
        _say_heading(f"Evaluating: {label}", explanation)
        runs.append(evaluate(label, model, DataLoader(held_out, batch_size // processes), processes, guard))
        _say(runs[-1].error or "  ".join(f"{name} {value:.4f}" for name, value in runs[-1].numbers.items()))
    _say_heading(f"The numbers, on {HELD_OUT} held-out pairs", render_table(runs))
    if report is not None and report.exists():
        _say("", f"The guard's report of the warn run: {report}")
    failures = [f"FAILED: {problem}" for problem in problems(runs, devices)]
    _say("", *(failures or ["The corrected numbers are those of one process."]))
    return 1 if failures else 0


def _evaluations(devices: int, report: Path | None) -> list[tuple[str, str, int, RetrievalGuard | None]]:
    """The rows of the table: label, explanation, number of processes and guard."""
    several = "1 process" if devices == 1 else f"{devices} processes"
    warn, correct, strict = RetrievalGuard("warn", report=report), RetrievalGuard("correct"), RetrievalGuard("strict")
    return [
        ("one process", "This is the reference.", 1, None),
        (f"{several}, no guard", "Same weights, same pairs, same batches.", devices, None),
        (f"{several}, warn", "The guard warns and changes nothing.", devices, warn),
        (f"{several}, correct", "The guard logs what one process logs.", devices, correct),
        (f"{several}, strict", "The guard ends a run whose numbers are wrong.", devices, strict),
    ]


def _say_heading(title: str, *lines: str) -> None:
    _say("", f"== {title}", *lines)


def _say(*lines: str) -> None:
    # Flushed: what a forked process finds in the buffer it prints a second time.
    print(*lines, sep="\n", flush=True)


def difference(run: Run, reference: Run) -> float:
    """Returns the largest distance between two runs' numbers; infinite if one is missing or not a number."""
    if not run.numbers or not reference.numbers:
        return math.inf
    distances = [abs(run.numbers[name] - reference.numbers[name]) for name in METRICS]
    return math.inf if any(map(math.isnan, distances)) else max(distances)


def render_table(runs: Sequence[Run]) -> str:
    """Draws one row a run; the first run is the reference."""
    rows: list[Sequence[str]] = [_HEADINGS]
    for run in runs:
        cells = [f"{run.numbers[name]:.4f}" if run.numbers else "-" for name in METRICS]
        rows.append((run.label, *cells, _remark(run, runs[0])))
    return "\n".join(format_table(rows, _WIDTH))


def _remark(run: Run, reference: Run) -> str:
    if run.stopped_by_guard:
        return " ".join(["stopped:", *dict.fromkeys(re.findall(r"LRG\d+", run.error))])
    if run.error:
        return "failed"
    if run is reference:
        return "the reference"
    distance = difference(run, reference)
    return "the same" if distance <= TOLERANCE else f"off by up to {distance:.4g}"


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
