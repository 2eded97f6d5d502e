"""Hashed tokens and batches."""

import pytest
import torch

from lightning_retrieval_guard.demo.corpus import Pair
from lightning_retrieval_guard.demo.encoder import BUCKETS, HELD_OUT, global_batch_size, hash_words, split_pairs

PAIRS = [Pair(f"sentence {number}", f"code {number}") for number in range(HELD_OUT + 10)]


def test_words_hash_to_the_same_buckets_in_every_process() -> None:
    # the value of crc32(b"read") % (BUCKETS - 1) + 1, so a salted hash cannot pass
    assert hash_words("read", 3).tolist() == [8910, 0, 0]


def test_tokens_are_cut_and_stay_below_the_number_of_buckets() -> None:
    tokens = hash_words(" ".join(f"w{number}" for number in range(500)), 256)
    assert tokens.shape == (256,)
    assert tokens.dtype == torch.int64
    assert tokens.min() > 0
    assert tokens.max() < BUCKETS


def test_the_split_follows_the_seed_and_loses_no_pair() -> None:
    (training, one), (_, same), (_, other) = (split_pairs(PAIRS, seed) for seed in (1, 1, 2))
    assert (len(training), len(one)) == (10, HELD_OUT)
    assert torch.equal(one.tensors[0], same.tensors[0])
    assert not torch.equal(one.tensors[0], other.tensors[0])


@pytest.mark.parametrize("devices", range(1, 9))
def test_every_world_size_ranks_full_batches_without_padding(devices: int) -> None:
    size = global_batch_size(devices)
    assert size % devices == 0
    assert HELD_OUT % size == 0
    assert HELD_OUT // size > 1
