"""What the program's calls of torch functions show, in the few steps and hooks in which they are watched."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.query_ids import IdSource
from lightning_retrieval_guard.epoch.repeated_samples import ROUNDING
from lightning_retrieval_guard.watch.batches import bytes_of, tensors_in

# they repeat and rearrange what they get; other tensors among their arguments give nothing but a shape, dtype or device
_REARRANGING = {
    *("repeat_interleave", "repeat", "tile", "expand", "expand_as", "broadcast_to", "view", "view_as", "reshape"),
    *("reshape_as", "flatten", "ravel", "unsqueeze", "squeeze", "t", "transpose", "permute", "contiguous", "clone"),
    *("detach", "to", "type", "type_as", "long", "int", "cpu", "cuda", "cat", "concat", "stack", "hstack", "vstack"),
}
_ADDING = {"add", "__add__", "__radd__"}
# by a number; a difference or a remainder may be the position in the batch
_SCALING = {"mul", "__mul__", "__rmul__", "floor_divide", "__floordiv__"}
_CHOOSING = {"__getitem__", "index_select", "gather", "take", "embedding"}
# of what is true; the first column tells the sample
_LOCATING = {"nonzero", "argwhere", "where"}


class FunctionObserver(Protocol):
    """What hears of calls."""

    def note(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        """A torch function was called."""


class FunctionWatch(TorchFunctionMode):
    """Tells observers of calls while it is entered.

    One class for all of them: compiled code is compiled anew for every other stack of modes.

    Args:
        protect: Runs a part of the guard that must not bring the program down.

    Attributes:
        observers: Who hears of calls now.
    """

    def __init__(self, protect: Callable[..., object]) -> None:
        super().__init__()
        self.observers: Sequence[FunctionObserver] = ()
        self._protect = protect

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function as it is, and pass it on."""
        result = func(*args, **(kwargs or {}))
        if not _compat.is_compiling():
            for observer in self.observers:
                self._protect(observer.note, func, args, kwargs or {}, result)
        return result


class IdSources:
    """Knows integer tensors that the program counted from zero, and those that it made of the batch.

    Query ids that were counted for a batch, by ``torch.arange(n)`` or as the positions of its samples, start anew in
    the next one. Those that come of the numbers of a batch are ids of the data. Either is seen where they are made: in
    the first batch of an epoch, and in the hook at its end.

    Args:
        of_data: The tensors of the batch, or of all batches.
        limit: The most bytes of tensors that may be kept until the batch is over.
    """

    def __init__(self, of_data: Iterable[Tensor], limit: float) -> None:
        # kept, so that no other tensor can have the id of one
        self._known: dict[int, tuple[Tensor, IdSource]] = {id(tensor): (tensor, "data") for tensor in of_data}
        self._room = limit

    def note(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        """A torch function was called."""
        name = getattr(function, "__name__", "")
        if name in _LOCATING and isinstance(result, tuple):
            self._keep(result[0], "counted")
        elif isinstance(result, Tensor) and not result.is_floating_point() and id(result) not in self._known:
            self._keep(result, self._source_of(function, name, args, kwargs))

    def _keep(self, result: Tensor, source: IdSource | None) -> None:
        if source is not None and bytes_of(result) <= self._room:
            self._room -= bytes_of(result)
            self._known[id(result)] = result, source

    def of(self, tensor: Any) -> IdSource | None:
        """Where a tensor came from, if that was seen."""
        known, source = self._known.get(id(tensor), (None, None))
        return source if known is tensor else None

    def _source_of(self, function: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> IdSource | None:
        if function is torch.arange:
            start = args[0] if len(args) > 1 else kwargs.get("start", 0)
            from_zero = len(args) < 3 and "step" not in kwargs and isinstance(start, int) and start == 0
            return "counted" if from_zero else None
        if name == "repeat_interleave" and len(args) + len(kwargs.keys() - {"output_size"}) == 1:
            return "counted"  # it got how often each sample comes, and numbers the samples
        first = self._common(args[:1])
        if name in _LOCATING and len(args) + len(kwargs) == 1:
            return "located"
        if first == "located":
            return "counted" if name == "__getitem__" and _is_first_column(args[1]) else None
        if name in _REARRANGING:
            return first
        if name in _CHOOSING:  # such as ids[:, None], ids[mask] or table[ids]
            indexes = list(tensors_in(list(args[1:])))
            masks = [index for index in indexes if index.dtype is torch.bool]
            if first == "data" or (first == "counted" and len(masks) == len(indexes)):
                return first
            return "data" if not masks and self._common(args[1:]) == "data" else None
        if name in _ADDING and first == "counted":  # batch_idx * n is zero in the first batch
            return "counted" if isinstance(args[1], int) and args[1] == 0 else None
        is_data = name in _ADDING or (name in _SCALING and isinstance(args[1], int))
        return "data" if is_data and self._common(args) == "data" else None

    def _common(self, args: Sequence[Any]) -> IdSource | None:
        """Where all tensors among arguments came from, if from the same."""
        sources = {self.of(tensor) for tensor in tensors_in(list(args))}
        return sources.pop() if len(sources) == 1 else None


def _is_first_column(index: Any) -> bool:
    """Whether an index is ``[:, 0]``; one that holds tensors compares with nothing."""
    if not isinstance(index, tuple) or len(index) != 2:
        return False
    rows, column = index
    return isinstance(rows, slice) and rows == slice(None) and isinstance(column, int) and column == 0


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
    """Notes the numbers that torch functions return in a batch, the first or last sample of which the sampler repeats.

    A logged value that is such a number is worked out twice more: from the rows of that sample, and from those of the
    others. Where both make up the value, it is a mean over samples.

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
    return isinstance(result, float)  # integers are not distinguished by identity
