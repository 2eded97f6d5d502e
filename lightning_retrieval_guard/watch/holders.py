"""Where a program holds metrics that are not part of the module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn


def iter_modules(attributes: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules among attributes, and in their plain dicts and lists, each with its path such as ``metrics['mrr']``.

    Args:
        attributes: Of one object.
        prefix: What the paths begin with; nothing if empty.
    """
    for name, value in attributes.items():
        path = f"{prefix}.{name}" if prefix else name
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for place, part in ((path, value), *((f"{path}[{place!r}]", part) for place, part in parts)):
            if isinstance(part, nn.Module):
                yield place, part
