"""Tensors that a program made by counting from zero: what came of `torch.arange(n)`, and nothing of a batch.

Query ids that were counted for a batch start anew in the next one. That is seen where they are made: in the first batch
of an epoch, and in the hook at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_retrieval_guard.watch.batches import tensors_in

# they repeat and rearrange what they get; other tensors among their arguments give nothing but a shape, dtype or device
_REARRANGING = {
    *("repeat_interleave", "repeat", "tile", "expand", "expand_as", "broadcast_to", "view", "view_as", "reshape"),
    *("reshape_as", "flatten", "ravel", "unsqueeze", "squeeze", "t", "transpose", "permute", "contiguous", "clone"),
    *("detach", "to", "type", "type_as", "long", "int", "cpu", "cuda", "cat", "concat", "stack", "hstack", "vstack"),
}
_ADDING = {"add", "__add__", "__radd__"}


class CountedIds:
    """Knows such tensors until it is let go of."""

    def __init__(self) -> None:
        # kept, so that no other tensor can have the id of one
        self._counted: dict[int, Tensor] = {}

    def note(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        """A torch function was called."""
        if isinstance(result, Tensor) and self._is_counted(function, args, kwargs):
            self._counted[id(result)] = result

    def hold(self, tensor: Any) -> bool:
        """Whether a tensor was counted from zero."""
        return isinstance(tensor, Tensor) and self._counted.get(id(tensor)) is tensor

    def _is_counted(self, function: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        if function is torch.arange:
            start = args[0] if len(args) > 1 else kwargs.get("start", 0)
            return len(args) < 3 and "step" not in kwargs and isinstance(start, int) and start == 0
        if not self._counted or not args:
            return False
        name = getattr(function, "__name__", "")
        given = list(tensors_in(args[0]))
        if not given or not all(map(self.hold, given)):
            return False
        if name == "__getitem__":  # such as ids[:, None] or ids[mask]; numbers that choose may be of the data
            return all(index.dtype is torch.bool for index in tensors_in([args[1]]))
        # batch_idx * n is zero in the first batch
        return name in _REARRANGING or (name in _ADDING and isinstance(args[1], int) and args[1] == 0)
