"""What each rank saw, as tables with bars: an uneven or an empty rank is seen at a glance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lightning_retrieval_guard.report.charts import count_bar, count_columns
from lightning_retrieval_guard.report.contents import RowCounts, StageCounts
from lightning_retrieval_guard.report.markup import escape

# With more ranks the table is folded away, below one chart of all.
_MOST_ROWS = 16

Columns = Mapping[str, Sequence[int | None]]


def render_stage(stage: str, counts: StageCounts) -> Iterator[str]:
    """The ranks of a stage: one table for the metrics of which every rank holds equally much.

    Args:
        stage: Its name.
        counts: What each rank saw.
    """
    alike: dict[tuple[RowCounts, ...], list[str]] = {}
    for name, rows in counts.metrics.items():
        alike.setdefault(rows, []).append(name)
    for rows, names in alike.items():
        columns = {
            "samples": counts.samples,
            "updates": [own.updates for own in rows],
            "queries": [own.queries for own in rows],
        }
        yield from _table(f"{escape(stage)}: {', '.join(f'<code>{escape(name)}</code>' for name in names)}", columns)
    if not alike:
        yield from _table(escape(stage), {"samples": counts.samples})


def _table(title: str, columns: Columns) -> Iterator[str]:
    ranks = len(columns["samples"])
    folded = ranks > _MOST_ROWS
    evenness = ". ".join(_evenness(name, counts) for name, counts in columns.items())
    yield f'<h3>{title}</h3><p class="evenness">{evenness}.</p>'
    if folded:
        yield from (f"<figure>{_overview(name, counts)}</figure>" for name, counts in columns.items())
        yield f"<details><summary>All {ranks} ranks</summary>"
    yield '<table class="ranks"><thead><tr><th scope="col">Rank</th>'
    yield from (f'<th scope="col">{name.capitalize()}</th>' for name in columns)
    yield "</tr></thead><tbody>"
    for rank in range(ranks):
        cells = "".join(_cell(counts[rank], counts) for counts in columns.values())
        yield f'<tr><th scope="row">{rank}</th>{cells}</tr>'
    yield f"</tbody></table>{'</details>' if folded else ''}"


def _overview(name: str, counts: Sequence[int | None]) -> str:
    chart = count_columns(counts, f"{name} of each rank, from rank 0 to rank {len(counts) - 1}")
    return f"<figcaption>{name.capitalize()} by rank</figcaption>{chart}"


def _cell(count: int | None, counts: Sequence[int | None]) -> str:
    if count is None:
        return "<td>not known</td>"
    most = max(other for other in counts if other is not None)
    chip = ' <span class="chip wrong">none</span>' if most and not count else ""
    fewer = ' class="fewer"' if count < most else ""
    return f"<td{fewer}>{count}{chip}{count_bar(count, most)}</td>"


def _evenness(name: str, counts: Sequence[int | None]) -> str:
    """One column in a sentence."""
    known = [count for count in counts if count is not None]
    noun = name.capitalize()
    if not known:
        return f"{noun}: not known"
    if len(known) == len(counts) and len(set(known)) == 1:
        return f"{noun}: {known[0]}" + (" on every rank" if len(counts) > 1 else "")
    fewest, most = min(known), max(known)
    least = [rank for rank, count in enumerate(counts) if count == fewest]
    where = f"rank {least[0]}" if len(least) == 1 else f"{len(least)} ranks"
    amount = "none" if fewest == 0 else str(fewest)
    unknown = len(counts) - len(known)
    rest = f", not known on {unknown}" if unknown else ""
    if fewest == most:
        return f"{noun}: {most}{rest}"
    return f"{noun}: <strong>uneven</strong>, {amount} on {where}, up to {most} on others{rest}"
