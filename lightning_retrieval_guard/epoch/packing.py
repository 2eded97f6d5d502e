"""The bytes in which queries and rows travel: a summary of every query, then the rows that can still matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

QUERY_BYTES = 32
ROW_BYTES = 16

_ROWS_BITS = 32
_NO_QUERY = -1


@dataclass(frozen=True)
class Summary:
    """The queries of one rank.

    Attributes:
        words: The id, the metric life, the fingerprint of the rows, and the numbers of rows and of relevant rows in
            one word; int64 of shape ``(4, queries)`` on the CPU.
    """

    words: Tensor

    @classmethod
    def of(cls, query: Tensor, segment: Tensor, fingerprint: Tensor, rows: Tensor, relevant: Tensor) -> Summary:
        """Pack the columns, each int64 of shape ``(queries,)``."""
        return cls(torch.stack([query, segment, fingerprint, (rows << _ROWS_BITS) | relevant]))

    @property
    def query(self) -> Tensor:
        """The ids."""
        return self.words[0]

    @property
    def segment(self) -> Tensor:
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
    """Queries of one rank with their rows.

    Attributes:
        summary: The queries.
        place: For every row its query's place in the summary, int64 of shape ``(rows,)``.
        preds: Scores, float64 of shape ``(rows,)``.
        target: Relevance, float32 of shape ``(rows,)``.
    """

    summary: Summary
    place: Tensor
    preds: Tensor
    target: Tensor

    def pack(self, queries: int, rows: int) -> Tensor:
        """The parcel in the size that its receiver expects, uint8; what is missing is filled up."""
        words = torch.zeros(4, queries, dtype=torch.int64)
        words[:, : self.summary.words.shape[1]] = self.summary.words
        place = torch.full((rows,), _NO_QUERY, dtype=torch.int32)
        preds, target = torch.zeros(rows, dtype=torch.float64), torch.zeros(rows)
        held = self.place.numel()
        place[:held], preds[:held], target[:held] = self.place, self.preds, self.target
        columns = (words.reshape(-1), preds, place, target)
        return torch.cat([column.view(torch.uint8) for column in columns])

    @classmethod
    def unpack(cls, block: Tensor, queries: int, rows: int) -> PackedQueries:
        """Read what ``pack`` wrote.

        Raises:
            ValueError: A row belongs to no query of the parcel.
        """
        sizes = [queries * QUERY_BYTES, rows * 8, rows * 4, rows * 4]
        words, preds, place, target = (part.clone() for part in block[: sum(sizes)].split(sizes))
        known = place.view(torch.int32) != _NO_QUERY
        if bool(((place.view(torch.int32)[known] < 0) | (place.view(torch.int32)[known] >= queries)).any()):
            raise ValueError("rows came without their query")
        return cls(
            Summary(words.view(torch.int64).reshape(4, queries)),
            place.view(torch.int32)[known].long(),
            preds.view(torch.float64)[known],
            target.view(torch.float32)[known],
        )


def packed_bytes(queries: int, rows: int) -> int:
    """The size of a parcel."""
    return queries * QUERY_BYTES + rows * ROW_BYTES


def join_packed(parcels: Sequence[PackedQueries]) -> PackedQueries:
    """The parcels of several ranks as one."""
    starts = torch.tensor([0] + [parcel.summary.words.shape[1] for parcel in parcels]).cumsum(0).tolist()
    return PackedQueries(
        Summary(torch.cat([parcel.summary.words for parcel in parcels], dim=1)),
        torch.cat([parcel.place + start for parcel, start in zip(parcels, starts, strict=False)]),
        torch.cat([parcel.preds for parcel in parcels]),
        torch.cat([parcel.target for parcel in parcels]),
    )
