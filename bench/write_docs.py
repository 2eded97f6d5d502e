"""Puts measured numbers into the documentation, between the marks that stand there for each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import figure
from bench.cost_model import GIB, OURS, WAYS, Cost, Job, Machine, rows_in_memory
from bench.marks import put
from bench.metrics import CUTS, KINDS
from bench.registry import BENCHES
from bench.rows import LENGTH
from bench.table import HEAD, markdown, number, rows

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
FIGURE = DOCS / "performance-rows.svg"

RANKS = (8, 64, 1024)
ROWS = 10**9
MEMORY = (16, 80)

Entries = Mapping[str, Any]


def refresh(entries: Entries) -> None:
    """Rewrite the parts of the page that hold numbers; one whose bench was not run stays as it is.

    Args:
        entries: The benches of a document, by name.
    """
    page = PAGE.read_text()
    for mark, part in PARTS.items():
        text = part(entries)
        if text is not None:
            page = put(page, mark, text)
    PAGE.write_text(page)
    points = entries.get("growth", {}).get("data", {}).get("points")
    if points:
        figure.draw(points, FIGURE)


def measured(entries: Entries) -> str | None:
    """The whole table, in the order of the benches."""
    ordered = [entries[name] for name in BENCHES if name in entries]
    return markdown(HEAD, rows(ordered)) if ordered else None


def surroundings(entries: Entries) -> str | None:
    """What the numbers were measured on."""
    found = [entry["on"] for entry in entries.values()]
    if not found:
        return None
    packages = ", ".join(f"{name} {version}" for name, version in found[-1]["packages"].items())
    quick = " A short run (`--quick`)." if any(entry["quick"] for entry in entries.values()) else ""
    return f"Python {found[-1]['python']}, {packages}; {found[-1]['cores']} cores, {found[-1]['machine']}.{quick}"


def curves(entries: Entries) -> str | None:
    """The points of the figure as a table."""
    points = entries.get("growth", {}).get("data", {}).get("points")
    if not points:
        return None
    sizes = [int(point[0]) for point in points["floor"]]
    names = [name for name in figure.LABELS if name in points]
    seconds = {name: dict(map(tuple, points[name])) for name in names}
    body = [[_power(size), *(_seconds(seconds[name].get(size)) for name in names)] for size in sizes]
    return markdown(["rows", *(figure.LABELS[name] for name in names)], body)


def checked(entries: Entries) -> str | None:
    """The model beside what was counted."""
    found = entries.get("model", {}).get("data", {}).get("checked")
    if not found:
        return None
    head = ["program", "collectives: model", "counted", "bytes sent a rank: model", "counted"]
    body = [
        [
            row["program"],
            number(row["model_collectives"]),
            number(row["collectives"]),
            number(round(row["model_bytes"])),
            number(row["bytes"]),
        ]
        for row in found
    ]
    return markdown(head, body)


def costs(entries: Entries) -> str | None:
    """What the model says for many ranks and 1e9 rows."""
    machine = machine_of(entries)
    head = ["way", "W", "collectives", "sent a rank", "received a rank", "travel", "with scoring"]
    body = []
    for name, way in chosen_ways(entries).items():
        for ranks in RANKS:
            cost = way(Job(ranks=ranks, rows=ROWS))
            body.append([name, f"{ranks:,}", *_cost_cells(cost, ranks, machine)])
    return markdown(head, body)


def _cost_cells(cost: Cost, ranks: int, machine: Machine) -> list[str]:
    return [
        f"{cost.calls.total():,}",
        _bytes(cost.sent),
        _bytes(cost.received),
        _seconds(cost.travel_seconds(ranks, machine)),
        _seconds(cost.seconds(ranks, machine)),
    ]


def chosen_ways(entries: Entries) -> dict[str, Callable[[Job], Cost]]:
    """The ways of the model without those of ours that the counted version did not take."""
    found = entries.get("model", {}).get("data", {}).get("checked", [])
    taken = {row["way"] for row in found}
    ours = {way for ways in OURS.values() for way in ways}
    return {name: way for name, way in WAYS.items() if not taken or way not in ours or way.__name__ in taken}


def machine_of(entries: Entries) -> Machine:
    """The assumed network with the measured times of scoring."""
    points = entries.get("growth", {}).get("data", {}).get("points", {})
    machine = Machine()
    if "ours" in points:
        count, seconds = points["ours"][-1]
        machine = replace(machine, row_seconds=seconds / count)
    if "torchmetrics" in points:
        count, seconds = points["torchmetrics"][-1]
        machine = replace(machine, query_seconds=seconds / (count / LENGTH * len(CUTS) * len(KINDS)))
    return machine


def assumptions(entries: Entries) -> str | None:
    machine = machine_of(entries)
    return (
        f"A message takes {machine.latency * 1e6:.0f} us and {machine.bandwidth / 1e9:g} GB a second reach a rank"
        f" (assumed). Sorting and scoring a row takes {machine.row_seconds * 1e9:.0f} ns for all 12 metrics, and"
        f" torchmetrics {machine.query_seconds * 1e6:.0f} us for a query and metric (measured, see above)."
    )


def limits(entries: Entries) -> str | None:
    """Where a gather of all rows no longer fits."""
    head = ["ranks", *(f"{memory} GiB: rows {of}" for of in ("a rank", "in all") for memory in MEMORY)]
    body = []
    for ranks in (8, 64, 256, 1024):
        own = [rows_in_memory(ranks, memory * GIB) for memory in MEMORY]
        body.append([f"{ranks:,}", *(_power(count) for count in own), *(_power(ranks * count) for count in own)])
    return markdown(head, body)


def _bytes(count: float) -> str:
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{number(count / 10**power)} {unit}"
    return f"{count:.0f} B"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds >= 3600:
        return f"{number(seconds / 3600)} h"
    return f"{number(seconds)} s" if seconds >= 1 else f"{number(seconds * 1000)} ms"


def _power(count: float) -> str:
    """A count in the form 1.2e6."""
    mantissa, exponent = f"{count:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


PARTS: dict[str, Callable[[Entries], str | None]] = {
    "measured": measured,
    "surroundings": surroundings,
    "curves": curves,
    "checked": checked,
    "assumptions": assumptions,
    "costs": costs,
    "limits": limits,
}
