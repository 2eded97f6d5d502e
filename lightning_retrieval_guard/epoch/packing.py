"""The bytes in which queries and rows travel: a summary of every query, and the rows of those that are split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

QUERY_BYTES = 32
ROW_BYTES = 12

_ROWS_BITS = 32


@dataclass(frozen=True)
class Summary:
    """The queries of one rank.

    Attributes:
        words: The id, the metric life, the fingerprint of the rows, and the numbers of rows and of relevant rows in
            one word; int64 of shape ``(4, queries)`` on the CPU.
    """

    words: Tensor

    @classmethod
    def of(cls, query: Tensor, life: Tensor, fingerprint: Tensor, rows: Tensor, relevant: Tensor) -> Summary:
        """Pack the columns, each int64 of shape ``(queries,)``."""
        return cls(torch.stack([query, life, fingerprint, (rows << _ROWS_BITS) | relevant]))

    @classmethod
    def unpack(cls, block: Tensor) -> Summary:
        """Read what ``pack`` wrote."""
        words = block.clone().view(torch.int64).reshape(4, -1)
        # columns without rows only fill up the size that all ranks expect
        return cls(words[:, cls(words).rows > 0])

    def pack(self, queries: int) -> Tensor:
        """As bytes, uint8, filled up to a number of queries."""
        words = torch.zeros(4, queries, dtype=torch.int64)
        words[:, : self.words.shape[1]] = self.words
        return words.reshape(-1).view(torch.uint8)

    @property
    def query(self) -> Tensor:
        """The ids."""
        return self.words[0]

    @property
    def life(self) -> Tensor:
        """The metric lives."""
        return self.words[1]

    @property
    def fingerprint(self) -> Tensor:
        """What tells sets of rows apart."""
        return self.words[2]

    @property
    def rows(self) -> Tensor:
        """The numbers of rows."""
        return self.words[3] >> _ROWS_BITS

    @property
    def relevant(self) -> Tensor:
        """The numbers of relevant rows."""
        return self.words[3] & ((1 << _ROWS_BITS) - 1)


@dataclass(frozen=True)
class PackedQueries:
    """The rows of some queries of one rank, query after query; the summary tells how many rows each has.

    Attributes:
        preds: Scores, float64 of shape ``(rows,)``.
        target: Relevance, float32 of shape ``(rows,)``.
    """

    preds: Tensor
    target: Tensor

    def pack(self) -> Tensor:
        """As bytes, uint8 of shape ``(rows * ROW_BYTES,)``."""
        return torch.cat([self.preds.view(torch.uint8), self.target.view(torch.uint8)])

    @classmethod
    def unpack(cls, block: Tensor) -> PackedQueries:
        """Read what ``pack`` wrote."""
        rows = block.numel() // ROW_BYTES
        preds, target = block.split([8 * rows, 4 * rows])
        return cls(preds.clone().view(torch.float64), target.clone().view(torch.float32))
