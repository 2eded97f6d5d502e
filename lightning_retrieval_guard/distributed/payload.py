"""What ranks sent that is not what this version of the guard sends."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Sent = TypeVar("Sent")
Read = TypeVar("Read")


class ProtocolError(ValueError):
    """What some ranks sent is not what this version of the guard sends; all ranks find that out together.

    Attributes:
        reasons: What is wrong, by rank.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        listed = "; ".join(f"rank {rank} sent what cannot be read: {reason}" for rank, reason in reasons.items())
        super().__init__(f"{listed}. All ranks must run the same version of lightning-retrieval-guard.")
        self.reasons = dict(reasons)


def read_all(read: Callable[[Sent], Read], sent: Sequence[Sent]) -> list[Read]:
    """Read what every rank sent.

    Args:
        read: Reads what one rank sent; raises where it is malformed.
        sent: In order of rank.

    Raises:
        ProtocolError: With all ranks that sent something malformed.
    """
    results = [_try(read, payload) for payload in sent]
    wrong = {rank: str(result) for rank, result in enumerate(results) if isinstance(result, Exception)}
    if wrong:
        raise ProtocolError(wrong)
    return [result for result in results if not isinstance(result, Exception)]


def _try(read: Callable[[Sent], Read], sent: Sent) -> Read | Exception:
    # one bad message must not stop this rank before all ranks know whose it is
    try:
        return read(sent)
    except (zlib.error, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        return error


def as_entry(sent: Any) -> tuple[str, dict[str, Any]]:
    """The label and the message of a rank.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(sent, list) and len(sent) == 2 and isinstance(sent[0], str) and isinstance(sent[1], dict):
        return sent[0], sent[1]
    raise ValueError("it is no label with a message")
