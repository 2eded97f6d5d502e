"""The report as one HTML page that needs nothing else: no script, no network, every string of the user escaped."""

from __future__ import annotations

import base64
import hashlib
import linecache
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.report.charts import pair, show
from lightning_retrieval_guard.report.contents import Report
from lightning_retrieval_guard.report.markup import escape, with_code
from lightning_retrieval_guard.report.ranks import render_stage
from lightning_retrieval_guard.report.verdict import KeyVerdict, State, judge_keys, verdict_sentence

# Lines of source before and after the one that a finding stands at.
_BEFORE, _AFTER = 1, 2
_LONGEST_LINE = 400
_ORDER = {severity: place for place, severity in enumerate(Severity)}
_SIGNS = {State.WRONG: "✗", State.CORRECTED: "✓", State.RIGHT: "✓", State.UNCHECKED: "?"}


def render_page(report: Report) -> str:
    """The report as a page.

    Args:
        report: What the guard has found. The source lines are read now.
    """
    keys = judge_keys(report)
    verdict = verdict_sentence(keys, len(report.findings))
    parts = (
        _head(verdict),
        f'<body><header class="{_worst(keys, report.findings)}"><p class="name">RetrievalGuard</p>',
        f"<h1>{verdict}</h1><p>{_summary(report)}</p>{_links(report, keys)}</header><main>",
        *_keys_section(keys, report.findings),
        *_findings_section(report),
        *_ranks_section(report),
        "</main></body></html>\n",
    )
    return "".join(parts)


@cache
def _style() -> str:
    return resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")


def _head(verdict: str) -> str:
    # the page cannot load or run anything, whatever it holds: this one style is all that is allowed
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>RetrievalGuard: {verdict}</title><style>{_style()}</style></head>"
    )


def _worst(keys: Sequence[KeyVerdict], findings: Sequence[Finding]) -> str:
    """The state that gives the page its colour."""
    serious = any(finding.severity is not Severity.NOTE and not finding.corrected for finding in findings)
    states = {key.state for key in keys} | ({State.WRONG} if serious else set())
    return next((state.value for state in State if state in states), State.UNCHECKED.value)


def _summary(report: Report) -> str:
    counts = Counter(finding.severity for finding in report.findings)
    found = ", ".join(_several(counts[severity], severity.value) for severity in Severity if counts[severity])
    return f"Mode {escape(report.mode)}, {_several(report.world_size, 'rank')}. Findings: {found or 'none'}."


def _links(report: Report, keys: Sequence[KeyVerdict]) -> str:
    sections = {"keys": keys, "findings": report.findings, "ranks": report.stages}
    links = "".join(f'<a href="#{name}">{name.capitalize()}</a>' for name, content in sections.items() if content)
    return f'<nav aria-label="Sections">{links}</nav>' if links else ""


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# --- keys -----------------------------------------------------------------------------------------------------


def _keys_section(keys: Sequence[KeyVerdict], findings: Sequence[Finding]) -> Iterator[str]:
    if not keys:
        return
    yield '<section aria-labelledby="keys"><h2 id="keys">Logged keys</h2>'
    # the roles stay when a narrow screen shows rows as blocks
    yield '<table class="keys" role="table"><thead role="rowgroup"><tr role="row">'
    yield from (f'<th scope="col" role="columnheader">{name}</th>' for name in _KEY_COLUMNS)
    yield '</tr></thead><tbody role="rowgroup">'
    yield from (_key_row(key, findings) for key in keys)
    yield "</tbody></table></section>"


_KEY_COLUMNS = ("Key", "Logged", "Reference", "Upper bar logged, lower bar reference")


def _key_row(key: KeyVerdict, findings: Sequence[Finding]) -> str:
    label = "wrong in an earlier epoch" if key.earlier and key.state is State.WRONG else key.state.value
    numbers = key.numbers
    replaced = numbers.logged is not None and key.state is State.CORRECTED
    logged = f"{show(numbers.logged)}<small>would have been logged</small>" if replaced else show(numbers.logged)
    links = " ".join(f'<a href="#finding-{place}">{escape(findings[place].code)}</a>' for place in key.findings)
    return (
        f'<tr role="row"><th scope="row" role="rowheader"><code>{escape(key.name)}</code>'
        f'<span class="chip {key.state.value}"><span aria-hidden="true">{_SIGNS[key.state]}</span> {label}</span>'
        f'<span class="links">{links}</span></th>'
        f'<td role="cell" data-label="Logged">{logged}</td>'
        f'<td role="cell" data-label="Reference">{show(numbers.reference)}</td>'
        f'<td role="cell">{pair(numbers, key.state)}</td></tr>'
    )


# --- findings -------------------------------------------------------------------------------------------------


def _findings_section(report: Report) -> Iterator[str]:
    if not report.findings:
        return
    yield '<section aria-labelledby="findings"><h2 id="findings">Findings</h2>'
    for place, finding in sorted(enumerate(report.findings), key=lambda one: _ORDER[one[1].severity]):
        yield _finding(place, finding, report)
    yield "</section>"


def _finding(place: int, finding: Finding, report: Report) -> str:
    effect = f'<p class="effect">{escape(finding.numbers_text())}</p>' if finding.effect is not None else ""
    key = f"<code>{escape(finding.key)}</code>" if finding.key else ""
    return (
        f'<article id="finding-{place}" class="{finding.severity.value}">'
        f'<h3><span class="chip {finding.severity.value}">{finding.severity.value}</span>'
        f" {escape(finding.code)} {escape(finding.rule)} {key}</h3>"
        f"<p>{escape(finding.message)}</p>{effect}"
        f'<p class="fix"><strong>Fix</strong> {escape(finding.fix)}</p>'
        f"{_source(finding.path, finding.line)}<dl>{_facts(finding, report.world_size)}</dl>"
        f"{_reason(report.reasons, finding.code)}</article>"
    )


def _facts(finding: Finding, world_size: int) -> str:
    facts = {
        "Stage": finding.stage or "none",
        "Hook": finding.hook or "none",
        "Ranks": _ranks(finding.ranks, world_size),
        "Seen": "once" if finding.count == 1 else f"{finding.count} times",
        "Corrected": "yes" if finding.corrected else "no",
    }
    return "".join(f"<div><dt>{name}</dt><dd>{escape(told)}</dd></div>" for name, told in facts.items())


def _ranks(ranks: Sequence[int], world_size: int) -> str:
    """Ranks in words, with runs of them as ranges."""
    if len(ranks) == world_size > 1:
        return f"all {world_size}"
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and runs[-1][-1] == rank - 1:
            runs[-1][1:] = [rank]
        else:
            runs.append([rank])
    return ", ".join("\u2013".join(map(str, run)) for run in runs) or "none"


def _source(path: str, line: int) -> str:
    """The user's lines around a finding, as they are in the file now."""
    where = f"<figcaption><code>{escape(path)}:{line}</code></figcaption>"
    lines = linecache.getlines(path)
    if not 1 <= line <= len(lines):
        return f'<figure>{where}<p class="absent">The source is not at hand.</p></figure>'
    around = range(max(1, line - _BEFORE), min(len(lines), line + _AFTER) + 1)
    texts = {number: lines[number - 1].rstrip().expandtabs(4)[:_LONGEST_LINE] for number in around}
    indent = min((len(text) - len(text.lstrip()) for text in texts.values() if text), default=0)
    shown = "".join(_source_line(number, text[indent:], number == line) for number, text in texts.items())
    return f"<figure>{where}<pre>{shown}</pre></figure>"


def _source_line(number: int, text: str, marked: bool) -> str:
    tag = "mark" if marked else "span"
    return f'<{tag}><span class="line">{number}</span><span>{escape(text)}</span></{tag}>'


def _reason(reasons: Mapping[str, str], code: str) -> str:
    text = reasons.get(code)
    if text is None:
        return ""
    paragraphs = "".join(f"<p>{with_code(part)}</p>" for part in text.split("\n\n"))
    return f"<details><summary>Why it is wrong</summary>{paragraphs}</details>"


# --- ranks ----------------------------------------------------------------------------------------------------


def _ranks_section(report: Report) -> Iterator[str]:
    if not report.stages:
        return
    yield '<section aria-labelledby="ranks"><h2 id="ranks">What each rank saw</h2>'
    for stage, counts in report.stages.items():
        yield from render_stage(stage, counts)
    yield "</section>"
