"""What follows from what metrics are fed and asked: LRG201, LRG204, LRG207, LRG301, LRG306 and LRG405."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from lightning_retrieval_guard.lint import values
from lightning_retrieval_guard.lint.events import BATCH, HOOKS, RANK_ZERO, STEPS, Event, Story
from lightning_retrieval_guard.lint.finding import LRG201, LRG204, LRG207, LRG301, LRG306, LRG405, Edit, LintFinding, at
from lightning_retrieval_guard.lint.source import SourceFile
from lightning_retrieval_guard.lint.values import GATHERED, Listing, Mapping, Metric, MetricCall, Value, made_of

# Metrics that a second copy of every row changes: where they look at all rows, at two or more, or at any number.
_CHANGED_WITHOUT_CUT = ("RetrievalMAP", "RetrievalMRR", "RetrievalNormalizedDCG")
_CHANGED_FROM_TWO = (*_CHANGED_WITHOUT_CUT, "RetrievalHitRate", "RetrievalPrecision")
_CHANGED_FROM_ONE = ("RetrievalRecall", "RetrievalFallOut")


def _is_logged(story: Story, metric: Metric) -> bool:
    """Whether the metric is logged as an object, which leaves its value behind for later calls."""
    return any(metric.is_same(other) for event in story.of("log") for other in values.metrics_in(*event.arguments.all))


def _accumulates(story: Story, event: Event, metric: Metric) -> bool:
    """Whether the rows of many batches meet in the metric, and not those of one batch alone."""
    if BATCH in event.guards:
        return False
    resets = [reset for reset in story.of("reset") if reset.metric is None or metric.is_same(reset.metric)]
    if event.is_in_step and not all(reset.is_between_epochs for reset in resets):
        return False
    is_computed = bool(story.of("compute", metric))
    return event.name in ("update", "bare") or _is_logged(story, metric) or is_computed


# --- what metrics are asked -----------------------------------------------------------------------------------------


def find_in_compute(story: Story, event: Event) -> Iterator[LintFinding]:
    """LRG204 and LRG207: compute() on rank zero alone, and compute() that combines ranks in every step."""
    metric = event.metric
    if metric is None or not metric.surely(lambda member: member.is_synced):
        return
    on_every_rank = any(RANK_ZERO not in other.guards for other in story.of("compute", metric))
    if RANK_ZERO in event.guards and not on_every_rank and not _is_logged(story, metric):
        problem = (
            f"compute() of {metric.label} combines all ranks, and is called on rank zero alone: it waits for ranks"
            " that never come."
        )
        yield at(event, LRG204, problem, "Call compute() on every rank, and use its value on rank zero.")
    is_called = event.makes_metric or story.cls.derives("LightningModule", "Callback")
    is_synced = metric.surely(lambda member: member.is_retrieval and member.is_synced)
    if event.is_in_step and not event.guards and is_called and is_synced:
        made = "is made in the step and " if event.makes_metric else ""
        problem = f"{metric.label} {made}combines ranks in compute(): in every step all ranks wait for the slowest."
        yield at(event, LRG207, problem)


# --- what metrics are fed -------------------------------------------------------------------------------------------


def find_in_feed(story: Story, event: Event) -> Iterator[LintFinding]:
    """LRG201 and LRG301: rows that every rank holds are combined again, and ids that start again."""
    if event.metric is not None:
        yield from _gathered(story, event, event.metric)
        yield from _restarting(story, event, event.metric)


def _gathered(story: Story, event: Event, metric: Metric) -> Iterator[LintFinding]:
    rows = event.arguments.all
    if RANK_ZERO in event.guards or not event.arguments.is_complete or made_of(*rows).origin != GATHERED:
        return
    # some metrics are the same with every row twice: then gathering is waste, and no wrong number
    is_changed = metric.surely(lambda member: member.is_synced and _is_changed_by_copies(member))
    if is_changed and (event.name == "update" or _accumulates(story, event, metric)):
        line = max(row.line for row in rows)
        where = f" at line {line}" if line else ""
        problem = (
            f"the rows were gathered from all ranks{where}, and {metric.label} combines the ranks again in compute()."
        )
        first, *others = metric.members
        # one call in this file builds it, and nothing else feeds it rows of one rank, which would be lost
        is_safe = not others and first.source is event.source and _gets_gathered_rows(story, first)
        edit = Edit(first.call, set=(("sync_on_compute", "False"),)) if is_safe else None
        yield at(event, LRG201, problem, edit=edit)


def _gets_gathered_rows(story: Story, member: MetricCall) -> bool:
    """Whether all metrics that a call builds, such as those of two stages, surely get rows of all ranks alone."""
    metrics = [(feed, feed.metric.members if feed.metric else ()) for feed in story.of("feed")]
    feeds = [feed for feed, members in metrics if any(other.call is member.call for other in members)]
    return all(made_of(*feed.arguments.all).origin == GATHERED for feed in feeds)


def _is_changed_by_copies(member: MetricCall) -> bool:
    """Whether a metric surely tells every row once from every row several times."""
    cut = member.option("top_k")
    if member.call.args:
        return False  # which option stands first differs from metric to metric
    if cut is None:
        return member.kind in _CHANGED_WITHOUT_CUT
    least = cut if isinstance(cut, int) else 1
    return member.kind in _CHANGED_FROM_ONE or (member.kind in _CHANGED_FROM_TWO and least > 1)


def _restarting(story: Story, event: Event, metric: Metric) -> Iterator[LintFinding]:
    ids = event.arguments.get(2, "indexes")
    if ids is None or not ids.ids or GATHERED & ids.origin or not metric.surely(lambda member: member.is_retrieval):
        return
    if not _accumulates(story, event, metric):
        return
    is_synced = metric.surely(lambda member: member.is_retrieval and member.is_synced)
    is_combined = is_synced and not event.source.is_on_one_device
    line = f", made at line {ids.line}," if ids.line and ids.line != event.node.lineno else ""
    made = f"the ids of {metric.label}{line}"
    if ids.ids == "batch" and not event.makes_metric and event.hook != "__init__":
        yield at(event, LRG301, f"{made} restart in every batch, so rows of different queries merge.")
    elif is_combined and (not event.makes_metric or story.of("compute", metric)):
        where = "are the same on every rank" if event.makes_metric else "restart on every rank"
        yield at(event, LRG301, f"{made} {where}, so rows of different queries merge on several devices.")


def find_in_function(story: Story, event: Event) -> Iterator[LintFinding]:
    """LRG306: a batch of queries, scored as one."""
    scores = event.arguments.get(0, "preds")
    is_matrix = scores is not None and scores.ndim == 2 and not event.source.loads_one_sample
    if is_matrix and event.name.startswith("retrieval_"):
        problem = f"{event.name}() gets a batch of queries in two dimensions, and scores it as one query."
        yield at(event, LRG306, problem)


# --- attributes -----------------------------------------------------------------------------------------------------

_IN_CALLBACK = "Make it an attribute of the module, or move it to pl_module.device in setup()."
# Names with which metrics are registered, moved, or fed on the CPU on purpose.
_BY_HAND = ("add_module", "register_module", "_modules", "to", "cuda", "cpu", "setattr", "vars")


def find_in_attributes(story: Story) -> Iterator[LintFinding]:
    """LRG405: metrics that are no part of the module tree."""
    cls = story.cls
    if not cls.derives("LightningModule", "Module", "Callback"):
        return
    if any(getattr(node, "attr", getattr(node, "id", "")) in _BY_HAND for node in cls.nodes):
        return
    for name, stores in story.stores.items():
        node, source, value = stores[0]
        # what is set twice may be registered on the way; metrics of another object may be registered there
        if len({id(store[0]) for store in stores}) > 1 or not _is_made_of_new_metrics(value):
            continue
        if cls.derives("Callback"):
            if _is_fed_in_hook(story, name):
                problem = f"the callback's {name!r} is no part of the module: Lightning neither moves nor saves it."
                yield LintFinding(node, source, LRG405, f"{problem} {_IN_CALLBACK}")
        elif isinstance(value, (Listing, Mapping)) and not value.is_module and _is_only_read(story, name):
            kind = "dict" if isinstance(value, Mapping) else "list or tuple"
            problem = f"{name!r} is a plain {kind}, so its metrics are no part of the module: Lightning neither moves"
            yield LintFinding(node, source, LRG405, f"{problem} nor saves them. {LRG405.fix}")


def _is_made_of_new_metrics(value: Value) -> bool:
    """Whether a value holds metrics only, all of them made for it."""
    items = list(values.leaves(value))
    return bool(items) and all(
        isinstance(item, Metric) and not item.name and isinstance(item.identity, ast.Call) for item in items
    )


def _is_fed_in_hook(story: Story, name: str) -> bool:
    fed = [event for event in story.of("feed") if event.metric and event.metric.name.startswith(f"self.{name}")]
    return any(event.hook in HOOKS and event.hook not in STEPS for event in fed)


def _is_only_read(story: Story, name: str) -> bool:
    """Whether every use of an attribute surely registers no metric."""
    nodes = [(cls.source, node) for cls in story.cls.lineage for node in ast.walk(cls.node)]
    uses = [(source, node) for source, node in nodes if isinstance(node, ast.Attribute) and node.attr == name]
    return all(_is_read(source, node) for source, node in uses if isinstance(node.ctx, ast.Load))


def _is_read(source: SourceFile, node: ast.AST) -> bool:
    """Whether a use surely registers no metric: a loop, or a method of one of them."""
    use, parent = node, source.parents[node]
    while isinstance(parent, ast.Subscript) and use is parent.value:
        use, parent = parent, source.parents[parent]
    if isinstance(parent, ast.Attribute):
        is_reading = parent.attr in ("items", "keys", "values")
        use, parent = source.parents[parent], source.parents[source.parents[parent]]
        if not is_reading or not isinstance(use, ast.Call):
            return isinstance(use, ast.Call)
    if isinstance(parent, ast.Call):
        return use is parent.func
    return isinstance(parent, (ast.For, ast.comprehension)) and use is parent.iter
