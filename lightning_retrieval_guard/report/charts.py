"""Bars as inline SVG, with what they show as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_retrieval_guard.findings import TOLERANCE, Numbers, show_number
from lightning_retrieval_guard.report.markup import escape
from lightning_retrieval_guard.report.verdict import State

_WIDTH = 100.0


def show(value: float | None) -> str:
    """A number in words and digits; ``None`` is one that is not known."""
    if value is None:
        return "not known"
    if math.isnan(value):
        return "NaN"
    return show_number(value).replace("inf", "∞")


def pair(numbers: Numbers, state: State) -> str:
    """Logged and reference value, one bar above the other on one scale.

    The scale is 0 to 1, or reaches from 0 to whatever lies outside of that. What is not finite has no bar.
    """
    finite = [value for value in (numbers.logged, numbers.reference) if value is not None and math.isfinite(value)]
    outside = any(not -TOLERANCE <= value <= 1 for value in finite)
    # in shares of the largest, because the difference of two floats may be no float
    most = max(map(abs, finite)) if outside else 1.0
    low = min(0.0, *finite) / most if outside else 0.0
    high = max(0.0, *finite) / most if outside else 1.0
    scale = f"on a scale from {show(low * most) if low else 0} to {show(high * most) if high else 0}"
    label = f"logged {show(numbers.logged)}, reference {show(numbers.reference)}, {scale}"
    zero = -low / (high - low) * _WIDTH
    bars = [
        _bar(value / most, low, high, top, name)
        for value, top, name in ((numbers.logged, 1, f"logged {state.value}"), (numbers.reference, 13, "reference"))
        if value is not None and math.isfinite(value)
    ]
    tracks = "".join(f'<rect class="track" x="0" y="{top}" width="100" height="10"/>' for top in (1, 13))
    axis = f'<rect class="axis" x="{max(zero - 0.2, 0):.2f}" y="0" width="0.4" height="24"/>' if low < 0 else ""
    svg = _svg("pair", 24, label, f"{tracks}{''.join(bars)}{axis}")
    return f"{svg}<small>{escape(scale)}</small>" if outside else svg


def _bar(share: float, low: float, high: float, top: int, name: str) -> str:
    start, end = ((edge - low) / (high - low) * _WIDTH for edge in sorted((0.0, max(low, share))))
    return f'<rect class="{name}" x="{start:.2f}" y="{top}" width="{end - start:.2f}" height="10"/>'


def count_bar(count: int, most: int) -> str:
    """A count beside the most that any rank has."""
    share = _WIDTH * count / most if most else 0.0
    label = f"{share:.0f}% of the most that a rank has"
    track = '<rect class="track" x="0" y="0" width="100" height="6"/>'
    return _svg("count", 6, label, f'{track}<rect class="bar" x="0" y="0" width="{share:.2f}" height="6"/>')


def count_columns(counts: Sequence[int | None], label: str) -> str:
    """A count of every rank side by side; a rank without any stands out, and one that is not known is grey."""
    most = max(count or 0 for count in counts) or 1
    width = _WIDTH / len(counts)
    rects = []
    for rank, count in enumerate(counts):
        name, height = ("bar", 40 * count / most) if count else ("track" if count is None else "empty", 40)
        place = f'x="{rank * width:.3f}" y="{40 - height:.2f}" width="{width * 0.8:.3f}" height="{height:.2f}"'
        rects.append(f'<rect class="{name}" {place}/>')
    return _svg("columns", 40, label, "".join(rects))


def _svg(name: str, height: int, label: str, content: str) -> str:
    return (
        f'<svg class="{name}" viewBox="0 0 100 {height}" preserveAspectRatio="none" role="img"'
        f' aria-label="{escape(label)}">{content}</svg>'
    )
