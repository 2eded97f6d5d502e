"""What one sample adds to the mean of a batch, for a sample that the sampler repeats.

While a batch runs whose first or last sample is repeated, torch functions that return one number are noted with what
they got. A logged value that is such a number is worked out twice more: from the rows of that sample, and from those of
the others. Where both make up the value, it is a mean over samples.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.repeated_samples import ROUNDING
from lightning_retrieval_guard.watch.batches import bytes_of, tensors_in


class _Call(NamedTuple):
    """A call of a torch function, and the number that it returned, which keeps its ``id`` from coming again."""

    result: Any
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class BatchMean:
    """A mean that was logged in a batch, one sample of which is repeated; numbers stay on their device.

    Attributes:
        value: The mean.
        size: The samples in the batch.
        sample: What it comes to for the repeated sample alone, where that is known.
        others: What it comes to for the others.
    """

    value: Any
    size: int
    sample: Any = None
    others: Any = None

    @property
    def total(self) -> float:
        """The sum over the batch. Waits for the device."""
        return float(self.value) * self.size

    @property
    def of_sample(self) -> float | None:
        """What the sample adds to that sum, where the value is a mean over samples. Waits for the device."""
        if self.sample is None:
            return None
        sample, others = float(self.sample), 0.0 if self.others is None else float(self.others)
        rounding = ROUNDING * max(abs(sample), abs(others))
        is_mean = abs(sample + (self.size - 1) * others - self.total) <= rounding * self.size
        # a sum over samples, divided by a number that does not depend on them
        is_sum = abs(sample + others - float(self.value)) <= rounding
        return sample if is_mean else sample * self.size if is_sum else None


class SampleMeans:
    """Notes the numbers that torch functions return, and works them out for fewer samples.

    Args:
        size: The samples in the batch.
        limit: The most bytes of what functions got that may be kept until the batch is over.
    """

    def __init__(self, size: int, limit: float) -> None:
        self._size = size
        self._room = limit
        self._calls: dict[int, _Call] = {}
        self._notes = True

    def note(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        """A torch function was called."""
        if self._notes and _is_number(result):
            self._room -= sum(map(bytes_of, tensors_in([args, kwargs])))
            if self._room >= 0:
                self._calls.setdefault(id(result), _Call(result, function, args, kwargs))

    def mean(self, value: Any, is_last: bool) -> BatchMean:
        """A value that is logged, and what the repeated sample has in it.

        Args:
            value: The value.
            is_last: Whether the last sample of the batch is meant, and not the first.
        """
        plain = value.detach().clone() if isinstance(value, Tensor) else value
        if self._size == 1:
            return BatchMean(plain, 1, sample=plain)
        one, others = (slice(-1, None), slice(None, -1)) if is_last else (slice(1), slice(1, None))
        self._notes = False
        try:
            # the program must draw the numbers that it would draw without the guard
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                return BatchMean(plain, self._size, self._of(value, one, {}), self._of(value, others, {}))
        except (RuntimeError, ValueError, TypeError, IndexError):  # a function that does not take fewer samples
            return BatchMean(plain, self._size)
        finally:
            self._notes = True

    def _of(self, value: Any, rows: slice, results: dict[int, Any]) -> Any:
        """A value, worked out from some of the samples; ``results`` are those that were already."""
        call = self._calls.get(id(value))
        if call is not None:
            if id(value) not in results:
                results[id(value)] = self._call(call, rows, results)
            return results[id(value)]
        if isinstance(value, Tensor):
            return value[rows] if value.ndim and len(value) == self._size else value
        if isinstance(value, (list, tuple)):
            return type(value)(self._of(part, rows, results) for part in value)
        return value

    def _call(self, call: _Call, rows: slice, results: dict[int, Any]) -> Any:
        args = [self._of(entry, rows, results) for entry in call.args]
        kwargs = {name: self._of(entry, rows, results) for name, entry in call.kwargs.items()}
        if all(map(operator.is_, (*args, *kwargs.values()), (*call.args, *call.kwargs.values()))):
            return call.result  # of no sample; called again, it might draw random numbers
        if not isinstance(call.result, Tensor):  # such as item(), which would wait for the device
            return args[0]
        return call.function(*args, **kwargs)


def _is_number(result: Any) -> bool:
    if isinstance(result, Tensor):
        return result.ndim == 0 and not result.requires_grad  # which would keep its whole graph alive
    return isinstance(result, float)  # integers are not told apart by identity
