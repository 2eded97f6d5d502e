"""Logged metrics that keep no rows: what their values stand for, and what they come to in the epoch.

Also what metrics still hold of epochs that are over.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import SourceMetricFacts
from lightning_retrieval_guard.watch.metric_lives import Dropped, MetricRecord, fed_in
from lightning_retrieval_guard.watch.update_context import Feed, UpdateContext


def may_be_stale(metric: Metric, stage: str | None) -> bool:
    """Whether a metric is meant to start anew in each epoch of a stage.

    A training may count on from epoch to epoch, and aggregators and wrappers may hold the best value of a run.
    """
    kept = ("torchmetrics.aggregation", "torchmetrics.wrappers")
    module = type(metric).__module__
    is_torchmetrics = module.startswith("torchmetrics.") and not module.startswith(kept)
    return stage != "train" and (is_torchmetrics or _compat.is_rows_metric(metric))


def drop_stale(
    record: MetricRecord,
    feeding: UpdateContext,
    records: Iterable[tuple[Metric, MetricRecord]],
    may_drop: Callable[[MetricRecord], bool],
) -> None:
    """Make a metric forget what it was fed in earlier epochs, before the first update of another one.

    It forgets only what log calls have shown: another number would change without a finding.

    Args:
        record: The metric.
        feeding: What is about to feed it.
        records: The living metrics: members of a compute group share what they hold, and lose it together.
        may_drop: Whether the user lets a metric forget.
    """
    metric = record.metric()
    if metric is None or not all(feeding.is_over(feed.epoch) for feed in record.feeds):
        return
    if not may_be_stale(metric, feeding.feed.stage):
        return
    if not record.is_rows and metric.update_count != sum(record.feeds.values()):
        return  # updates in compiled code are not seen
    sharers = [(other, sharer) for other, sharer in records if _share(sharer, record)]
    # a member that may not forget would lose what it shares with the others
    if not all(sharer.may_forget and may_drop(sharer) for _, sharer in sharers):
        return
    if not any(sharer.is_shown or sharer.is_forwarded for _, sharer in sharers):
        return
    count = sum(record.feeds.values())
    if record.is_rows:
        count = sum(part.numel() for part in _compat.row_states(metric)[0])
    dropped = Dropped(feeding.feed.epoch, count, all(feed.stage == "sanity_check" for feed in record.feeds))
    for other, sharer in sharers:
        sharer.dropped = dropped
        # without rows, the others take over the states of the first when they are computed
        if record.is_rows or sharer is record:
            other.reset()
        if record.is_rows and other is not metric:
            _compat.share_rows(metric, other)


def _share(one: MetricRecord, other: MetricRecord) -> bool:
    """Whether a metric holds what another one does, which is the first of its compute group or keeps rows."""
    if not other.is_rows:
        return one is other or one.leader is other
    return one.is_rows and _compat.row_states(one.metric())[0] is _compat.row_states(other.metric())[0]


_TASKS = ("Binary", "Multiclass", "Multilabel")

# Their value over all samples is not the mean of their values over batches.
_NO_MEANS = frozenset(
    [
        "AUROC",
        "AveragePrecision",
        "CalibrationError",
        "CohenKappa",
        "EER",
        "F1Score",
        "FBetaScore",
        "JaccardIndex",
        "LogAUC",
        "MatthewsCorrCoef",
        "NegativePredictiveValue",
        "Precision",
        "PrecisionAtFixedRecall",
        "Recall",
        "RecallAtFixedPrecision",
        "SensitivityAtSpecificity",
        "Specificity",
        "SpecificityAtSensitivity",
        "ConcordanceCorrCoef",
        "CriticalSuccessIndex",
        "ExplainedVariance",
        "KendallRankCorrCoef",
        "NormalizedRootMeanSquaredError",
        "PearsonCorrCoef",
        "R2Score",
        "RelativeSquaredError",
        "SpearmanCorrCoef",
        "WeightedMeanAbsolutePercentageError",
        "BLEUScore",
        "CHRFScore",
        "CharErrorRate",
        "MatchErrorRate",
        "Perplexity",
        "SacreBLEUScore",
        "TranslationEditRate",
        "WordErrorRate",
        "WordInfoLost",
        "WordInfoPreserved",
        "FrechetInceptionDistance",
        "InceptionScore",
        "KernelInceptionDistance",
        "PeakSignalNoiseRatio",
        "MinkowskiDistance",
        "QualityWithNoReference",
        "RelativeAverageSpectralError",
        "SpectralDistortionIndex",
    ]
)
# With one class a sample, these follow from the share of right samples when all classes are counted together.
_LINEAR_IF_MICRO = frozenset({"F1Score", "FBetaScore", "Precision", "Recall", "Specificity", "NegativePredictiveValue"})


def is_mean_of_batches(metric: Metric) -> bool:
    """Whether nothing shows that a metric's value is another number than the mean of its values over batches."""
    if not type(metric).__module__.startswith("torchmetrics."):
        return True
    name, average = type(metric).__name__, getattr(metric, "average", None)
    package = type(metric).__module__.split(".")[1]
    if package == "aggregation":
        return name == "MeanMetric"
    # of all samples together, or their sum
    if package in ("clustering", "nominal") or getattr(metric, "reduction", None) == "sum":
        return False
    task = next((task for task in _TASKS if name.startswith(task)), "")
    stem = name[len(task) :]
    if task == "Multiclass" and average == "micro" and stem in _LINEAR_IF_MICRO:
        return True
    if stem in ("Accuracy", "HammingDistance"):
        # every class has samples of its own, while every label has all; the weights of labels are counted in a batch
        return average != {"Multiclass": "macro", "Multilabel": "weighted"}.get(task, "")
    if task == "Multiclass" and stem == "Recall" and average == "weighted":
        return True  # the share of right samples
    if stem == "MeanSquaredError":
        return bool(getattr(metric, "squared", True))
    return stem not in _NO_MEANS


@dataclass
class MetricHistory:
    """The lives of metrics that one key has shown, one after the other; a life lasts from one reset to the next."""

    count: int = 0
    _record: MetricRecord | None = None
    _generation: int = 0
    _feeds: Mapping[Feed, int] = field(default_factory=dict)

    def note(self, record: MetricRecord) -> None:
        """Another value came from a metric."""
        if record is not self._record or record.generation != self._generation:
            self._record, self._generation, self._feeds = record, record.generation, record.feeds
            self.count += 1

    def fed_in(self, epoch: int) -> int | None:
        """The one dataloader, in the steps of which alone the metric was fed in an epoch; ``None`` if that is none."""
        return fed_in(epoch, [(self._record, self._feeds)]) if self._record is not None and self.count == 1 else None

    @property
    def metric(self) -> Any:
        """The last metric, as long as it goes on with the same life."""
        record = self._record
        return record.metric() if record is not None and record.generation == self._generation else None

    def recompute(self, alone: bool) -> float | None:
        """What the last metric comes to; see ``compute_value``."""
        record, metric = self._record, self.metric
        if record is None or metric is None:
            return None
        is_computed = record.is_computed
        value = compute_value(metric, alone)
        # the program did not
        record.is_computed = is_computed
        return value

    def describe(
        self, kind: str, calls: int, dataloader: int | None, feeding: UpdateContext, world_size: int
    ) -> SourceMetricFacts:
        """What to report of them.

        Args:
            kind: What was logged.
            calls: How often.
            dataloader: The dataloader of the key, where it has one.
            feeding: What feeds metrics in the epoch.
            world_size: The number of ranks.
        """
        metric = self._record.metric() if self._record is not None else None
        if self._record is None or metric is None or _is_wrapper(metric):
            return SourceMetricFacts()
        feeds, is_one_life = self._record.feeds, self.count == 1 and self.metric is not None
        updates, loaders = sum(feeds.values()), {feed.dataloader for feed in feeds}
        if is_one_life and updates > metric.update_count:
            return SourceMetricFacts()  # a reset in compiled code is not seen
        running = kind == "compute" and is_one_life and calls > 1 and updates > 1
        fed_here = len(loaders) == 1 and (dataloader is None or dataloader in loaders)
        fed_now = all(feed.epoch == feeding.feed.epoch for feed in feeds)
        # else its value is that of one rank
        combines = world_size == 1 or _compat.syncs_on_compute(metric)
        # a run before this one may have fed it too
        all_seen = updates == metric.update_count
        whole = is_one_life and combines and fed_here and fed_now and all_seen and updates == calls
        facts = SourceMetricFacts(type(metric).__name__, is_mean_of_batches(metric), running, whole)
        if kind != "forward":
            lost = sum(count for feed, count in self._record.lost.items() if feed.epoch == feeding.feed.epoch)
            shared = sum(count for feed, count in feeds.items() if feeding.is_of_another(feed, dataloader))
            elsewhere = shared > 0 and feeding.has_none_of(feeds)
            stale = self._stale(self._record, metric, feeding)
            facts = replace(facts, shared=shared, elsewhere=elsewhere, lost=lost, **stale)
        merged = self._record.merged
        if merged is not None:
            facts = replace(facts, merged=merged.why, merged_how=merged.how)
        # most keys have nothing to report, and then nothing travels
        says = facts.running or facts.stale or facts.shared or facts.lost or facts.merged or not facts.mean
        return facts if says else SourceMetricFacts()

    @staticmethod
    def _stale(record: MetricRecord, metric: Metric, feeding: UpdateContext) -> dict[str, Any]:
        if record.dropped is not None and record.dropped.epoch == feeding.feed.epoch:
            return {"stale": record.dropped.count, "sanity": record.dropped.sanity, "dropped": True}
        over = {feed: count for feed, count in record.feeds.items() if feeding.is_over(feed.epoch)}
        if not over or not may_be_stale(metric, feeding.feed.stage):
            return {}
        return {"stale": sum(over.values()), "sanity": all(feed.stage == "sanity_check" for feed in over)}


def compute_value(metric: Any, alone: bool) -> float | None:
    """The value of a metric, where it is one number; leaves the metric and the random state as they were.

    What ``compute()`` writes to the metric, such as an average that goes on, is undone.

    Args:
        metric: The metric.
        alone: Whether this is the only rank. Else it combines ranks as it does by itself, so all ranks must compute.
    """
    with _computing(metric), _compat.WithoutSync(metric) if alone else contextlib.nullcontext():
        return _number_of(metric.compute())


def value_of_shard(metric: Any) -> float | None:
    """The value of this rank's states, where the metric never combines ranks; the metric stays as it was.

    ``None`` where it combines ranks, keeps rows, was fed nothing, or has no value that is one number.
    """
    parts = _compat.metrics_in(metric) or {"": metric}
    if any(_compat.is_rows_metric(part) or not _compat.stays_on_rank(part) for part in parts.values()):
        return None
    if all(_compat.is_blank(part) for part in parts.values()):
        return None  # a rank that was fed nothing has no shard
    # compute() may write to the tensors that the metric holds
    states = {
        path: (part.update_count, _compat.copied_states(_compat.held_states(part))) for path, part in parts.items()
    }
    with (
        contextlib.suppress(Exception),  # the program did not compute here: its own call will raise
        _computing(metric),
        _compat.WithStates(parts, states),
        _compat.WithoutSync(metric),
        _WithoutCollectives() as collectives,  # type: ignore[no-untyped-call]
    ):
        value = metric.compute()
        return None if collectives.refused else _number_of(value)
    return None


@contextlib.contextmanager
def _computing(metric: Any) -> Iterator[None]:
    """A metric is computed although the program did not ask for it: nothing of that stays."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _compat.attributes_kept(metric):
        warnings.simplefilter("ignore")
        # an old value may be that of other states
        _compat.forget_computed(metric)
        yield


def _number_of(value: Any) -> float | None:
    return float(value) if isinstance(value, Tensor) and value.numel() == 1 else None


class _WithoutCollectives(TorchDispatchMode):
    """Context: whatever talks to other ranks raises, as these may not compute here.

    Attributes:
        refused: Whether anything did; the program may have caught the error.
    """

    refused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "c10d" in getattr(func, "namespace", ""):  # what is built of other operators has none in old versions
            self.refused = True
            raise RuntimeError(f"{func} would have to wait for the other ranks")
        return func(*args, **(kwargs or {}))


def _is_wrapper(metric: Metric) -> bool:
    """Whether the values are those of a window, of a best epoch, or of other metrics."""
    return type(metric).__module__.startswith("torchmetrics.wrappers") or "Running" in type(metric).__name__
