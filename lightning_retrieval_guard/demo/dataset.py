"""Pairs as hashed tokens, split into training and held-out pairs."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_retrieval_guard.demo.corpus import Pair, words

BUCKETS = 2**14
PADDING = 0
SENTENCE_LENGTH = 32
CODE_LENGTH = 256
# Divisible by 1 to 8, so that no sampler repeats a sample and nothing but the logging differs.
HELD_OUT = 840
BATCH_SIZES = (120, 168)

Loader = DataLoader[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Split:
    """The pairs to train on and those to evaluate on: sentences int64 (N, 32) and codes int64 (N, 256)."""

    training: TensorDataset
    held_out: TensorDataset


def split_pairs(pairs: Sequence[Pair], seed: int) -> Split:
    """Sets `HELD_OUT` pairs aside, chosen by `seed`."""
    sentences = torch.stack([hash_words(pair.sentence, SENTENCE_LENGTH) for pair in pairs])
    codes = torch.stack([hash_words(pair.code, CODE_LENGTH) for pair in pairs])
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    held_out, training = order[:HELD_OUT], order[HELD_OUT:]
    return Split(
        TensorDataset(sentences[training], codes[training]),
        TensorDataset(sentences[held_out], codes[held_out]),
    )


def hash_words(text: str, length: int) -> Tensor:
    """Returns the buckets of the first `length` words, int64 (length,), padded with 0."""
    # crc32, because Python's own hash differs from process to process.
    buckets = [zlib.crc32(word.encode()) % (BUCKETS - 1) + 1 for word in words(text)[:length]]
    return torch.tensor(buckets + [PADDING] * (length - len(buckets)))


def global_batch_size(devices: int) -> int:
    """Returns how many pairs are ranked against each other, the same on one process and on `devices`.

    A number that divides by 1 to 8 would put all held-out pairs into one batch; this way there are several.
    """
    return next(size for size in BATCH_SIZES if size % devices == 0)


def training_loader(split: Split, batch_size: int, seed: int) -> Loader:
    """Loads full batches in an order given by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(split.training, batch_size, shuffle=True, drop_last=True, generator=generator)


def held_out_loader(split: Split, batch_size: int) -> Loader:
    """Loads the held-out pairs in their order, `batch_size` on each process."""
    return DataLoader(split.held_out, batch_size)
