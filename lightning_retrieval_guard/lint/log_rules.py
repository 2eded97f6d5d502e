"""What follows from log calls: LRG101, LRG202, LRG203, LRG204 and LRG302."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from lightning_retrieval_guard.lint.events import Event, Story
from lightning_retrieval_guard.lint.finding import Edit, Found, at, rows_of
from lightning_retrieval_guard.lint.tables import MACRO, NO_MEAN_OF_QUERIES, NO_MEANS
from lightning_retrieval_guard.lint.values import (
    Built,
    Const,
    Data,
    Mapping,
    Metric,
    Origin,
    Reference,
    Score,
    Symbol,
    Unknown,
    Value,
    contents,
    origin_of,
    scores_of,
)
from lightning_retrieval_guard.rules import static as advice

_IN_STEP = "Log the metric object, or pass sync_dist=True."
_AT_END = "Log the metric object, or compute() of a metric that combines ranks."
_BY_HAND = "Log a metric object, or gather what the value is made of with self.all_gather() first."


def _logged(event: Event) -> Value | None:
    position, name = {"log": (1, "value"), "log_dict": (0, "dictionary")}.get(event.name, (0, "metrics"))
    return event.argument(position, name)


def _is(event: Event, name: str, value: object) -> bool:
    """Whether a keyword surely has a value."""
    given = event.keywords.get(name)
    return isinstance(given, Const) and given.value is value


def _is_absent(event: Event, name: str) -> bool:
    return name not in event.keywords or _is(event, name, False)


def _keeps_epoch(event: Event) -> bool:
    """Whether Lightning surely takes the mean of the values over the batches."""
    if "on_epoch" in event.keywords:
        return _is(event, "on_epoch", True)
    return event.context.is_in_step and event.context.is_evaluation


def _is_plain(value: Value | None) -> bool:
    """Whether a value is surely no Metric object, for which Lightning ignores most arguments."""
    inner = None if value is None else contents(value)
    if inner is not None:
        return bool(inner) and all(map(_is_plain, inner))
    return isinstance(value, (Data, Const)) and not isinstance(value, Unknown)


def _reduces_by(event: Event, *names: str) -> bool:
    reduction = event.keywords.get("reduce_fx", Const("mean"))
    name = (
        reduction.value
        if isinstance(reduction, Const)
        else reduction.dotted
        if isinstance(reduction, Reference)
        else ""
    )
    return isinstance(name, str) and name.lower().removeprefix("torch.") in names


def _weights(story: Story) -> Iterator[Found]:
    for event in story.of("log"):
        size = event.keywords.get("batch_size")
        is_product = isinstance(size, Data) and size.symbol is Symbol.PRODUCT
        in_step = event.context.is_in_step or "on_epoch" in event.keywords
        if not is_product or not event.is_spelled_out or not _reduces_by(event, "mean") or not in_step:
            continue
        if _keeps_epoch(event) and _is_plain(_logged(event)) and isinstance(size, Data):
            message = (
                "batch_size is multiplied by the number of devices, but Lightning weighs each rank's own batch with it."
                " By itself the factor rarely changes the number: it cancels where it is the same in every batch."
            )
            yield at(event, advice.LRG101, message, edit=_without_factor(event, size.factor))


def _without_factor(event: Event, factor: ast.expr | None) -> Edit | None:
    """The batch size as a float without the number of devices, where it is measured from the batch."""
    calls = [own for own in ast.walk(factor) if isinstance(own, ast.Call)] if factor is not None else []
    is_measured = factor is not None and any(
        getattr(own.func, "id", getattr(own.func, "attr", "")) in ("len", "size") for own in calls
    )
    if factor is None or not (is_measured or any(getattr(own, "attr", "") == "shape" for own in ast.walk(factor))):
        return None
    names = {own.id for own in ast.walk(factor) if isinstance(own, ast.Name)}
    stored = [
        own.id
        for own in ast.walk(event.context.functions[-1])
        if isinstance(own, ast.Name) and isinstance(own.ctx, ast.Store)
    ]
    if any(stored.count(name) > 1 for name in names):
        return None
    return Edit(event.node, set=(("batch_size", f"float({ast.get_source_segment(event.module.text, factor)})"),))


def _synced_twice(story: Story) -> Iterator[Found]:
    for event in story.of("log"):
        value = _logged(event)
        if value is None or not event.is_spelled_out or not _is(event, "sync_dist", True):
            continue
        if _is(event, "rank_zero_only", True):
            if _is_plain(value):
                message = (
                    "sync_dist=True and rank_zero_only=True: Lightning reduces nothing, and the logger shows the shard"
                    " of rank 0."
                )
                yield at(event, advice.LRG204, message, edit=Edit(event.node, drop=("rank_zero_only",)))
        elif "rank_zero_only" not in event.keywords and _reduces_by(event, "sum"):
            scores = scores_of(value)
            if scores and all(own.how == "compute" and own.is_exact and _is_synced(own.metric) for own in scores):
                message = (
                    f"compute() of {_names(scores)} combines all ranks already, and sync_dist=True with reduce_fx='sum'"
                    " adds its value up once for each rank."
                )
                yield at(event, advice.LRG202, message, edit=Edit(event.node, drop=("sync_dist", "reduce_fx")))


def _is_synced(metric: Metric | None) -> bool:
    return metric is not None and all(own.is_synced for own in metric.members)


def _names(scores: Sequence[Score]) -> str:
    return " and ".join(dict.fromkeys(own.metric.label if own.metric else f"{own.name}()" for own in scores[:3]))


def _own_values(story: Story) -> Iterator[Found]:
    """LRG203: values of a metric on this rank's rows, logged as they are."""
    for event in story.of("log", "logger"):
        value = _logged(event)
        place = event.context
        is_logger = event.kind == "logger"
        keeps = place.is_at_epoch_end or (_keeps_epoch(event) if not is_logger else place.is_in_step)
        if value is None or not place.is_evaluation or not keeps or event.module.is_on_one_device:
            continue
        if not is_logger and not all(_is_absent(event, name) for name in ("sync_dist", "rank_zero_only")):
            continue
        scores = scores_of(value) or _some_scores(value)
        if not is_logger and place.is_at_epoch_end and event.is_spelled_out and _is_made_by_hand(event, value):
            message = (
                "the value is made of what this rank saw, and nothing combines it: the logger shows rank 0's shard."
            )
            yield at(event, advice.LRG203, message, _BY_HAND)
        if not scores or not all(_is_own(story, own) for own in scores) or not (event.is_spelled_out or is_logger):
            continue
        how = {"forward": "forward() never combines ranks", "functional": "a function never combines ranks"}
        reason = how.get(scores[0].how, "it was built with sync_on_compute=False")
        message = (
            f"the value of {_names(scores)} is this rank's own, as {reason}: the logger shows the shard of rank 0."
        )
        in_step = place.is_in_step and not is_logger
        is_safe = in_step and event.is_spelled_out and not any(_no_mean(event, own) for own in scores)
        edit = Edit(event.node, set=(("sync_dist", "True"),)) if is_safe else None
        yield at(event, advice.LRG203, message, _IN_STEP if in_step else _AT_END, edit)


def _is_made_by_hand(event: Event, value: Value) -> bool:
    """Whether a result surely comes from data of this rank alone. Losses are logged so by most programs."""
    key = event.argument(0, "name")
    is_result = isinstance(key, Const) and "loss" not in str(key.value).lower()
    return is_result and isinstance(value, Data) and not value.scores and value.origin == {Origin.RANK}


def _some_scores(value: Value) -> tuple[Score, ...]:
    """The metric values among the items of a dictionary."""
    inner = contents(value) if isinstance(value, Mapping) else None
    return tuple(own for item in inner or () for own in scores_of(item))


def _is_own(story: Story, score: Score) -> bool:
    """Whether a value surely is that of one rank."""
    if score.how != "compute" or score.metric is None:
        combines = score.metric is not None and any(
            own.option("dist_sync_on_step") is not None or _is_odd(own) for own in score.metric.members
        )
        return score.is_own and not combines
    is_off = all(own.option("sync_on_compute") is False and not _is_odd(own) for own in score.metric.members)
    fed = [own for own in story.of("feed") if own.metric is not None and own.metric.place == score.metric.place]
    return is_off and bool(fed) and all(any(Origin.RANK in origin_of(row) for row in rows_of(own)) for own in fed)


def _is_odd(built: Built) -> bool:
    """Whether a metric may combine ranks in a way of its own."""
    given = {own.arg for own in built.call.keywords}
    return None in given or bool(given & {"process_group", "dist_sync_fn"}) or built.module.switches_sync


def _means(story: Story) -> Iterator[Found]:
    """LRG302: values on single batches, averaged."""
    for event in story.of("log"):
        value = _logged(event)
        if value is None or not event.is_spelled_out or not _keeps_epoch(event) or not _reduces_by(event, "mean"):
            continue
        for score in scores_of(value) or _some_scores(value):
            reason = _no_mean(event, score)
            if reason:
                message = f"the value of {_names([score])} on single batches is averaged, {reason}."
                yield at(event, advice.LRG302, message)
                break


def _no_mean(event: Event, score: Score) -> str:
    """Why the mean over batches is not the value of the metric; empty where it may be."""
    if score.how != "forward" or score.metric is None or not score.is_exact:
        return ""
    metric = score.metric
    if metric.surely(lambda own: own.option("aggregation") in NO_MEAN_OF_QUERIES):
        return f"and it is the {metric.members[0].option('aggregation')} over queries"
    if metric.surely(_is_no_mean):
        return "and it is no mean over samples"
    size = event.keywords.get("batch_size")
    is_constant = isinstance(size, Const) and isinstance(size.value, int) and not event.module.loads_one_sample
    if is_constant and score.is_own and metric.surely(lambda own: own.is_retrieval):
        return "each batch with the same weight, although batches hold unequal numbers of queries"
    return ""


def _is_no_mean(built: Built) -> bool:
    is_macro = built.kind in MACRO and built.option("average") in (None, "macro")
    return is_macro or built.kind.endswith(NO_MEANS)


RULES = (_weights, _synced_twice, _own_values, _means)
