"""The same weights in every process: one writes them to a file, the others read them.

State that is no tensor is left as each process has built it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from lightning_retrieval_guard.parity.target import ParityError

_FILE = "weights.pt"


def save_weights(module: Any, folder: Path) -> None:
    """Write the weights of a module.

    Raises:
        ParityError: A tensor has no numbers that could be copied.
    """
    try:
        torch.save({name: tensor.detach().cpu() for name, tensor in _tensors(module).items()}, folder / _FILE)
    except (RuntimeError, NotImplementedError) as error:
        raise ParityError(
            f"The weights of {type(module).__name__} cannot be copied: {error} Every process must get the same ones, so"
            " the state_dict must hold tensors with numbers in them."
        ) from error


def load_weights(module: Any, folder: Path) -> None:
    """Give a module the weights that another process has written.

    Raises:
        ParityError: The module has other tensors than the one that was written.
    """
    written: dict[str, Tensor] = torch.load(folder / _FILE, weights_only=True, mmap=True)
    here, there = _kinds(_tensors(module)), _kinds(written)
    if here != there:
        names = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
        raise ParityError(
            f"{type(module).__name__} has other weights here than on one process: {', '.join(names)}. Build the same"
            " module on every number of processes."
        )
    module.load_state_dict({**module.state_dict(), **written})


def _tensors(module: Any) -> dict[str, Tensor]:
    """The tensors of a module's state that have a shape already."""
    state = module.state_dict().items()
    return {name: value for name, value in state if isinstance(value, Tensor) and not is_lazy(value)}


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
