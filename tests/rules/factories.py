"""Log calls, metrics and stages as the rules see them, without a trainer or a process group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torchmetrics import Metric
from torchmetrics.retrieval import RetrievalRecall

from lightning_retrieval_guard.epoch.facts import KeyFacts
from lightning_retrieval_guard.epoch.query_ids import IdColumns
from lightning_retrieval_guard.epoch.repeated_samples import Repeated
from lightning_retrieval_guard.epoch.source_view import SourceView, make_source_view
from lightning_retrieval_guard.epoch.views import EpochView, KeyView
from lightning_retrieval_guard.findings import Finding
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.run.correct import mark_corrected
from lightning_retrieval_guard.watch.batches import BatchSize
from lightning_retrieval_guard.watch.keys import Weights
from tests.unit.simulated import MADE_IN_STEP, Update, combine, decide, make_rank

PATH, LINE = "src/module.py", 212
Step = tuple[float, int | None, float]  # value, samples in the batch, weight that Lightning used


def facts(name: str = "val_loss", **changed: Any) -> KeyFacts:
    """A plain value, logged once in the step."""
    fields: dict[str, Any] = {
        "storage": f"validation_step.{name}",
        "name": name,
        "hook": "validation_step",
        "dataloader": None,
        "path": PATH,
        "line": LINE,
        "kind": "plain",
        "sync_dist": False,
        "rank_zero_only": False,
        "own_group": False,
        "reduction": "mean",
        "in_step": True,
        "calls": 1,
        "synced": False,
        "source": None,
    }
    return KeyFacts(**{**fields, **changed})


def at_end(value: float | None, name: str = "val_loss", **changed: Any) -> KeyFacts:
    """A value logged once in the epoch-end hook, where Lightning's weight is 1."""
    hook = {"hook": "on_validation_epoch_end", "storage": f"on_validation_epoch_end.{name}", "in_step": False}
    return facts(name, value=value, weight=None if value is None else 1.0, **{**hook, **changed})


def steps(
    *logged: Step,
    world_size: int = 1,
    nominal: int | None = None,
    given: bool = True,
    shapes: Sequence[tuple[int, ...]] | None = None,
    **changed: Any,
) -> KeyFacts:
    """A mean logged in every step; batches hold one tensor of ``(samples, 3)`` unless ``shapes`` says otherwise."""
    weights = Weights()
    for value, samples, used in logged:
        sizes = tuple(shapes) if shapes is not None else ((samples or 0, 3),)
        weights.note(used, given, BatchSize(samples, nominal, sizes), value, world_size)
    seen = vars(weights.facts)
    sums = {
        "calls": len(logged),
        "value": float(sum(value * used for value, _, used in logged)),
        "weight": float(sum(used for _, _, used in logged)),
        "lacks_value": float(weights.value),
        "lacks_weight": float(weights.weight),
    }
    return facts(**{**seen, **sums, **changed})


def stage(*keys: KeyView, world_size: int | None = None, repeated: int = 0, **changed: Any) -> EpochView:
    """A validation epoch; by default every rank has seen a batch and logged the keys in the order given."""
    size = world_size or (keys[0].world_size if keys else 1)
    orders = tuple(tuple(key.facts[rank].storage for key in keys if key.facts[rank]) for rank in range(size))
    sources = tuple({id(key.source): key.source for key in keys if key.source is not None}.values())
    fields = {"keys": keys, "sources": sources, "orders": orders, "batches": (1,) * size}
    fields |= {"repeated": Repeated(repeated)}
    return EpochView(world_size=size, **{"stage": "validate", **fields, **changed})


def source(updates: Sequence[Sequence[Update]], metric: Metric | None = None, **changed: Any) -> SourceView:
    """A retrieval metric with the updates of every rank, as rank zero sees it after the ranks have met."""
    return sources(updates, {"recall": metric if metric is not None else RetrievalRecall(top_k=1)}, **changed)["recall"]


def padding_options(rank: int, world_size: int, repeated: int) -> dict[str, Any]:
    """What a rank knows of the samples that a sampler repeated."""
    first = rank - (world_size - repeated)
    return {"repeats": first if first >= 0 else None, "is_repeated": rank < repeated}


def sources(
    updates: Sequence[Sequence[Update]],
    metrics: Mapping[str, Metric],
    *,
    samples: Sequence[int | None] = (),
    repeated: int = 0,
    synchronises: bool = True,
    synced_in_steps: int = 0,
    shown_by_forward: bool = False,
    scope: Any = "auto",
    columns: IdColumns | None = MADE_IN_STEP,
    in_steps: bool = True,
    counted: bool = False,
) -> dict[str, SourceView]:
    """The same for several metrics that saw the same rows, by name."""
    ranks = [
        make_rank(
            [rank_updates] if rank_updates else [],
            metrics,
            len(updates),
            samples=samples[: len(rank_updates)],
            synchronises=synchronises,
            columns=columns,
            in_steps=in_steps,
            counted=counted,
            **padding_options(rank, len(updates), repeated),
        )
        for rank, rank_updates in enumerate(updates)
    ]
    plan = decide(ranks, metrics, scope, repeated > 0)
    travels = len(ranks) > 1 and not plan.replicated and plan.has_rows
    outcomes = {name: combine(ranks, name)[0] for name in metrics}
    return {
        name: make_source_view(
            name=name,
            metric=type(metric).__name__,
            path=PATH,
            line=7,
            synced_in_steps=synced_in_steps,
            shown_by_forward=shown_by_forward,
            mean=getattr(metric, "aggregation", "mean") == "mean",
            synchronises=synchronises,
            plan=ranks[0].group.plan,
            local=ranks[0].local,
            combined=outcomes[name] if travels else None,
        )
        for name, metric in metrics.items()
    }


def findings_of(code: str, seen: EpochView) -> list[Finding]:
    """What one rule says of a stage."""
    return mark_corrected(REGISTRY[code].check(seen), seen.corrected, ordered=False)


def the_finding(code: str, seen: EpochView, line: int = LINE) -> Finding:
    """The one finding of a rule, after a look at what is the same in all of them."""
    (finding,) = findings_of(code, seen)
    assert (finding.code, finding.rule) == (code, REGISTRY[code].slug)
    assert (finding.stage, finding.path, finding.line, finding.count) == ("validate", PATH, line, 1)
    return finding
