"""For tests: a module logs the same numbers on any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning_retrieval_guard.parity import Options, ParityError, build_options
from lightning_retrieval_guard.parity.check import Processes, check
from lightning_retrieval_guard.parity.compare import DIFFERENT
from lightning_retrieval_guard.parity.options import Keep, Mode, Stage
from lightning_retrieval_guard.parity.render import render

__all__ = ["ParityError", "assert_same_on_any_world_size", "end_processes"]

_processes = Processes()


def assert_same_on_any_world_size(
    target: str | Callable[..., Any],
    *,
    world_sizes: Sequence[int] = Options.world_sizes,
    stage: Stage = "validate",
    mode: Mode = "warn",
    keep: Keep = "global",
    rtol: float = Options.rtol,
    atol: float = Options.atol,
    timeout: float = Options.timeout,
    seed: int = 0,
) -> None:
    """Evaluate the same weights and data on several numbers of CPU processes, and compare what is logged.

    The processes are kept for the next call, and end with the test run.

    Args:
        target: The function that builds the module and its data, at the top of a module, or where it is:
            ``"path/to/file.py:function"`` or ``"package.module:function"``.
        world_sizes: The numbers of processes; 1, the reference, is always among them.
        stage: ``"validate"`` or ``"test"``.
        mode: Of the guard: ``"warn"`` compares the program's own numbers, ``"correct"`` the corrected ones.
        keep: ``"global"`` keeps the batch of all processes together, ``"per-rank"`` that of each.
        rtol: The relative difference that counts as none.
        atol: The absolute difference that counts as none.
        timeout: Seconds that each number of processes may take.
        seed: Of every process.

    Raises:
        AssertionError: A number is different; the text is the table, with the findings that explain it.
        ParityError: A run could not be made; the text says why.
        ValueError: An argument has a value that is not allowed.
    """
    __tracebackhide__ = True
    numbers = {"rtol": rtol, "atol": atol, "timeout": timeout, "seed": seed}
    options = build_options(target, world_sizes=world_sizes, stage=stage, mode=mode, keep=keep, **numbers)
    parity = check(options, _processes)
    if parity.exit_code == DIFFERENT:
        raise AssertionError(f"\n{render(parity)}")
    if parity.problems:
        raise ParityError(f"\n{render(parity)}")


def end_processes() -> None:
    """End the processes that were kept; a later call starts new ones."""
    _processes.close()
