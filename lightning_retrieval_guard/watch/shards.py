"""The first and the last sample of this rank's shard, where an iterable data set deals the samples itself.

Nothing tells what such a data set repeats to make shards equally long. Where it deals in turns and fills up with its
first samples, as samplers do, the last samples of the last ranks equal the first samples of the first ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_retrieval_guard.watch.batches import keeps_order, leaves_of


@dataclass
class ShardEdges:
    """The tensors of two samples, as they came in their batches.

    Attributes:
        first: Of the first sample.
        last: Of the last one so far.
    """

    first: list[Tensor] = field(default_factory=list)
    last: list[Tensor] = field(default_factory=list)

    def note(self, batch: Any, samples: int | None) -> None:
        """Take in a batch, without a wait for its device."""
        columns = [leaf for _, leaf in leaves_of(batch) if leaf.ndim and len(leaf) == samples]
        if not self.first:
            self.first = [column[0].clone() for column in columns]
        self.last = [column[-1].clone() for column in columns]

    @property
    def fingerprints(self) -> list[str]:
        """Of the first and the last sample; nothing where they hold no tensor. Waits for the device."""
        return [_fingerprint(sample) for sample in (self.first, self.last) if sample]


def _fingerprint(tensors: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(bytes(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).tolist()))
    return digest.hexdigest()[:32]


def is_dealt_by_data_set(loader: Any) -> bool:
    """Whether the data set decides which samples this rank gets, and these stand in the batch in their order."""
    return isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset) and keeps_order(loader)
