"""The same weights in every process: one writes them to a file as plain numbers, the others read them.

The index names each tensor with its dtype and shape; the numbers follow each other in a file of bytes, which is mapped
into memory. State that is no tensor is left as each process has built it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from lightning_retrieval_guard.parity.target import ParityError

INDEX, NUMBERS = "weights.json", "weights.bin"


def save_weights(module: Any, folder: Path) -> None:
    """Write the weights of a module.

    Raises:
        ParityError: A tensor has no numbers that could be copied.
    """
    tensors = _tensors(module)
    try:
        size = sum(tensor.nbytes for tensor in tensors.values())
        (folder / INDEX).write_text(json.dumps(_index(tensors)), encoding="utf-8")
        for part, tensor in _parts(folder, tensors, size, shared=True):
            part.copy_(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8))
    except (RuntimeError, NotImplementedError) as error:
        raise ParityError(
            f"The weights of {type(module).__name__} cannot be copied: {error} Every process must get the same ones, so"
            " the state_dict must hold dense tensors with numbers in them."
        ) from error


def load_weights(module: Any, folder: Path) -> None:
    """Give a module the weights that another process has written.

    Raises:
        ParityError: The module has other tensors than the one that was written.
    """
    tensors = _tensors(module)
    own, written = _index(tensors), json.loads((folder / INDEX).read_text(encoding="utf-8"))
    if own != written:
        names = sorted(name for name in own.keys() | written.keys() if own.get(name) != written.get(name))
        raise ParityError(
            f"{type(module).__name__} has other weights here than on one process: {', '.join(names)}. Build the same"
            " module on every number of processes."
        )
    size = sum(tensor.nbytes for tensor in tensors.values())
    loaded = {
        name: part.clone().view(tensor.dtype).reshape(tensor.shape)
        for name, (part, tensor) in zip(tensors, _parts(folder, tensors, size, shared=False), strict=True)
    }
    module.load_state_dict({**module.state_dict(), **loaded})


def _tensors(module: Any) -> dict[str, Tensor]:
    """The tensors of a module's state that have a shape already."""
    return {
        name: value for name, value in module.state_dict().items() if isinstance(value, Tensor) and not is_lazy(value)
    }


def _index(tensors: dict[str, Tensor]) -> dict[str, list[Any]]:
    return {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()}


def _parts(folder: Path, tensors: dict[str, Tensor], size: int, shared: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """For each tensor its bytes in the file, uint8 of shape ``(nbytes,)``; written to where ``shared``."""
    if size == 0:
        whole = torch.empty(0, dtype=torch.uint8)
    else:
        whole = torch.from_file(str(folder / NUMBERS), shared=shared, size=size, dtype=torch.uint8)
    sizes = [tensor.nbytes for tensor in tensors.values()]
    yield from zip(whole.split(sizes), tensors.values(), strict=True)
