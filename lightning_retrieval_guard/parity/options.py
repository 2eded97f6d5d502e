"""What is asked of parity: the frozen, validated options and the error that says why it could not run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lightning_retrieval_guard.parity.target import Target, find_target

Stage = Literal["validate", "test"]
Mode = Literal["warn", "correct"]
Keep = Literal["global", "per-rank"]

STAGES, MODES, KEEPS = (get_args(kind) for kind in (Stage, Mode, Keep))
WORLD_SIZES = (1, 2, 4)
LARGEST_WORLD_SIZE = 64
RTOL, ATOL = 1e-5, 1e-6
TIMEOUT = 300.0
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Options:
    """What is asked, after validation."""

    target: Target  # the function that builds the module and its data
    world_sizes: tuple[int, ...]  # in ascending order; the first is 1, the reference
    stage: Stage  # what is run on the module
    mode: Mode  # of the guard in every run
    keep: Keep  # which batch stays the same: that of all processes together, or the one that the program gives each
    rtol: float  # the relative difference, to the number of one process, that counts as none
    atol: float  # the absolute difference that counts as none
    timeout: float  # seconds that each run may take
    seed: int  # of every process, before the function is called and before the evaluation


def build_options(
    target: str | Callable[..., Any],
    *,
    world_sizes: Sequence[int] = WORLD_SIZES,
    stage: str = "validate",
    mode: str = "warn",
    keep: str = "global",
    rtol: float = RTOL,
    atol: float = ATOL,
    timeout: float = TIMEOUT,
    seed: int = 0,
) -> Options:
    """Validate the options; 1 is added to ``world_sizes``, because one process is the reference.

    Raises:
        ParityError: The target is neither a file nor a module with a function, or there is no such file.
        ValueError: Another option has a value that is not allowed; the message names the allowed ones.
    """
    sizes = tuple(sorted({1, *world_sizes}))
    if len(sizes) < 2 or sizes[0] < 1 or sizes[-1] > LARGEST_WORLD_SIZE:
        raise ValueError(
            f"world_sizes={tuple(world_sizes)!r} is not allowed. Give whole numbers from 1 to {LARGEST_WORLD_SIZE}, one"
            " of them above 1, such as 1,2,4."
        )
    for name, given, allowed in (("stage", stage, STAGES), ("mode", mode, MODES), ("keep", keep, KEEPS)):
        if given not in allowed:
            raise ValueError(f"{name}={given!r} is not one of {', '.join(map(repr, allowed))}.")
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not 0 <= tolerance < math.inf:
            raise ValueError(f"{name}={tolerance!r} must be a number from 0 on.")
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout={timeout!r} must be a number of seconds above 0.")
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed={seed!r} must be a whole number from 0 to {LARGEST_SEED}.")
    return Options(find_target(target), sizes, stage, mode, keep, rtol, atol, timeout, seed)  # type: ignore[arg-type]
