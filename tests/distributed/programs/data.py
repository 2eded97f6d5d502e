"""Small seeded data sets; scores are distinct and positive, so that neither ties nor signs play a part."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

Batch = dict[str, Tensor]

WIDTH = 8


class Columns(Dataset[Batch]):
    """A data set given by its columns, one entry a sample."""

    def __init__(self, **columns: Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> Batch:
        return {name: column[index] for name, column in self.columns.items()}


def queries(count: int, empty: bool) -> Columns:
    """One query a sample, each with its own candidates; lists are 4 to 8 long.

    Args:
        count: how many queries.
        empty: make every seventh query one without relevant rows, the one after it one with no others.
    """
    rng = np.random.default_rng(7)
    shape = (count, WIDTH)
    score = (rng.permutation(count * WIDTH).reshape(shape) + 1.0) / (count * WIDTH + 1)
    target = (rng.random(shape) < 0.35).astype(np.int64)
    target[:, 0], target[:, 1] = 1, 0  # one of each in the part of the list that is always there
    target[np.arange(count) % 2 == 0, :2] = 0, 1
    if empty:
        target[3::7], target[4::7] = 0, 1
    mask = np.arange(WIDTH) < rng.integers(4, WIDTH + 1, count)[:, None]
    return Columns(
        score=torch.tensor(score, dtype=torch.float32),
        target=torch.tensor(target),
        mask=torch.tensor(mask),
        query=torch.arange(count),
    )


def rows_of(batch: Batch, query: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, targets and query ids of the rows in a batch of `queries`, each of shape (rows,)."""
    ids = batch["query"] if query is None else query
    mask = batch["mask"]
    return batch["score"][mask], batch["target"][mask], ids[:, None].expand_as(mask)[mask]


def rows_to_ignore(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """All rows of a batch of `queries`, each of shape (batch, `WIDTH`), with target -1 beyond a list's end."""
    target = batch["target"].where(batch["mask"], -1)
    return batch["score"], target, batch["query"][:, None].expand_as(target)


def rows(count: int) -> Columns:
    """One row a sample, in an order that spreads every query over batches and ranks."""
    score, target, query = rows_of(queries(count // 4, empty=False).columns)
    order = torch.from_numpy(np.random.default_rng(11).permutation(count))
    return Columns(score=score[order], target=target[order], query=query[order])


def pairs(count: int) -> Columns:
    """A query and a document embedding a sample, with a class: those of the same class are relevant."""
    rng = np.random.default_rng(17)
    label = rng.integers(0, 5, count)
    centre = rng.random((5, 6))
    query, document = (centre[label] + 0.6 * rng.random((count, 6)) for _ in range(2))
    return Columns(
        anchor=torch.tensor(query, dtype=torch.float32),
        document=torch.tensor(document, dtype=torch.float32),
        label=torch.tensor(label),
    )


def losses(count: int) -> Columns:
    """One loss a sample; they grow, so that the weight of the last batch shows."""
    values = np.random.default_rng(19).random(count) + np.linspace(0.0, 3.0, count) ** 2
    return Columns(loss=torch.tensor(values, dtype=torch.float32))
