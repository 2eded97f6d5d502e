"""What metrics of each task are fed: a function from the numbers of samples to the arguments of ``update()``.

A sample is the same whichever rank and batch it comes in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SAMPLES = 24
CLASSES, LABELS, ROWS = 4, 3, 3
WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "two", "dogs", "ran", "over", "green", "hills", "and", "sang"]

Feed = Callable[[Tensor], tuple[tuple[Any, ...], dict[str, Any]]]
_random = torch.Generator().manual_seed(2852)


def _rand(*shape: int) -> Tensor:
    return torch.rand(SAMPLES, *shape, generator=_random)


def _ints(most: int, *shape: int) -> Tensor:
    return torch.randint(most, (SAMPLES, *shape), generator=_random)


def columns(*data: Tensor) -> Feed:
    """Some samples of each tensor."""
    return lambda batch: (tuple(column[batch] for column in data), {})


def near(*shape: int, noise: float = 0.3) -> Feed:
    """Predictions that are near to the targets."""
    target = _rand(*shape)
    return columns(target + noise * _rand(*shape), target)


binary = columns(_rand(), _ints(2))
multiclass = columns(_rand(CLASSES).softmax(-1), _ints(CLASSES))
multilabel = columns(_rand(LABELS), _ints(2, LABELS))
fairness = columns(_rand(), _ints(2), _ints(2))
several_multiclass = columns(_ints(CLASSES, 5), _ints(CLASSES, 5))

values = columns(_rand() + 0.1)
regression = near()
vectors = near(LABELS)
distributions = columns(_rand(CLASSES).softmax(-1), _rand(CLASSES).softmax(-1))
ensembles = columns(_rand(5), _rand())

clusters = columns(_ints(CLASSES), _ints(CLASSES))
points = columns(_rand(2), _ints(CLASSES))
ratings = columns(torch.randint(1, 5, (SAMPLES, CLASSES), generator=_random))

signals = near(64)
long_signals = near(400)
speakers = near(2, 64)
spectrograms = near(9, 8, 2)

images = near(3, 32, 32)
small_images = near(1, 16, 16)
large_images = near(1, 48, 48)
one_image = columns(_rand(3, 16, 16))
masks = columns(_ints(2, CLASSES, 8, 8), _ints(2, CLASSES, 8, 8))
panoptic = columns(*(torch.stack([_ints(4, 6, 6), _ints(2, 6, 6)], -1) for _ in range(2)))
shapes = near(8, 3)
vertices = near(10, 3)

_pan, _ms, _fused, _low = _rand(3, 32, 32), _rand(3, 16, 16), _rand(3, 32, 32), _rand(3, 32, 32)


def pansharpened(batch: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Fused images, and those that they were made of."""
    return (_fused[batch], {"ms": _ms[batch], "pan": _pan[batch], "pan_lr": _low[batch][..., ::2, ::2]}), {}


_real = _rand(3, 8, 8)


def real_and_fake(batch: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Every other sample is real; a batch holds one kind alone, as these metrics ask for."""
    return (_real[batch],), {"real": bool(int(batch[0]) % 2)}


_queries = (_rand(ROWS), (_rand(ROWS) > 0.6).long(), _ints(SAMPLES // 2))


def retrieval(batch: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Rows of queries; a query has rows in several samples."""
    scores, relevance, ids = (column[batch] for column in _queries)
    relevance[:, 0] = 1
    return (scores.flatten(), relevance.flatten()), {"indexes": ids.repeat_interleave(ROWS)}


def _sentence(number: int, length: int) -> str:
    return " ".join(WORDS[(number * step + step * step) % len(WORDS)] for step in range(1, length + 1))


def texts(batch: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Sentences, of which most words are right."""
    numbers = batch.tolist()
    return ([_sentence(n, 5 + n % 3) for n in numbers], [_sentence(n, 6 + n % 2) for n in numbers]), {}


def corpora(batch: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same, with several references each."""
    (preds, target), _ = texts(batch)
    return (preds, [[one, f"{one} again"] for one in target]), {}


def answers(batch: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Answers to questions."""
    (preds, target), _ = texts(batch)
    given = [{"prediction_text": text, "id": str(n)} for n, text in zip(batch.tolist(), preds, strict=True)]
    right = [
        {"answers": {"answer_start": [0], "text": [text]}, "id": str(n)}
        for n, text in zip(batch.tolist(), target, strict=True)
    ]
    return (given, right), {}


tokens = columns(_rand(6, 9).softmax(-1), _ints(9, 6))


def tasks(batch: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Two tasks at once."""
    (scores, labels), _ = binary(batch)
    (preds, target), _ = regression(batch)
    return ({"label": scores, "number": preds}, {"label": labels, "number": target}), {}
