"""What follows from log calls: LRG101, LRG202, LRG203, LRG204 and LRG302."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from lightning_retrieval_guard.lint import values
from lightning_retrieval_guard.lint.events import RANK_ZERO, Event, Story
from lightning_retrieval_guard.lint.finding import LRG101, LRG202, LRG203, LRG204, LRG302, Edit, LintFinding, at
from lightning_retrieval_guard.lint.values import NONE, RANK, Const, Data, Mapping, MetricCall, Score, Value

# Metrics that are no mean over samples, so that no mean over batches gives their value; all tasks alike.
_NO_MEANS = ("AUROC", "AveragePrecision", "PearsonCorrCoef", "SpearmanCorrCoef", "R2Score", "MatthewsCorrCoef")
_MACRO = ("MulticlassAccuracy", "MulticlassRecall", "MulticlassPrecision", "MulticlassF1Score")
_NO_MEAN_OF_QUERIES = ("median", "min", "max")
_VALUES = {"log": (1, "value"), "log_dict": (0, "dictionary"), "log_metrics": (0, "metrics")}
_IN_STEP = "Log the metric object, or pass sync_dist=True."
_ON_ALL = "Log the metric object, or pass sync_dist=True, on every rank."
_AT_END = "Log the metric object, or compute() of a metric that combines ranks."
_BY_HAND = "Log a metric object, or gather what the value is made of with self.all_gather() first."


def find_in_log(story: Story, event: Event) -> Iterator[LintFinding]:
    """What a call of ``log`` or ``log_dict`` makes certain."""
    if event.arguments.is_complete:
        value = event.arguments.get(*_VALUES[event.name]) or NONE
        yield from _weighted(event, value)
        yield from _reduced_twice(event, value)
        yield from _averaged(event, value)
        # the value of a single step may be that of rank zero; one for a whole epoch stands for all ranks
        keeps = event.is_at_epoch_end or _keeps_epoch(event)
        if keeps and _is_absent(event, "sync_dist") and _is_absent(event, "rank_zero_only"):
            yield from _of_one_rank(story, event, value)


def find_in_logger(story: Story, event: Event) -> Iterator[LintFinding]:
    """What a call of ``log_metrics`` makes certain."""
    if event.is_at_epoch_end or event.is_in_step:
        yield from _of_one_rank(story, event, event.arguments.get(*_VALUES[event.name]) or NONE)


# --- arguments ------------------------------------------------------------------------------------------------------


def _is(event: Event, name: str, value: object) -> bool:
    """Whether a keyword surely has a value."""
    given = event.arguments.keywords.get(name)
    return isinstance(given, Const) and given.value is value


def _is_absent(event: Event, name: str) -> bool:
    return name not in event.arguments.keywords or _is(event, name, False)


def _keeps_epoch(event: Event) -> bool:
    """Whether Lightning surely reduces the values of the batches to one of the epoch."""
    if "on_epoch" in event.arguments.keywords:
        return _is(event, "on_epoch", True)
    return event.is_in_step and event.is_evaluation


def _keeps_mean(event: Event) -> bool:
    return _keeps_epoch(event) and _reduces_by(event, "mean")


def _is_plain(value: Value) -> bool:
    """Whether a value is surely no Metric object, for which Lightning ignores most arguments."""
    items = list(values.leaves(value))
    return bool(items) and all(isinstance(item, (Data, Const)) for item in items)


def _reduces_by(event: Event, name: str) -> bool:
    reduction = event.arguments.keywords.get("reduce_fx", Const("mean"))
    if isinstance(reduction, Const):
        return str(reduction.value).lower() == name
    return reduction == values.Reference(f"torch.{name}")


def _names(*scores: Score) -> str:
    names = [score.metric.label if score.metric else f"{score.name}()" for score in scores[:3]]
    return " and ".join(dict.fromkeys(names))


def _all_scores(value: Value) -> tuple[Score, ...]:
    """The metric values that a value consists of, or those among the items of a dictionary."""
    items = value.values if isinstance(value, Mapping) else []
    return values.scores_of(value) or tuple(score for item in items for score in values.scores_of(item))


# --- weights and reductions -----------------------------------------------------------------------------------------


def _weighted(event: Event, value: Value) -> Iterator[LintFinding]:
    """LRG101: batch sizes that are multiplied by the number of devices."""
    size = event.arguments.keywords.get("batch_size", NONE)
    if isinstance(size, Data) and size.symbol == "product" and _keeps_mean(event) and _is_plain(value):
        problem = (
            "batch_size is multiplied by the number of devices, but Lightning weighs each rank's own batch with it."
            " By itself the factor rarely changes the number: it cancels where it is the same in every batch."
        )
        yield at(event, LRG101, problem, edit=_without_factor(event, size.factor))


def _without_factor(event: Event, factor: ast.expr | None) -> Edit | None:
    """The batch size as a float without the number of devices, where it is measured from the batch."""
    if factor is None:
        return None
    nodes = list(ast.walk(factor))
    # a size that is not measured, such as one of the configuration, need not be that of this batch
    called = {getattr(node.func, "id", getattr(node.func, "attr", "")) for node in nodes if isinstance(node, ast.Call)}
    if called.isdisjoint({"len", "size"}) and not any(getattr(node, "attr", "") == "shape" for node in nodes):
        return None
    names = [node for node in ast.walk(event.functions[-1].node) if isinstance(node, ast.Name)]
    stored = [node.id for node in names if isinstance(node.ctx, ast.Store)]
    # where a name is bound again, nobody knows which of its values the factor has
    if any(isinstance(node, ast.Name) and stored.count(node.id) > 1 for node in nodes):
        return None
    return Edit(event.node, set=(("batch_size", f"float({ast.get_source_segment(event.source.text, factor)})"),))


def _reduced_twice(event: Event, value: Value) -> Iterator[LintFinding]:
    """LRG202 and LRG204: sync_dist=True where Lightning reduces nothing, or what is reduced already."""
    if not _is(event, "sync_dist", True):
        return
    if _is(event, "rank_zero_only", True) and _is_plain(value) and value != NONE:
        problem = (
            "sync_dist=True and rank_zero_only=True: Lightning reduces nothing, and the logger shows the shard"
            " of rank 0."
        )
        yield at(event, LRG204, problem, edit=Edit(event.node, drop=("rank_zero_only",)))
    scores = values.scores_of(value)
    is_summed = "rank_zero_only" not in event.arguments.keywords and _reduces_by(event, "sum")
    if is_summed and scores and all(map(_is_synced, scores)):
        problem = (
            f"compute() of {_names(*scores)} combines all ranks already, and sync_dist=True with reduce_fx='sum'"
            " adds its value up once for each rank."
        )
        yield at(event, LRG202, problem, edit=Edit(event.node, drop=("sync_dist", "reduce_fx")))


def _is_synced(score: Score) -> bool:
    """Whether a value surely is that of all ranks."""
    members = score.metric.members if score.metric else []
    return score.how == "compute" and score.is_exact and all(member.is_synced for member in members)


# --- values of one rank ---------------------------------------------------------------------------------------------


def _of_one_rank(story: Story, event: Event, value: Value) -> Iterator[LintFinding]:
    """LRG203: values of a metric on this rank's rows, logged as they are."""
    # what a collective changes in place, nobody sees
    if not event.is_evaluation or event.source.is_on_one_device or story.of("collective"):
        return
    if event.kind == "log" and event.is_at_epoch_end and _is_made_by_hand(event, value):
        problem = "the value is made of what this rank saw, and nothing combines it: the logger shows rank 0's shard."
        yield at(event, LRG203, problem, _BY_HAND)
    scores = _all_scores(value)
    if not scores or not all(_is_local(story, score) for score in scores):
        return
    how = {"forward": "forward() never combines ranks", "functional": "a function never combines ranks"}
    reason = how.get(scores[0].how, "it was built with sync_on_compute=False")
    problem = f"the value of {_names(*scores)} is this rank's own, as {reason}: the logger shows the shard of rank 0."
    in_step = event.kind == "log" and event.is_in_step
    on_all = RANK_ZERO not in event.guards  # where rank zero alone logs, it would wait for the others
    # a mean over ranks must be what is missing, and at the end of an epoch it is no mean over samples
    is_safe = in_step and on_all and not any(_no_mean(event, score) for score in scores)
    edit = Edit(event.node, set=(("sync_dist", "True"),)) if is_safe else None
    fix = _AT_END if not in_step else _IN_STEP if on_all else _ON_ALL
    yield at(event, LRG203, problem, fix, edit)


def _is_made_by_hand(event: Event, value: Value) -> bool:
    """Whether a result surely comes from data of this rank alone. Losses are logged so by most programs."""
    key = event.arguments.get(0, "name")
    is_result = isinstance(key, Const) and "loss" not in str(key.value).lower()
    return is_result and isinstance(value, Data) and not value.scores and value.origin == RANK


def _is_local(story: Story, score: Score) -> bool:
    """Whether a value surely is that of one rank."""
    metric = score.metric
    if metric is None or any(map(_may_combine, metric.members)):
        return metric is None and score.is_local
    if score.how == "forward":
        return score.is_local and all(member.option("dist_sync_on_step") is None for member in metric.members)
    fed = [RANK & values.made_of(*event.arguments.all).origin for event in story.of("feed", metric)]
    return all(member.option("sync_on_compute") is False for member in metric.members) and bool(fed) and all(fed)


def _may_combine(member: MetricCall) -> bool:
    """Whether a metric may combine ranks in a way of its own."""
    passed = {keyword.arg for keyword in member.call.keywords}
    return not passed.isdisjoint({None, "process_group", "dist_sync_fn"}) or member.source.switches_sync


# --- means of batches -----------------------------------------------------------------------------------------------


def _averaged(event: Event, value: Value) -> Iterator[LintFinding]:
    """LRG302: values on single batches, averaged."""
    reasons = [(score, reason) for score in _all_scores(value) if (reason := _no_mean(event, score))]
    if reasons and _keeps_mean(event):
        score, reason = reasons[0]
        yield at(event, LRG302, f"the value of {_names(score)} on single batches is averaged, {reason}.")


def _no_mean(event: Event, score: Score) -> str:
    """Why the mean over batches is not the value of the metric; empty where it may be."""
    metric = score.metric
    if score.how != "forward" or metric is None or not score.is_exact:
        return ""
    if metric.surely(lambda member: member.option("aggregation") in _NO_MEAN_OF_QUERIES):
        return f"and it is the {metric.members[0].option('aggregation')} over queries"
    if metric.surely(_is_no_mean):
        return "and it is no mean over samples"
    size = event.arguments.keywords.get("batch_size")
    is_constant = isinstance(size, Const) and isinstance(size.value, int) and not event.source.loads_one_sample
    if is_constant and score.is_local and metric.surely(lambda member: member.is_retrieval):
        return "each batch with the same weight, although batches hold unequal numbers of queries"
    return ""


def _is_no_mean(member: MetricCall) -> bool:
    is_macro = member.kind in _MACRO and member.option("average") in (None, "macro")
    return is_macro or member.kind.endswith(_NO_MEANS)
