"""`python -m tests.metrics.page` writes docs/metrics.md: every class of torchmetrics on unequal ranks."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torchmetrics

from tests.distributed.harness import Pool

from .catalogue import Entry, catalogue
from .runs import LAYOUTS, verdicts

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
WORLDS = (2, 4)
TIMEOUT = 120.0
MARKS = {"right": "✓", "named": "named", "wrong": "**wrong**", "fails": "**fails**", "fails without": "fails without"}

HEAD = """# Every metric of torchmetrics

Written by `make metrics`, with torchmetrics {version}, in real processes over gloo. Each class is fed by several ranks
under `RetrievalGuard(mode="correct")`, logged as an object where its value is one number, else computed in the
epoch-end hook. ✓ means that every rank that computes it shows the number of one process that is fed all samples.
*Named* means that it does not, and that the guard says so. *Fails without* means that the run fails without a guard
too.

- even: every rank has the same number of full batches.
- uneven: the first rank has more batches, and the last batch of the last rank is short.
- empty: the last rank has no batch, and runs its loop.
- skipped: the last rank has no batch, and Lightning skips its loop and its hooks.
- padded: the distributed sampler repeats a sample.

A few classes depend on how samples are batched: BinaryFairness, BinaryGroupStatRates and MultilabelRankingLoss, and
BinaryAUROC where only some batches have scores outside of 0 to 1, as in BinaryTargetTransformer. Where samples are
dealt in turns (padded), they show the number of one process that gets the batches of the ranks.
FrechetInceptionDistance and its like are fed batches that are real or not as a whole, so the repeated sample counts as
another thing each time.

{tried} of {exported} classes that torchmetrics exports are tried.
{right} of {cells} cells are right ({share:.1%}), {named} named.

"""


def measured() -> dict[tuple[int, str], dict[str, str]]:
    """For every number of ranks and layout the verdict on each class."""
    packages: dict[str, list[str]] = {}
    for entry in catalogue().values():
        if not entry.without:
            packages.setdefault(entry.package, []).append(entry.name)
    found: dict[tuple[int, str], dict[str, str]] = {}
    for world_size in WORLDS:
        pool = Pool(world_size)
        try:
            for layout in LAYOUTS:
                judged = found[world_size, layout] = {}
                for names in packages.values():
                    judged.update(judge(pool, names, layout))
                print(world_size, layout, Counter(found[world_size, layout].values()), flush=True)
        finally:
            pool.close()
    return found


def judge(pool: Pool, names: list[str], layout: str) -> dict[str, str]:
    """The verdicts on some classes; where their run fails, those that are the reason are sought."""
    try:
        return verdicts(pool, names, layout, "correct", TIMEOUT)
    except AssertionError:
        if len(names) > 1:
            middle = len(names) // 2
            return judge(pool, names[:middle], layout) | judge(pool, names[middle:], layout)
    try:
        verdicts(pool, names, layout, "none", TIMEOUT)
    except AssertionError:
        return {names[0]: "fails without"}
    return {names[0]: "fails"}


def render(entries: dict[str, Entry], found: dict[tuple[int, str], dict[str, str]]) -> Iterator[str]:
    """The page, line by line."""
    counts = Counter(verdict for verdicts in found.values() for verdict in verdicts.values())
    tried = [entry for entry in entries.values() if not entry.without]
    yield HEAD.format(
        version=torchmetrics.__version__,
        tried=len(tried),
        exported=len(entries),
        right=counts["right"],
        cells=counts.total(),
        share=counts["right"] / counts.total(),
        named=counts["named"],
    )
    columns = [f"{layout}, {world_size}" for world_size, layout in found]
    yield f"| class | made with | fed | {' | '.join(columns)} |\n"
    yield f"|---|---|---|{'---|' * len(columns)}\n"
    for entry in tried:
        marks = " | ".join(MARKS[verdicts[entry.name]] for verdicts in found.values())
        yield f"| {entry.package}.{entry.name} | {entry.made} | {entry.fed} | {marks} |\n"
    yield "\n## Not tried\n\n| class | why |\n|---|---|\n"
    yield from (f"| {entry.package}.{entry.name} | {entry.without} |\n" for entry in entries.values() if entry.without)


def main() -> None:
    """Measure, and write the page."""
    warnings.simplefilter("ignore")
    PAGE.write_text("".join(render(catalogue(), measured())), encoding="utf-8")


if __name__ == "__main__":
    main()
