"""What follows from what metrics are fed and asked: LRG201, LRG204, LRG207, LRG301, LRG306 and LRG405."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from lightning_retrieval_guard.lint.events import Event, Story
from lightning_retrieval_guard.lint.finding import Edit, Found, at, rows_of
from lightning_retrieval_guard.lint.guards import BATCH, RANK_ZERO
from lightning_retrieval_guard.lint.modules import Module
from lightning_retrieval_guard.lint.tables import CHANGED_FROM_ONE, CHANGED_FROM_TWO, CHANGED_WITHOUT_CUT, HOOKS, STEPS
from lightning_retrieval_guard.lint.values import (
    Built,
    Const,
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
from lightning_retrieval_guard.rules import static as advice


def _rank_zero(story: Story) -> Iterator[Found]:
    """LRG204: compute() on rank zero alone."""
    for event in story.of("compute"):
        metric = event.metric
        if metric is None or RANK_ZERO not in event.context.guards or not metric.surely(lambda own: own.is_synced):
            continue
        others = (own for own in story.of("compute") if RANK_ZERO not in own.context.guards)
        if not any(own.metric is not None and own.metric.place == metric.place for own in others) and not _is_logged(
            story, metric
        ):
            message = (
                f"compute() of {metric.label} combines all ranks, and is called on rank zero alone: it waits for ranks"
                " that never come."
            )
            yield at(event, advice.LRG204, message, "Call compute() on every rank, and use its value on rank zero.")


def _is_logged(story: Story, metric: Metric) -> bool:
    """Whether the metric is logged as an object, which leaves its value behind for later calls."""
    logged = (value for event in story.of("log") for row in rows_of(event) for value in metrics_in(row))
    return any(own.place == metric.place for own in logged)


def _accumulates(story: Story, event: Event) -> bool:
    """Whether the rows of many batches meet in the metric, and not those of one batch alone."""
    metric = event.metric
    if metric is None or BATCH in event.context.guards:
        return False
    if event.context.is_in_step:
        for own in story.of("reset"):
            is_same = own.metric is None or own.metric.place == metric.place
            if is_same and not own.context.is_between_epochs:
                return False
    if event.name in ("update", "bare"):
        return True
    computed = (own.metric for own in story.of("compute") if own.metric is not None)
    return _is_logged(story, metric) or any(own.place == metric.place for own in computed)


def _is_local(event: Event) -> bool:
    """Whether the metric is made by the function that it is fed in, or by one around it."""
    place = event.metric.place if event.metric else None
    return isinstance(place, ast.Call) and any(place in ast.walk(own) for own in event.context.functions)


def _gathered(story: Story) -> Iterator[Found]:
    """LRG201: rows that every rank holds, combined again."""
    for event in story.of("feed"):
        rows = rows_of(event)
        metric = event.metric
        if metric is None or RANK_ZERO in event.context.guards or not event.is_spelled_out:
            continue
        is_all = frozenset().union(*map(origin_of, rows)) == {Origin.GATHERED}
        is_changed = metric.surely(lambda own: own.is_synced and _is_changed_by_copies(own))
        if is_all and is_changed and (event.name == "update" or _accumulates(story, event)):
            lines = [own.line for own in rows if isinstance(own, Data) and Origin.GATHERED in own.origin and own.line]
            place = f" at line {max(lines)}" if lines else ""
            how = f"{metric.label} combines the ranks again in compute()"
            message = f"the rows were gathered from all ranks{place}, and {how}."
            built = metric.members
            is_one = len(built) == 1 and built[0].module is event.module
            edit = Edit(built[0].call, set=(("sync_on_compute", "False"),)) if is_one else None
            yield at(event, advice.LRG201, message, edit=edit)


def _is_changed_by_copies(built: Built) -> bool:
    """Whether a metric surely tells every row once from every row several times."""
    cut = built.option("top_k")
    if built.call.args:
        return False
    if cut is None:
        return built.kind in CHANGED_WITHOUT_CUT
    least = cut if isinstance(cut, int) else 1
    return built.kind in CHANGED_FROM_ONE or (built.kind in CHANGED_FROM_TWO and least > 1)


def _ids(story: Story) -> Iterator[Found]:
    """LRG301: ids that count the samples of a batch, or of a rank."""
    for event in story.of("feed"):
        given = event.argument(2, "indexes")
        ids = given.ids if isinstance(given, Data) else None
        metric = event.metric
        if ids is None or metric is None or not metric.surely(lambda own: own.is_retrieval):
            continue
        if not _accumulates(story, event) or Origin.GATHERED in origin_of(given or Const(None)):
            continue
        is_synced = metric.surely(lambda own: own.is_retrieval and own.is_synced) and not event.module.is_on_one_device
        line = given.line if isinstance(given, Data) else 0
        made = f"the ids of {metric.label}" + (f", made at line {line}," if line and line != event.node.lineno else "")
        alone = _is_local(event)
        if ids is Lead.BATCH and not alone and event.context.hook not in ("", "__init__"):
            yield at(event, advice.LRG301, f"{made} restart in every batch, so rows of different queries merge.")
        elif is_synced and (
            not alone or any(own.metric is not None and own.metric.place == metric.place for own in story.of("compute"))
        ):
            where = "are the same on every rank" if alone else "restart on every rank"
            yield at(event, advice.LRG301, f"{made} {where}, so rows of different queries merge on several devices.")


def _in_steps(story: Story) -> Iterator[Found]:
    """LRG207: ranks combined in every step."""
    is_hooked = story.cls is not None and story.cls.derives("LightningModule", "Callback")
    for event in story.of("compute"):
        metric = event.metric
        is_here = is_hooked or _is_local(event)
        if metric is None or not event.context.is_in_step or event.context.guards or not is_here:
            continue
        if metric.surely(lambda own: own.is_retrieval and own.is_synced):
            made = "is made in the step and " if _is_local(event) else ""
            message = f"{metric.label} {made}combines ranks in compute(): in every step all ranks wait for the slowest."
            yield at(event, advice.LRG207, message)


def _batches(story: Story) -> Iterator[Found]:
    """LRG306: a batch of queries, scored as one."""
    for event in story.of("functional"):
        scores = event.argument(0, "preds")
        is_flat = isinstance(scores, Data) and scores.ndim == 2 and not event.module.loads_one_sample
        if event.name.startswith("retrieval_") and is_flat and story.cls is not None:
            message = f"{event.name}() gets a batch of queries in two dimensions, and scores it as one query."
            yield at(event, advice.LRG306, message)


# --- attributes -----------------------------------------------------------------------------------------------------

_IN_CALLBACK = "Make it an attribute of the module, or move it to pl_module.device in setup()."
_READING = ("items", "keys", "values")
# Names with which metrics are registered, moved, or fed on the CPU on purpose.
_BY_HAND = ("add_module", "register_module", "_modules", "to", "cuda", "cpu")


def _held(story: Story) -> Iterator[Found]:
    """LRG405: metrics that are no part of the module tree."""
    cls = story.cls
    if cls is None or not cls.derives("LightningModule", "Module", "Callback") or _is_handled(story):
        return
    is_callback = cls.derives("Callback")
    for name, stores in story.stores.items():
        node, module, value = stores[0]
        kind = _plain_kind(value)
        metrics = metrics_in(value)
        is_fresh = bool(metrics) and all(not own.name and isinstance(own.place, ast.Call) for own in metrics)
        if len({id(own[0]) for own in stores}) > 1 or not is_fresh or not _holds_only_metrics(value):
            continue
        if is_callback and any(
            own.metric
            and own.context.hook not in STEPS
            and own.context.hook in HOOKS
            and str(own.metric.name).startswith(f"self.{name}")
            for own in story.of("feed")
        ):
            message = f"the callback's {name!r} is no part of the module: Lightning neither moves nor saves it."
            yield Found(node, module, advice.LRG405, message, _IN_CALLBACK)
        elif not is_callback and kind and all(_is_read(module, own) for own in _uses(story, name)):
            message = (
                f"{name!r} is a plain {kind}, so its metrics are no part of the module: Lightning neither moves"
                " nor saves them."
            )
            yield Found(node, module, advice.LRG405, message)


def _plain_kind(value: Value) -> str:
    if isinstance(value, (Items, Many, Mapping)) and not value.is_module:
        return "dict" if isinstance(value, Mapping) else "list or tuple"
    return ""


def _holds_only_metrics(value: Value) -> bool:
    inner = contents(value)
    return isinstance(value, Metric) if inner is None else bool(inner) and all(map(_holds_only_metrics, inner))


def _is_handled(story: Story) -> bool:
    """Whether the class moves or registers anything by hand."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr in _BY_HAND)
        or (isinstance(node, ast.Name) and node.id in ("setattr", "vars"))
        for cls in (story.cls.lineage if story.cls else [])
        for node in ast.walk(cls.node)
    )


def _uses(story: Story, name: str) -> Iterator[ast.Attribute]:
    """Every place in the classes that reads the attribute."""
    for cls in story.cls.lineage if story.cls else []:
        for node in ast.walk(cls.node):
            if isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Load):
                yield node


def _is_read(module: Module, node: ast.Attribute) -> bool:
    """Whether a use surely registers no metric: a loop, or a method of one of them."""
    use: ast.AST = node
    parent = module.parents[use]
    while isinstance(parent, ast.Subscript) and use is parent.value:
        use, parent = parent, module.parents[parent]
    if isinstance(parent, ast.Attribute):
        is_reading = parent.attr in _READING
        use, parent = module.parents[parent], module.parents[module.parents[parent]]
        if not is_reading or not isinstance(use, ast.Call):
            return isinstance(use, ast.Call)
    if isinstance(parent, ast.Call):
        return use is parent.func
    return isinstance(parent, (ast.For, ast.comprehension)) and use is parent.iter


RULES = (_rank_zero, _gathered, _ids, _in_steps, _batches, _held)
