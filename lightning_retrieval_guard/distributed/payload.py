"""What ranks sent that is not what this version of the guard sends."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Told = TypeVar("Told")
Read = TypeVar("Read")


class ProtocolError(ValueError):
    """What some ranks sent is not what this version of the guard sends; all ranks find that out together.

    Attributes:
        reasons: What is wrong, by rank.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        told = "; ".join(f"rank {rank} sent what cannot be read: {reason}" for rank, reason in reasons.items())
        super().__init__(f"{told}. All ranks must run the same version of lightning-retrieval-guard.")
        self.reasons = dict(reasons)


def read_all(read: Callable[[Told], Read], told: Sequence[Told]) -> list[Read]:
    """Read what every rank sent.

    Args:
        read: Reads what one rank sent; raises ``ValueError`` where it is malformed.
        told: What was sent, in order of rank.

    Raises:
        ProtocolError: With all ranks that sent something malformed.
    """
    results = [_try(read, own) for own in told]
    wrong = {rank: str(result) for rank, result in enumerate(results) if isinstance(result, Exception)}
    if wrong:
        raise ProtocolError(wrong)
    return [result for result in results if not isinstance(result, Exception)]


def _try(read: Callable[[Told], Read], told: Told) -> Read | Exception:
    try:
        return read(told)
    except (zlib.error, ValueError, RecursionError) as error:
        return error


def as_entry(told: Any) -> tuple[str, dict[str, Any]]:
    """The label and the message of a rank.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(told, list) and len(told) == 2 and isinstance(told[0], str) and isinstance(told[1], dict):
        return told[0], told[1]
    raise ValueError("it is no label with a message")
