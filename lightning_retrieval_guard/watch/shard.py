"""What a metric that combines no ranks comes to on this rank, where the program logs the metric itself."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_retrieval_guard import _compat


def value_of_shard(metric: Any) -> float | None:
    """The value of this rank's states, where the metric never combines ranks; the metric stays as it was.

    ``None`` where it combines ranks, keeps rows, was fed nothing, or has no value that is one number.
    """
    parts = _compat.metrics_in(metric) or {"": metric}
    if any(_compat.is_rows_metric(part) or not _compat.stays_on_rank(part) for part in parts.values()):
        return None
    if all(_compat.is_blank(part) for part in parts.values()):
        return None  # a rank that was fed nothing has no shard
    # compute() may write to the tensors that the metric holds
    states = {
        path: (part.update_count, _compat.copied_states(_compat.held_states(part))) for path, part in parts.items()
    }
    with (
        contextlib.suppress(Exception),  # the program did not compute here: its own call will raise
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
        _compat.attributes_kept(metric),
        _compat.WithStates(parts, states),
        _compat.WithoutSync(metric),
        _WithoutCollectives() as collectives,  # type: ignore[no-untyped-call]
    ):
        warnings.simplefilter("ignore")
        _compat.forget_computed(metric)
        value = metric.compute()
        if collectives.refused:
            return None
        return float(value) if isinstance(value, Tensor) and value.numel() == 1 else None
    return None


class _WithoutCollectives(TorchDispatchMode):
    """Context: whatever talks to other ranks raises, as these may not compute here.

    Attributes:
        refused: Whether anything did; the program may have caught the error.
    """

    refused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "c10d" in getattr(func, "namespace", ""):  # what is built of other operators has none in old versions
            self.refused = True
            raise RuntimeError(f"{func} would have to wait for the other ranks")
        return func(*args, **(kwargs or {}))
