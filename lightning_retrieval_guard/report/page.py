"""The report as one HTML page that needs nothing else: no script, no network, every string of the user escaped."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lightning_retrieval_guard.findings import show_number
from lightning_retrieval_guard.report.document import EpochNumbers, Report, RowCounts, StageCounts
from lightning_retrieval_guard.report.faults import Fault, KeyState, group, judge_keys, ratio_text, verdict
from lightning_retrieval_guard.report.source import excerpts
from lightning_retrieval_guard.report.text import several

# With more ranks the table is folded away; of more metrics that are alike the others are counted.
_MOST_ROWS, _MOST_METRICS = 16, 4
_CHART_WIDTH, _CHART_HEIGHT = 100, 24
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff"
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # what turns the direction of text around
)


def render_page(report: Report) -> str:
    """The report as a page. The source lines of the findings are read now."""
    keys = judge_keys(report.keys, report.findings)
    faults = group(report.findings)
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            verdict=f"Run stopped: {', '.join(report.stopped)}" if report.stopped else verdict(keys, report.findings),
            tone=_tone([key.state for key in keys], faults),
            faults=[fault for fault in faults if fault.serious],
            notes=[fault for fault in faults if not fault.serious],
            keys=keys,
            links={(finding.key, finding.code): fault.id for fault in faults for finding in fault.serious},
            policy=_policy(),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters.update(number=_number, several=several, ranks=_ranks, evenness=_evenness)
    environment.globals.update(
        excerpts=excerpts,
        ratio=ratio_text,
        sparkline=_sparkline,
        rank_tables=_rank_tables,
        css=Markup(_style()),
        most_rows=_MOST_ROWS,
        most_metrics=_MOST_METRICS,
    )
    return environment


def _printable(value: Any) -> Any:
    """What no page may hold is a sign in its place."""
    # For every value that a template prints: file names and keys come from the program.
    return _CONTROL.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _style() -> str:
    loader = PackageLoader(__package__ or "", "templates")
    return loader.get_source(Environment(autoescape=True), "report.css")[0]


def _policy() -> str:
    # The page cannot load or run anything, whatever it holds: this one style is all that is allowed.
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _tone(states: Sequence[KeyState], faults: Sequence[Fault]) -> str:
    """The state that gives the page its colour."""
    if KeyState.WRONG in states or any(fault.serious and not fault.corrected for fault in faults):
        return KeyState.WRONG.value
    if KeyState.CORRECTED in states:
        return KeyState.CORRECTED.value
    return KeyState.RIGHT.value if states else KeyState.UNCHECKED.value


def _number(value: float | None) -> str:
    if value is None:
        return "\u2013"
    return "NaN" if math.isnan(value) else show_number(value).replace("inf", "∞")


def _ranks(ranks: Sequence[int], world_size: int) -> str:
    """Ranks in words, with runs of them as ranges."""
    if len(ranks) == world_size > 1:
        return f"all {world_size}"
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and runs[-1][-1] == rank - 1:
            runs[-1][1:] = [rank]  # only the ends of a run are shown
        else:
            runs.append([rank])
    return ", ".join("\u2013".join(map(str, run)) for run in runs) or "none"


# --- numbers over epochs --------------------------------------------------------------------------------------


def _sparkline(epochs: Sequence[EpochNumbers]) -> dict[str, Any]:
    """Points of the logged and the reference line on one scale, and what they say in words."""
    series = {name: [getattr(epoch.numbers, name) for epoch in epochs] for name in ("reference", "logged")}
    values = [value for line in series.values() for value in line if _is_drawn(value)]
    if not values:
        return {}
    # In shares of the largest, because the difference of two floats may be no float.
    largest = max(map(abs, values)) or 1.0
    low = min(values) / largest
    spread = max(values) / largest - low or 1.0
    step = _CHART_WIDTH / max(1, len(epochs) - 1)
    first = 0.0 if len(epochs) > 1 else _CHART_WIDTH / 2
    lines = {
        name: [
            (round(first + index * step, 2), _height((value / largest - low) / spread))
            for index, value in enumerate(line)
            if _is_drawn(value)
        ]
        for name, line in series.items()
    }
    words = {"one device": series["reference"], "logged": series["logged"]}
    label = "; ".join(f"{name} {', '.join(map(_number, line))}" for name, line in reversed(words.items()))
    return {"lines": lines, "label": f"{label}, over {several(len(epochs), 'epoch')}"}


def _height(share: float) -> float:
    return round(_CHART_HEIGHT - 3 - share * (_CHART_HEIGHT - 6), 2)


def _is_drawn(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


# --- ranks ----------------------------------------------------------------------------------------------------


class RankTable(NamedTuple):
    """What each rank saw of a stage, and holds of the metrics of which every rank holds equally much."""

    stage: str
    metrics: Sequence[str]
    counts: Mapping[str, Sequence[int | None]]  # by column

    @property
    def size(self) -> int:
        """The number of ranks."""
        return len(self.counts["samples"])

    @property
    def is_uneven(self) -> bool:
        """Whether a sentence cannot say it all."""
        return any(len(set(counts)) > 1 for counts in self.counts.values())

    @property
    def most(self) -> dict[str, int]:
        """The most that any rank has, by column."""
        return {name: max((count or 0 for count in counts), default=0) for name, counts in self.counts.items()}


def _rank_tables(stages: Mapping[str, StageCounts]) -> Iterator[RankTable]:
    for stage, counts in stages.items():
        if stage == "sanity_check" and "validate" in stages:
            continue  # the first batches of the same
        alike: dict[tuple[RowCounts, ...], list[str]] = {}
        for name, rows in counts.metrics.items():
            alike.setdefault(rows, []).append(name)
        for rows, names in alike.items():
            held = {"updates": [row.updates for row in rows], "queries": [row.queries for row in rows]}
            yield RankTable(stage, names, {"samples": counts.samples, **held})
        if not alike:
            yield RankTable(stage, [], {"samples": counts.samples})


def _evenness(counts: Sequence[int | None], name: str) -> str:
    """What the ranks have of one thing, in a sentence."""
    counted = [count for count in counts if count is not None]
    if not counted:
        return f"{name} not known"
    unknown = len(counts) - len(counted)
    rest = f", not known on {unknown}" if unknown else ""
    fewest, most = min(counted), max(counted)
    if fewest == most:
        return f"{most} {name}{' on every rank' if len(counts) > 1 and not unknown else rest}"
    ranks = [rank for rank, count in enumerate(counts) if count == fewest]
    where = f"rank {ranks[0]}" if len(ranks) == 1 else f"{len(ranks)} ranks"
    return f"{name} uneven: {fewest or 'none'} on {where}, up to {most} on others{rest}"
