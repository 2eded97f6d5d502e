"""The runs of one check: one process first, then each other number of them with the same weights."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from lightning_retrieval_guard.parity.compare import NOT_RUN, Parity, Run, compare
from lightning_retrieval_guard.parity.options import Options, ParityError
from lightning_retrieval_guard.parity.pool import Outcome, Pool
from lightning_retrieval_guard.parity.render import processes_text, render, write_document
from lightning_retrieval_guard.parity.worker import EVALUATE, share
from lightning_retrieval_guard.settings import VARIABLES

PRELOADED = (EVALUATE.partition(":")[0], "torchmetrics.retrieval")
# The runs bring their own guard, and no GPU is seen.
ENVIRONMENT = {**dict.fromkeys(VARIABLES), "CUDA_VISIBLE_DEVICES": ""}

_INTERRUPTED = 130
_NOTHING_LOGGED = (
    "Nothing was logged with self.log for the epoch of {!r}, so there is nothing to compare. Log a number, or choose"
    " another --stage."
)
_indented = "    {}".format
_LOG_LINES = 20
_STACK_LINES = 8
# A warning as Python prints it, up to the line that says how to read on.
_GUARD_SAID = re.compile(r"GuardWarning: (LRG\d{3}.*(?:\n {2}.*)*?)\n {2}lightning-retrieval-guard explain")
# What the others raise when one rank is gone.
_CONSEQUENCE = re.compile(r"gloo|Connection (closed|reset)|Broken pipe", re.IGNORECASE)
_GPU = re.compile(r"\bcuda\b|nvidia|\bgpus?\b|\bmps\b", re.IGNORECASE)
# faulthandler writes the main thread last, the innermost call first
_MAIN_THREAD = re.compile(r"(?:Current thread|Thread) 0x\w+ .*\(most recent call first\):\n((?:  File .*\n)+)")


class Processes(dict[int, Pool]):
    """The pools by their number of processes, each made when first asked for and kept from check to check."""

    def __missing__(self, world_size: int) -> Pool:
        self[world_size] = Pool(world_size, ENVIRONMENT, PRELOADED)
        return self[world_size]

    def close(self) -> None:
        """End all processes; a later check starts new ones."""
        while self:
            self.popitem()[1].close()


def run_parity(options: Options, document: Path | None = None) -> int:
    """Run a check; the table goes to stdout, progress to stderr.

    Args:
        options: What is asked.
        document: Where the JSON goes, or ``None``.

    Returns:
        0 where all numbers are the same, 1 where one is different, 2 where a run could not be made, 130 after Ctrl-C.
    """
    say = partial(print, file=sys.stderr, flush=True)
    try:
        with closing(Processes()) as processes:
            parity = check(options, processes, say)
    except KeyboardInterrupt:
        say("interrupted; all processes are ended")
        return _INTERRUPTED
    print(render(parity), flush=True)
    if document is not None:
        try:
            write_document(document, parity)
        except OSError as error:
            say(f"error: {str(document)!r} cannot be written: {error}")
            return NOT_RUN
    return parity.exit_code


def check(options: Options, processes: Processes, say: Callable[[str], None] = lambda line: None) -> Parity:
    """Evaluate the same weights and data on each number of processes, and compare the numbers.

    Args:
        options: What is asked.
        processes: Where it runs.
        say: Gets a line when a run starts, and one when it is over.
    """
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="parity-") as weights:
        for world_size in options.world_sizes:
            name, start = processes_text(world_size), time.monotonic()
            say(f"{name} ...")
            run = _run(options, processes[world_size], Path(weights), runs[0] if runs else None)
            run = replace(run, seconds=time.monotonic() - start)
            runs.append(run)
            say(f"{name}: {'not possible' if run.problem else 'done'} after {run.seconds:.1f} s")
            if runs[0].problem:
                break  # there is nothing to compare others with
    return compare(options, runs)


def _run(options: Options, pool: Pool, weights: Path, reference: Run | None) -> Run:
    try:
        sizes = share(reference.loaders, pool.world_size) if reference and options.keep == "global" else None
    except ParityError as error:
        return Run(pool.world_size, problem=str(error))
    outcomes = pool.run(
        EVALUATE, timeout=options.timeout, options=options, batch_sizes=sizes, weights=weights, folder=os.getcwd()
    )
    if not all(outcome.ok for outcome in outcomes):
        return Run(pool.world_size, problem=_problem(outcomes, options))
    first, *_ = evaluations = [outcome.value for outcome in outcomes]
    # Without a number on one process every other run would be the same as it.
    is_empty = reference is None and not first.numbers
    problem = _NOTHING_LOGGED.format(options.stage) if is_empty else ""
    return Run(pool.world_size, tuple(each.numbers for each in evaluations), first.findings, first.loaders, problem)


# --- why a run could not be made ------------------------------------------------------------------------------


def _problem(outcomes: list[Outcome], options: Options) -> str:
    failed = [outcome for outcome in outcomes if outcome.failed]
    # Its text says all: the traceback would lead into parity.
    if refused := [outcome.error for outcome in failed if ParityError.__name__ in outcome.error_types]:
        return refused[0]
    lines = _failed(failed, len(outcomes)) if failed else _hung(outcomes, options)
    warnings = dict.fromkeys(text for outcome in outcomes for text in _GUARD_SAID.findall(outcome.log))
    return "\n".join([*lines, *(f"The guard had said: {' '.join(text.split())}" for text in warnings)])


def _failed(failed: list[Outcome], count: int) -> Iterator[str]:
    # An error of its own says more than a death, and that more than the loss of another rank.
    first = min(failed, key=lambda rank: 1 if rank.status == "died" else 2 * bool(_CONSEQUENCE.search(rank.error)))
    has_died = first.status == "died"
    what = f"died: {first.error}." if has_died else f"raised {first.error_types[0]}: {first.error}"
    yield f"Rank {first.rank} of {count} {what}"
    if _GPU.search(first.error):
        yield "Parity runs on the CPU: use self.device in the module in place of a device of your own."
    if lines := first.log.splitlines()[-_LOG_LINES:]:
        yield f"The end of what rank {first.rank} wrote:"
        yield from map(_indented, lines)
    elif has_died:
        yield "It may not have started: in a script, make the call under if __name__ == '__main__'."


def _hung(outcomes: list[Outcome], options: Options) -> Iterator[str]:
    yield f"Not done after {options.timeout:g} s, which is the limit of --timeout. Where each rank stood:"
    for outcome in outcomes:
        yield f"rank {outcome.rank} of {len(outcomes)}, {'done' if outcome.ok else 'innermost call first'}:"
        for stack in _MAIN_THREAD.findall(outcome.log)[-1:]:
            yield from (_indented(line.strip()) for line in stack.splitlines()[:_STACK_LINES])
