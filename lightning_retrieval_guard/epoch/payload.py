"""Documents as JSON: what is not as it is by default."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any


def to_payload(facts: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not what they are by default."""
    payload = {}
    for field in fields(facts):
        value = getattr(facts, field.name)
        if field.default is MISSING or value != field.default:
            payload[field.name] = value
    return payload
