"""Rows against seconds on logarithmic axes, as a small SVG that is the same for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

LABELS = {
    "torchmetrics": "torchmetrics",
    "pytrec_eval": "pytrec_eval, from tensors",
    "ranx": "ranx on arrays, compiled",
    "ours": "this package",
    "floor": "one sort of int64 keys",
}
COLOURS = {
    "torchmetrics": "#b3475a",
    "pytrec_eval": "#c98a2b",
    "ranx": "#5b8c5a",
    "ours": "#2f5fa8",
    "floor": "#8a8a8a",
}
DASHED = ("floor",)


def draw(points: Mapping[str, Sequence[Sequence[float]]], path: Path) -> None:
    """Write the figure.

    Args:
        points: For every curve its points as rows and seconds.
        path: Where the SVG goes.
    """
    import matplotlib

    matplotlib.use("svg")
    # text as text, and ids that do not change from one run to the next
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.8))
    for name, label in LABELS.items():
        if name in points:
            rows, seconds = zip(*points[name], strict=True)
            style = "--" if name in DASHED else "-"
            axes.loglog(rows, seconds, style, marker="o", markersize=4, color=COLOURS[name], label=label)
    axes.set_xlabel("rows, about 100 a query, unequal lengths, shuffled")
    axes.set_ylabel("seconds for 12 metrics, 1 thread")
    axes.minorticks_off()
    axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.patch.set_facecolor("white")
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
