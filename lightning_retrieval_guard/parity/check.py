"""The runs of one check: one process first, then each other number of them with the same weights."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from lightning_retrieval_guard.parity.compare import Parity, Run, compare
from lightning_retrieval_guard.parity.cut import Loader, share
from lightning_retrieval_guard.parity.options import Options
from lightning_retrieval_guard.parity.pool import Outcome, Pool
from lightning_retrieval_guard.parity.target import ParityError
from lightning_retrieval_guard.parity.worker import EVALUATE, Case, Shown
from lightning_retrieval_guard.settings import VARIABLES

LOG_LINES = 20
STACK_LINES = 8

_GUARD_SAID = re.compile(r"GuardWarning: (LRG\d{3}.*(?:\n {2}.*)*?)\n {2}lightning-retrieval-guard explain")
# What the others raise when one rank is gone.
_CONSEQUENCE = re.compile(r"gloo|Connection (closed|reset)|Broken pipe", re.IGNORECASE)
_GPU = re.compile(r"\bcuda\b|nvidia|\bgpus?\b|\bmps\b", re.IGNORECASE)
# faulthandler writes the main thread last, the innermost call first
_MAIN_THREAD = re.compile(r"(?:Current thread|Thread) 0x\w+ .*\(most recent call first\):\n((?:  File .*\n)+)")

PRELOADED = (EVALUATE.partition(":")[0], "torchmetrics.retrieval")
# The runs bring their own guard, and no GPU is seen.
ENVIRONMENT = {**dict.fromkeys(VARIABLES), "CUDA_VISIBLE_DEVICES": ""}

Say = Callable[[str], None]


class Processes:
    """The pools of processes, one a number of them, kept from check to check."""

    def __init__(self) -> None:
        self._pools: dict[int, Pool] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def pool(self, world_size: int) -> Pool:
        """The pool of that many processes."""
        if world_size not in self._pools:
            self._pools[world_size] = Pool(world_size, ENVIRONMENT, PRELOADED)
        return self._pools[world_size]

    def close(self) -> None:
        """End all processes; a later check starts new ones."""
        while self._pools:
            self._pools.popitem()[1].close()


def check(options: Options, processes: Processes, say: Say = lambda line: None) -> Parity:
    """Evaluate the same weights and data on each number of processes, and lay the numbers side by side.

    Args:
        options: What is asked.
        processes: Where it runs.
        say: Gets a line when a run starts, and one when it is over.
    """
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        case = Case(options, None, Path(folder), os.getcwd())
        runs: list[Run] = []
        for world_size in options.world_sizes:
            name, start = processes_text(world_size), time.monotonic()
            say(f"{name} ...")
            pool = processes.pool(world_size)
            run = _other(case, runs[0], pool) if runs else _reference(case, pool)
            runs.append(replace(run, seconds=time.monotonic() - start))
            say(f"{name}: {'not possible' if run.problem else 'done'} after {runs[-1].seconds:.1f} s")
            if runs[0].problem:
                break  # there is nothing to compare others with
    return compare(options, runs)


def _reference(case: Case, pool: Pool) -> Run:
    run = _run(case, pool)
    if not run.problem and not run.numbers:
        return replace(
            run,
            problem=f"Nothing was logged with self.log for the epoch of {case.options.stage!r}, so there is nothing to"
            " compare. Log a number, or choose another --stage.",
        )
    return run


def _other(case: Case, reference: Run, pool: Pool) -> Run:
    if case.options.keep == "global":
        try:
            case = replace(case, batch_sizes=share(reference.loaders, pool.world_size))
        except ParityError as error:
            return Run(pool.world_size, problem=str(error))
    return _run(case, pool)


def _run(case: Case, pool: Pool) -> Run:
    outcomes = pool.run(EVALUATE, timeout=case.options.timeout, case=case)
    if not all(outcome.ok for outcome in outcomes):
        return Run(pool.world_size, problem=_problem(outcomes, case.options))
    shown: list[Shown] = [outcome.value for outcome in outcomes]
    loaders: tuple[Loader, ...] = shown[0].loaders
    return Run(pool.world_size, tuple(own.numbers for own in shown), shown[0].findings, loaders)


def processes_text(world_size: int) -> str:
    """A number of processes in words."""
    return "1 process" if world_size == 1 else f"{world_size} processes"


# --- why a run could not be made ------------------------------------------------------------------------------


def _problem(outcomes: list[Outcome], options: Options) -> str:
    failed = [outcome for outcome in outcomes if outcome.failed]
    refused = next((own for own in failed if ParityError.__name__ in own.error_types), None)
    if refused is not None:
        return refused.error
    parts = [_failed(failed, len(outcomes)) if failed else _hung(outcomes, options)]
    said = dict.fromkeys(found for outcome in outcomes for found in _GUARD_SAID.findall(outcome.log))
    parts += [f"The guard had said: {' '.join(text.split())}" for text in said]
    return "\n".join(parts)


def _failed(failed: list[Outcome], count: int) -> str:
    first = min(failed, key=_blame)
    what = f"Rank {first.rank} of {count} " + (
        f"raised {first.error_types[0]}: {first.error}" if first.status == "raised" else f"died: {first.error}."
    )
    lines = [what]
    if _GPU.search(first.error):
        lines.append("Parity runs on the CPU: use self.device in the module in place of a device of your own.")
    wrote = first.log.splitlines()[-LOG_LINES:]
    if wrote:
        lines += [f"The end of what rank {first.rank} wrote:", *_indented(wrote)]
    elif first.status == "died":
        lines.append("It may not have started: in a script, make the call under if __name__ == '__main__'.")
    return "\n".join(lines)


def _blame(outcome: Outcome) -> int:
    """Which rank to show first: one with an error of its own, one that died, one that only lost another."""
    if outcome.status == "died":
        return 1
    return 2 if _CONSEQUENCE.search(outcome.error) else 0


def _hung(outcomes: list[Outcome], options: Options) -> str:
    lines = [f"Not done after {options.timeout:g} s, which is the limit of --timeout. Where each rank stood:"]
    for outcome in outcomes:
        lines.append(f"rank {outcome.rank} of {len(outcomes)}, {'done' if outcome.ok else 'innermost call first'}:")
        lines += _indented(_main_stack(outcome.log))
    return "\n".join(lines)


def _main_stack(log: str) -> Iterator[str]:
    found = _MAIN_THREAD.findall(log)
    for line in found[-1].splitlines()[:STACK_LINES] if found else ():
        yield line.strip()


def _indented(lines: Iterator[str] | list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
