"""The ways to get the 12 metrics from rows, each a function to be timed, and the floors they are held against."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from bench.declare import NotMeasured
from bench.metrics import CUTS, KINDS, collection, twelve
from bench.rows import Rows, keys

Means = dict[str, float]


def ours(rows: Rows) -> Callable[[], Means]:
    """The package's own scoring of all 12, as at the end of an epoch."""
    try:
        from lightning_retrieval_guard import ranking
    except ImportError as error:
        raise NotMeasured("the package has no scoring of its own yet") from error
    known = {name: ranking.measure_of(metric) for name, metric in twelve().items()}
    measures = {name: measure for name, measure in known.items() if measure is not None}

    def run() -> Means:
        _, scores = ranking.score(list(measures.values()), ranking.Rows(rows.query, rows.preds, rows.target))
        pairs = zip(measures.items(), scores, strict=True)
        return {name: float(cast(float, ranking.aggregate(measure, own.values))) for (name, measure), own in pairs}

    return run


def key_sort(rows: Rows) -> Callable[[], object]:
    """The floor for rows in any order: one sort of one integer a row."""
    packed = keys(rows)
    return lambda: torch.sort(packed)


def block_topk(rows: Rows) -> Callable[[], object]:
    """The floor for equal lengths: the ten best of every line of a 2-D block."""
    assert rows.length is not None
    block = rows.preds.view(-1, rows.length)
    return lambda: torch.topk(block, max(CUTS))


def torchmetrics(rows: Rows) -> Callable[[], Means]:
    """``compute()`` of a MetricCollection that was updated before."""
    metrics = collection(compute_with_cache=False)
    metrics.update(rows.preds, rows.target, indexes=rows.query)
    return lambda: {name: float(value) for name, value in metrics.compute().items()}


def pytrec_eval(rows: Rows) -> Callable[[], Means]:
    """TREC's own program, with the dicts it wants made from the tensors."""
    evaluator = _needed("pytrec_eval").RelevanceEvaluator
    cuts = ",".join(map(str, CUTS))
    names = {"recip_rank", f"recall.{cuts}", f"ndcg_cut.{cuts}", f"map_cut.{cuts}"}
    documents = [str(number) for number in range(int(torch.bincount(rows.query).max()))]

    def run() -> Means:
        order = torch.argsort(rows.query, stable=True)
        lengths = torch.bincount(rows.query).tolist()
        preds, target = (torch.split(part[order], lengths) for part in (rows.preds, rows.target))
        runs = {str(number): dict(zip(documents, own.tolist(), strict=False)) for number, own in enumerate(preds)}
        judged = {
            str(number): {documents[place]: 1 for place in own.nonzero().flatten().tolist()}
            for number, own in enumerate(target)
        }
        values = evaluator(judged, names).evaluate(runs).values()
        return {name: sum(own[name] for own in values) / len(values) for name in next(iter(values))}

    return run


def ranx(rows: Rows) -> Callable[[], Means]:
    """The compiled functions of ranx on arrays laid out from the tensors."""
    evaluate = _needed("ranx").evaluate
    numba = _needed("numba")
    numba.set_num_threads(1)
    names = [f"{name}@{cut}" for name in KINDS for cut in CUTS]
    lists = _compiled_lists(numba)

    def run() -> Means:
        judged, found = _laid_out(rows, lists)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on its own casts, given while it compiles
            means: Means = evaluate(judged, found, names)
        return means

    return run


def _laid_out(rows: Rows, lists: Callable[..., Any]) -> tuple[Any, Any]:
    """For every query its relevant documents, and all documents from the best one on, as (document, value) lines."""
    if rows.length is None:
        order = torch.sort(keys(rows)).indices
        preds, target, lengths = rows.preds[order], rows.target[order], torch.bincount(rows.query)
    else:
        block, places = torch.sort(rows.preds.view(-1, rows.length), descending=True)
        preds, target = block.flatten(), rows.target.view(-1, rows.length).gather(1, places).flatten()
        lengths = torch.full((len(block),), rows.length)
    lines = torch.stack([torch.arange(len(preds)).double(), preds.double()], dim=1)
    relevant = target.nonzero().flatten()
    judged = torch.stack([relevant.double(), torch.ones(len(relevant), dtype=torch.float64)], dim=1)
    ends = lengths.cumsum(0)
    owners = torch.searchsorted(ends, relevant, right=True)
    counts = torch.bincount(owners, minlength=len(lengths))
    found = lines.view(-1, rows.length, 2).numpy() if rows.length else lists(lines.numpy(), _bounds(lengths))
    return lists(judged.numpy(), _bounds(counts)), found


def _bounds(lengths: Tensor) -> Any:
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).numpy()


@functools.cache
def _compiled_lists(numba: Any) -> Callable[..., Any]:
    def lists(lines: Any, bounds: Any) -> Any:
        parts = numba.typed.List()
        for number in range(len(bounds) - 1):
            parts.append(lines[bounds[number] : bounds[number + 1]])
        return parts

    compiled: Callable[..., Any] = numba.njit(lists)
    return compiled


def _needed(package: str) -> Any:
    try:
        return __import__(package)
    except ImportError as error:
        raise NotMeasured(f"{package} is not installed") from error
