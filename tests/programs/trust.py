"""The page that tells how often the guard is right about the corpus: `python -m tests.programs.trust` writes it."""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lightning_retrieval_guard.lint.plugin import findings
from tests.distributed.harness import Pools

from .expectations import WORLDS, Place, Program
from .patterns import Row, rows
from .runs import Runs, Verdict

DOCUMENT = Path(__file__).parents[2] / "docs" / "trust.md"

_TOP = """\
# Trust

See how often the guard is right. It was run on {programs} programs as people write them, {right} right and {wrong}
wrong, each on one device and on two: **{found} of {expected} findings found, {missed} missed, false alarms: {false}.**
`python -m tests.programs.trust` writes the page from the runs, and a test keeps it current.

## How the corpus was made

59 public usages of retrieval metrics under Lightning were read and judged. 27 are right on several devices and 32 are
not. Of these 32, 12 show rank 0's shard only, 10 have colliding query ids, and 6 average what may not be averaged. 3
depend on the number of devices through pool or weight, and 1 has the wrong sampler.

The programs in `tests/programs` are written afresh after them, in about these proportions, with small networks and data
sets that are the same in every run. Added were right programs of Lightning's and torchmetrics' own documentation, wrong
ones for the remaining rules, and cases that look wrong and are not.

Each program says on the offending line what is right to find there, such as `# expect: LRG203@2` for two devices. That
was decided from what the rules say. Where the guard reported something else, the program was read again. One that
averaged macro accuracies had been taken for right; what remains stands below.

Numbers check it. A program without findings must log on two devices what it logs on one, and one with findings
something else. In correct mode both must log what one device logs, or what the right form of the program does. The
exception is a number that the rule leaves alone.

## What the words mean

A finding is a rule's code at a line of the program, in mode `warn`, and not a note. Several keys of one line count
once.

- **Found**: expected, and made at that line.
- **Missed**: expected, and not made there.
- **False**: made, and not expected: another rule, another line, or a right program.

Notes change no number and are not counted; the test checks them as well. It also checks that every right program
without a false alarm ends well in mode `strict`. The corpus shows what was thought of. It proves nothing about programs
that nobody here has seen.

## In public projects

Eleven public projects were run on two processes with version 0.1.0, their logging code untouched. Some of them:

| project does | one device | two devices | two devices, correct mode |
|---|---|---|---|
| news recommender: numbers the lists of each rank from zero | 0.4094 | 0.3097 | 0.4094 |
| the same with two loaders, numbered in each batch | 0.4097 | 0.4008 | 0.4097 |
| two-tower model: logs the value of `forward()` without `sync_dist` | 0.4167 | 0.6667 | 0.4167 |
| link prediction: logs the values of `forward()` with `batch_size=1` | 0.4646 | 0.4800 | 0.4646 |

In three other projects that version missed the fault or gave a wrong reference. The [changelog](changelog.md) says what
has changed since.

"""


_LINT = """\
## The lint

A comment `# lint: LRG301` names what is certain from the source alone, by the rules that [the lint](lint.md) has. A
comment `# lint: missed:LRG203` says that the lint does not find it. {found} of
{expected} are found, false ones: {false}. It finds something in {told} of the {wrong} wrong programs, and in right ones
{right} notes that the run has as well.

These are missed:

- a loss of a rank's own, as most programs log it, which the lint leaves to the run;
- `rank_zero_only=True`, which may be meant;
- queries that are skipped, whose number only the run knows;
- a Trainer without distributed sampler, whose data may be shared out elsewhere.
"""
_TREES = """
Other people's code was linted too, and each finding was looked at. The lint did not crash. One file of torch has
syntax that the Python at hand (3.11) does not know, and the lint reports it.

| tree | files | findings |
|---|---|---|
| lightning 2.6.6 | 266 | 0 |
| pytorch_lightning and lightning_fabric 2.6.6 | 267 | 0 |
| torchmetrics 1.9.0 | 349 | 0 |
| torch 2.13.0 | 2,285 | 0 |
| anomalib 2.7.0 | 465 | 0 |
| lightly 1.6.0 | 152 | 0 |
| lightning-bolts 0.7.0 | 175 | 2 |
| lightning-flash 0.8.2 | 309 | 0 |
| nemo-toolkit 3.0.0 | 726 | 0 |
| pytorch-forecasting 1.8.0 | 218 | 0 |
| pytorch-tabular 1.2.0 | 76 | 0 |
| torchgeo 0.8.1 | 243 | 8 |

The 10 findings are right. In lightning-bolts, line 305 of `models/rl/dqn_model.py` and 309 of `models/rl/sac_model.py`
log the mean reward of the episodes that a rank played, and nothing combines it (LRG203). In torchgeo they are at lines
290 and 351 of `trainers/detection.py`, and 181 and 243 of `trainers/instance_segmentation.py`. The values of
`forward()` of a MeanAveragePrecision are logged there without `sync_dist` (LRG203), and mean average precision is not a
mean over batches (LRG302).

About 110 of these files call `self.log`, and none of them builds a retrieval metric. They show that the lint raises no
false alarms, not how much it finds."""


_PATTERNS = """
## 11 ways to log an evaluation

Programs as people write them, in [tests/programs/patterns.py](../tests/programs/patterns.py), with 21 samples: on two
devices the sampler repeats one, or one device has one more. *One device* is what the program logs in one process with
`mode="correct"`, which is another number than without a guard only where values of batches are averaged or a metric is
shared. {right} of {all} are right on two devices in correct mode.

| the program logs | one device | two, plain | two, correct | |
|---|---|---|---|---|
"""


def render_patterns(rows: Iterable[Row]) -> str:
    """The section about the patterns."""
    known = list(rows)
    top = _PATTERNS.format(right=sum(row.is_right for row in known), all=len(known))
    return top + "".join(f"| {' | '.join(_cells(row))} |\n" for row in known)


def _cells(row: Row) -> Iterator[str]:
    yield row.summary
    yield from (", ".join(f"{value:.4f}" for value in own.values()) for own in (row.right, row.plain, row.corrected))
    codes = ", ".join(row.found) or "no finding"
    yield f"right; {codes}" if row.is_right else f"named: {codes}" if row.found else "not named"


def render(verdicts: Sequence[Verdict], patterns: Iterable[Row]) -> str:
    """The whole page."""
    programs = list({verdict.program.name: verdict.program for verdict in verdicts}.values())
    right = sum(program.is_right for program in programs)
    expected, found, missed, false = _counts(verdicts)
    top = _TOP.format(
        programs=len(programs),
        right=right,
        wrong=len(programs) - right,
        found=found,
        expected=expected,
        missed=missed,
        false=false,
    )
    parts = [*_by_kind(verdicts), "", *_limits(programs), "", *_by_lint(programs), "", *_by_program(verdicts)]
    return top + "\n".join(parts) + "\n" + render_patterns(patterns)


def _counts(verdicts: Iterable[Verdict]) -> tuple[int, int, int, int]:
    """Expected, found, missed and false."""
    own = list(verdicts)
    missed = sum(len(verdict.missed) for verdict in own)
    expected = sum(len(verdict.expected) for verdict in own)
    return expected, expected - missed, missed, sum(len(verdict.false) for verdict in own)


def _kind(program: Program) -> str:
    return f"{'right' if program.is_right else 'wrong'}: {program.fields['Kind']}"


def _by_kind(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield from (
        "## By kind",
        "",
        "| kind | programs | expected | found | missed | false |",
        "|---|---|---|---|---|---|",
    )
    for kind in sorted({_kind(verdict.program) for verdict in verdicts}):
        own = [verdict for verdict in verdicts if _kind(verdict.program) == kind]
        cells = (kind, len(own) // len(WORLDS), *_counts(own))
        yield f"| {' | '.join(map(str, cells))} |"


def _limits(programs: Iterable[Program]) -> Iterator[str]:
    yield from ("## What is missed, what is wrongly found, and what no rule covers", "")
    for program in programs:
        for field in ("Known miss", "Known false", "No rule"):
            if field in program.fields:
                yield f"- {_link(program)}, {field.lower()}: {program.fields[field]}."


def _by_lint(programs: Sequence[Program]) -> Iterator[str]:
    static = [(program, *_judged_by_lint(program)) for program in programs]
    expected, found, false = (sum(len(own[column]) for own in static) for column in (1, 2, 3))
    right = sum(len(found) + len(false) for own, _, found, false in static if own.is_right)
    told = sum(bool(own[2]) for own in static if not own[0].is_right)
    wrong = sum(not program.is_right for program in programs)
    yield _LINT.format(expected=expected, found=found, false=false, right=right, wrong=wrong, told=told)
    yield from ("| rule | expected | found | missed | false |", "|---|---|---|---|---|")
    for code in sorted({place.code for own in static for places in own[1:] for place in places}):
        counts = [sum(place.code == code for own in static for place in own[column]) for column in (1, 2, 3)]
        yield f"| {code} | {counts[0]} | {counts[1]} | {counts[0] - counts[1]} | {counts[2]} |"
    yield from ("", "| program | found | missed | false |", "|---|---|---|---|")
    for program, known, seen, wrongly in static:
        if known | wrongly:
            yield f"| {_link(program)} | {' | '.join(map(_shown, (seen, known - seen, wrongly)))} |"
    yield _TREES


def _judged_by_lint(program: Program) -> tuple[set[Place], set[Place], set[Place]]:
    """Expected, found of these, and false; notes count as well."""
    expected = set(program.expected_by_lint())
    lines = program.text.splitlines(keepends=True)
    found = {Place(finding.rule.code, finding.line) for finding in findings(ast.parse(program.text), lines)}
    return expected, found & expected, found - expected


def _by_program(verdicts: Iterable[Verdict]) -> Iterator[str]:
    yield from ("## Every program", "", "Codes stand with the line, such as LRG203:25.", "")
    yield from ("| program | devices | expected | found | missed | false |", "|---|---|---|---|---|---|")
    for verdict in verdicts:
        sets = (verdict.expected, verdict.found & verdict.expected, verdict.missed, verdict.false)
        yield f"| {_link(verdict.program)} | {verdict.world_size} | {' | '.join(map(_shown, sets))} |"


def _link(program: Program) -> str:
    folder, _, name = program.name.partition(".")
    return f"[{folder}/{name}](../tests/programs/{folder}/{name}.py)"


def _shown(places: Iterable[Place]) -> str:
    return ", ".join(f"{place.code}:{place.line}" for place in sorted(places)) or "none"


def main() -> int:
    """Run the corpus and write the page."""
    with contextlib.closing(Pools()) as pools:
        runs = Runs(pools)
        verdicts = [runs.verdict(program, world) for program in runs.programs.values() for world in WORLDS]
        page = render(verdicts, rows(pools).values())
    DOCUMENT.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
