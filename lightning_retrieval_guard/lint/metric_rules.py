"""What follows from what metrics are fed and asked: LRG201, LRG204, LRG207, LRG301, LRG306 and LRG405."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from lightning_retrieval_guard.lint.events import BATCH, HOOKS, RANK_ZERO, STEPS, Event, Story
from lightning_retrieval_guard.lint.finding import Edit, LintFinding, at
from lightning_retrieval_guard.lint.modules import ClassInfo, Module
from lightning_retrieval_guard.lint.values import (
    Built,
    Data,
    Items,
    Lead,
    Many,
    Mapping,
    Metric,
    Origin,
    Value,
    contents,
    metrics_in,
    origin_of,
)
from lightning_retrieval_guard.rules import static

# Metrics that a second copy of every row changes where they look at two rows or more, or at any number of rows.
_CHANGED_FROM_TWO = ("RetrievalMAP", "RetrievalMRR", "RetrievalNormalizedDCG", "RetrievalHitRate", "RetrievalPrecision")
_CHANGED_FROM_ONE = ("RetrievalRecall", "RetrievalFallOut")
_CHANGED_WITHOUT_CUT = ("RetrievalMAP", "RetrievalMRR", "RetrievalNormalizedDCG")


def _rank_zero(story: Story) -> Iterator[LintFinding]:
    """LRG204: compute() on rank zero alone."""
    for event, metric in _with_metric(story, "compute"):
        if RANK_ZERO not in event.guards or not metric.surely(lambda member: member.is_synced):
            continue
        on_every_rank = any(RANK_ZERO not in other.guards for other in story.of("compute", metric=metric))
        if not on_every_rank and not _is_logged(story, metric):
            message = (
                f"compute() of {metric.label} combines all ranks, and is called on rank zero alone: it waits for ranks"
                " that never come."
            )
            yield at(event, static.LRG204, message, "Call compute() on every rank, and use its value on rank zero.")


def _with_metric(story: Story, kind: str) -> Iterator[tuple[Event, Metric]]:
    """The events of a kind with their metrics, where these are not unknown."""
    return ((event, event.metric) for event in story.of(kind) if event.metric is not None)


def _is_logged(story: Story, metric: Metric) -> bool:
    """Whether the metric is logged as an object, which leaves its value behind for later calls."""
    logged = (value for event in story.of("log") for value in event.arguments.all)
    return any(metric.is_same(other) for value in logged for other in metrics_in(value))


def _accumulates(story: Story, event: Event, metric: Metric) -> bool:
    """Whether the rows of many batches meet in the metric, and not those of one batch alone."""
    if BATCH in event.guards:
        return False
    resets = [reset for reset in story.of("reset") if reset.metric is None or metric.is_same(reset.metric)]
    if event.is_in_step and not all(reset.is_between_epochs for reset in resets):
        return False
    is_computed = any(story.of("compute", metric=metric))
    return event.name in ("update", "bare") or _is_logged(story, metric) or is_computed


def _gathered(story: Story) -> Iterator[LintFinding]:
    """LRG201: rows that every rank holds, combined again."""
    for event, metric in _with_metric(story, "feed"):
        rows = event.arguments.all
        is_all = frozenset().union(*map(origin_of, rows)) == {Origin.GATHERED}
        if RANK_ZERO in event.guards or not event.arguments.is_complete or not is_all:
            continue
        is_changed = metric.surely(lambda member: member.is_synced and _is_changed_by_copies(member))
        if is_changed and (event.name == "update" or _accumulates(story, event, metric)):
            line = max((row.line for row in rows if isinstance(row, Data)), default=0)
            where = f" at line {line}" if line else ""
            how = f"{metric.label} combines the ranks again in compute()"
            message = f"the rows were gathered from all ranks{where}, and {how}."
            first, *others = metric.members
            is_one = not others and first.module is event.module
            edit = Edit(first.call, set=(("sync_on_compute", "False"),)) if is_one else None
            yield at(event, static.LRG201, message, edit=edit)


def _is_changed_by_copies(built: Built) -> bool:
    """Whether a metric surely tells every row once from every row several times."""
    cut = built.option("top_k")
    if built.call.args:
        return False
    if cut is None:
        return built.kind in _CHANGED_WITHOUT_CUT
    least = cut if isinstance(cut, int) else 1
    return built.kind in _CHANGED_FROM_ONE or (built.kind in _CHANGED_FROM_TWO and least > 1)


def _ids(story: Story) -> Iterator[LintFinding]:
    """LRG301: ids that count the samples of a batch, or of a rank."""
    for event, metric in _with_metric(story, "feed"):
        ids = event.arguments.get(2, "indexes")
        if not isinstance(ids, Data) or not ids.ids or not metric.surely(lambda member: member.is_retrieval):
            continue
        if not _accumulates(story, event, metric) or Origin.GATHERED in ids.origin:
            continue
        is_synced = metric.surely(lambda member: member.is_retrieval and member.is_synced)
        is_combined = is_synced and not event.module.is_on_one_device
        line = f", made at line {ids.line}," if ids.line and ids.line != event.node.lineno else ""
        made = f"the ids of {metric.label}{line}"
        if ids.ids is Lead.BATCH and not event.makes_metric and event.hook != "__init__":
            yield at(event, static.LRG301, f"{made} restart in every batch, so rows of different queries merge.")
        elif is_combined and (not event.makes_metric or any(story.of("compute", metric=metric))):
            where = "are the same on every rank" if event.makes_metric else "restart on every rank"
            yield at(event, static.LRG301, f"{made} {where}, so rows of different queries merge on several devices.")


def _in_steps(story: Story) -> Iterator[LintFinding]:
    """LRG207: ranks combined in every step."""
    is_hooked = story.cls is not None and story.cls.derives("LightningModule", "Callback")
    for event, metric in _with_metric(story, "compute"):
        if not event.is_in_step or event.guards or not (is_hooked or event.makes_metric):
            continue
        if metric.surely(lambda member: member.is_retrieval and member.is_synced):
            made = "is made in the step and " if event.makes_metric else ""
            message = f"{metric.label} {made}combines ranks in compute(): in every step all ranks wait for the slowest."
            yield at(event, static.LRG207, message)


def _batches(story: Story) -> Iterator[LintFinding]:
    """LRG306: a batch of queries, scored as one."""
    for event in story.of("functional") if story.cls else ():
        scores = event.arguments.get(0, "preds")
        is_flat = isinstance(scores, Data) and scores.ndim == 2 and not event.module.loads_one_sample
        if event.name.startswith("retrieval_") and is_flat:
            message = f"{event.name}() gets a batch of queries in two dimensions, and scores it as one query."
            yield at(event, static.LRG306, message)


# --- attributes -----------------------------------------------------------------------------------------------------

_IN_CALLBACK = "Make it an attribute of the module, or move it to pl_module.device in setup()."
# Names with which metrics are registered, moved, or fed on the CPU on purpose.
_BY_HAND = ("add_module", "register_module", "_modules", "to", "cuda", "cpu")


def _held(story: Story) -> Iterator[LintFinding]:
    """LRG405: metrics that are no part of the module tree."""
    cls = story.cls
    if cls is None or not cls.derives("LightningModule", "Module", "Callback") or _is_handled(cls):
        return
    for name, stores in story.stores.items():
        node, module, value = stores[0]
        metrics = metrics_in(value)
        is_fresh = bool(metrics) and all(
            not metric.name and isinstance(metric.identity, ast.Call) for metric in metrics
        )
        if len({id(store[0]) for store in stores}) > 1 or not is_fresh or not _holds_only_metrics(value):
            continue
        if cls.derives("Callback"):
            fed = [event for event, metric in _with_metric(story, "feed") if metric.name.startswith(f"self.{name}")]
            if any(event.hook in HOOKS and event.hook not in STEPS for event in fed):
                message = f"the callback's {name!r} is no part of the module: Lightning neither moves nor saves it."
                yield LintFinding(node, module, static.LRG405, message, _IN_CALLBACK)
            continue
        reads = ((owner, use) for owner in cls.lineage for use in _reads(owner, name))
        is_plain = isinstance(value, (Items, Many, Mapping)) and not value.is_module
        if is_plain and all(_is_read(owner.module, use) for owner, use in reads):
            kind = "dict" if isinstance(value, Mapping) else "list or tuple"
            message = (
                f"{name!r} is a plain {kind}, so its metrics are no part of the module: Lightning neither moves"
                " nor saves them."
            )
            yield LintFinding(node, module, static.LRG405, message)


def _holds_only_metrics(value: Value) -> bool:
    inner = contents(value)
    return isinstance(value, Metric) if inner is None else bool(inner) and all(map(_holds_only_metrics, inner))


def _reads(cls: ClassInfo, name: str) -> Iterator[ast.AST]:
    for node in ast.walk(cls.node):
        if isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Load):
            yield node


def _is_handled(cls: ClassInfo) -> bool:
    """Whether the class moves or registers anything by hand."""
    return any(
        getattr(node, "attr", "") in _BY_HAND or getattr(node, "id", "") in ("setattr", "vars") for node in cls.nodes
    )


def _is_read(module: Module, node: ast.AST) -> bool:
    """Whether a use surely registers no metric: a loop, or a method of one of them."""
    use, parent = node, module.parents[node]
    while isinstance(parent, ast.Subscript) and use is parent.value:
        use, parent = parent, module.parents[parent]
    if isinstance(parent, ast.Attribute):
        is_reading = parent.attr in ("items", "keys", "values")
        use, parent = module.parents[parent], module.parents[module.parents[parent]]
        if not is_reading or not isinstance(use, ast.Call):
            return isinstance(use, ast.Call)
    if isinstance(parent, ast.Call):
        return use is parent.func
    return isinstance(parent, (ast.For, ast.comprehension)) and use is parent.iter


RULES = (_rank_zero, _gathered, _ids, _in_steps, _batches, _held)
