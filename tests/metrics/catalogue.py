"""Every class that torchmetrics exports: how it is made and fed, or why it is not."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchmetrics
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.functional.audio import scale_invariant_signal_noise_ratio

from . import feeds
from .feeds import Feed

PACKAGES = (
    *("audio", "classification", "clustering", "detection", "image", "multimodal", "nominal", "regression"),
    *("retrieval", "segmentation", "shape", "text", "video", "wrappers"),
)
AGGREGATORS = ("CatMetric", "MaxMetric", "MeanMetric", "MinMetric", "RunningMean", "RunningSum", "SumMetric")
# Arguments that have no default, by name.
ARGUMENTS: dict[str, Any] = {
    "num_classes": feeds.CLASSES,
    "num_labels": feeds.LABELS,
    "num_groups": 2,
    "beta": 2.0,
    "min_precision": 0.5,
    "min_recall": 0.5,
    "min_sensitivity": 0.5,
    "min_specificity": 0.5,
}
FEEDS: dict[str, Feed] = {
    "aggregation": feeds.values,
    "audio": feeds.signals,
    "clustering": feeds.clusters,
    "image": feeds.images,
    "nominal": feeds.clusters,
    "regression": feeds.regression,
    "retrieval": feeds.retrieval,
    "segmentation": feeds.masks,
    "shape": feeds.shapes,
    "text": feeds.texts,
}
# Exported only where a package is installed that our way of making it does without.
BEHIND = {"FrechetInceptionDistance": "image.fid"}
WITHOUT = {
    "InceptionScore": "shuffles at random",
    "KernelInceptionDistance": "draws subsets at random",
    "Metric": "the base class of all",
    "BaseAggregator": "a base class",
    "MetricInputTransformer": "a base class",
    "MetricCollection": "holds metrics, and is none",
    "FeatureShare": "holds metrics, and is none",
    "MetricTracker": "holds metrics, and is none",
    "Running": "the last updates have no order over ranks",
    "RunningMean": "the last updates have no order over ranks",
    "RunningSum": "the last updates have no order over ranks",
    "BootStrapper": "draws samples at random",
}
DOWNLOADS = {
    "ArniqaScore", "BERTScore", "CLIPImageQualityAssessment", "CLIPScore", "DeepImageStructureAndTextureSimilarity",
    "DeepNoiseSuppressionMeanOpinionScore", "InfoLM", "LearnedPerceptualImagePatchSimilarity",
    "NonIntrusiveSpeechQualityAssessment", "PerceptualPathLength", "VideoMultiMethodAssessmentFusion",
}  # fmt: skip


class Pixels(nn.Module):
    """Features of an image in place of those of a network that has to be downloaded."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(len(images), -1)[:, : self.num_features].double()


def _negated(preds: Tensor) -> Tensor:
    return 1 - preds


def _special() -> dict[str, tuple[dict[str, Any], Feed]]:
    """Classes that are made or fed otherwise than the others of their task; metrics among the arguments are new."""
    auroc, classes = torchmetrics.classification.BinaryAUROC, feeds.CLASSES
    classwise = torchmetrics.classification.MulticlassAUROC(num_classes=classes, average=None)
    tasks = {"label": auroc(), "number": torchmetrics.PearsonCorrCoef()}
    own: dict[str, tuple[dict[str, Any], Feed]] = {
        "BinaryFairness": ({"num_groups": 2}, feeds.fairness),
        "BinaryGroupStatRates": ({"num_groups": 2}, feeds.fairness),
        "MulticlassExactMatch": ({"num_classes": classes}, feeds.several_multiclass),
        "ExactMatch": ({"task": "multiclass", "num_classes": classes}, feeds.several_multiclass),
        "CalinskiHarabaszScore": ({}, feeds.points),
        "DaviesBouldinScore": ({}, feeds.points),
        "DunnIndex": ({}, feeds.points),
        "ClusterAccuracy": ({"num_classes": classes}, feeds.clusters),
        "FleissKappa": ({"mode": "counts"}, feeds.ratings),
        "ComplexScaleInvariantSignalNoiseRatio": ({}, feeds.spectrograms),
        "PermutationInvariantTraining": ({"metric_func": scale_invariant_signal_noise_ratio}, feeds.speakers),
        "SignalDistortionRatio": ({"filter_length": 16}, feeds.long_signals),
        "SourceAggregatedSignalDistortionRatio": ({}, feeds.speakers),
        "PanopticQuality": ({"things": {0, 1}, "stuffs": {2, 3}}, feeds.panoptic),
        "ModifiedPanopticQuality": ({"things": {0, 1}, "stuffs": {2, 3}}, feeds.panoptic),
        "MultiScaleStructuralSimilarityIndexMeasure": (
            {"kernel_size": 5, "betas": (0.4, 0.6), "data_range": 1.5},
            feeds.large_images,
        ),
        "StructuralSimilarityIndexMeasure": ({"data_range": 1.5, "kernel_size": 5}, feeds.images),
        "PeakSignalNoiseRatio": ({"data_range": 1.5}, feeds.images),
        "PeakSignalNoiseRatioWithBlockedEffect": ({"data_range": 1.5}, feeds.small_images),
        "VisualInformationFidelity": ({}, feeds.large_images),
        "TotalVariation": ({}, feeds.one_image),
        "QualityWithNoReference": ({"window_size": 5}, feeds.pansharpened),
        "SpatialDistortionIndex": ({"window_size": 5}, feeds.pansharpened),
        "LipVertexError": ({"mouth_map": [0, 1, 2]}, feeds.vertices),
        "KLDivergence": ({}, feeds.distributions),
        "JensenShannonDivergence": ({}, feeds.distributions),
        "CosineSimilarity": ({"reduction": "mean"}, feeds.vectors),
        "ContinuousRankedProbabilityScore": ({}, feeds.ensembles),
        "CriticalSuccessIndex": ({"threshold": 0.5}, feeds.regression),
        "MinkowskiDistance": ({"p": 3}, feeds.regression),
        "GeneralizedDiceScore": ({"num_classes": classes}, feeds.masks),
        "Perplexity": ({}, feeds.tokens),
        "SQuAD": ({}, feeds.answers),
        "ROUGEScore": ({"rouge_keys": ("rouge1", "rouge2", "rougeL")}, feeds.texts),
        "MinMaxMetric": ({"base_metric": auroc()}, feeds.binary),
        "ClasswiseWrapper": ({"metric": classwise}, feeds.multiclass),
        "MultioutputWrapper": (
            {"base_metric": torchmetrics.SpearmanCorrCoef(), "num_outputs": feeds.LABELS},
            feeds.vectors,
        ),
        "MultitaskWrapper": ({"task_metrics": tasks}, feeds.tasks),
        "BinaryTargetTransformer": ({"wrapped_metric": auroc(), "threshold": 0.5}, feeds.regression),
        "LambdaInputTransformer": ({"wrapped_metric": auroc(), "transform_pred": _negated}, feeds.binary),
    }
    own |= {name: ({}, feeds.corpora) for name in ("BLEUScore", "SacreBLEUScore", "CHRFScore", "TranslationEditRate")}
    for name in ("FrechetInceptionDistance", "MemorizationInformedFrechetInceptionDistance"):
        own[name] = ({"feature": Pixels(), "normalize": True}, feeds.real_and_fake)
    return own


@dataclass(frozen=True)
class Entry:
    """One class.

    Attributes:
        name: Of the class.
        package: The part of torchmetrics that exports it.
        found: The class.
        arguments: Make those that it is made with, anew each time.
        feed: What it is fed.
        without: Why it is not tried, if it is not.
    """

    name: str
    package: str
    found: Any = Metric
    arguments: Callable[[], dict[str, Any]] = dict
    feed: Feed = feeds.values
    without: str = ""

    def build(self) -> Any:
        """A new metric."""
        return self.found(**self.arguments())

    @property
    def made(self) -> str:
        """How it is made, in words."""
        return ", ".join(f"{name}={_shown(value)}" for name, value in self.arguments().items())

    @property
    def fed(self) -> str:
        """What it is fed, by the name that this has in `feeds`."""
        return next(name for name, value in vars(feeds).items() if value is self.feed).replace("_", " ")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_shown(one)}" for name, one in value.items()) + "}"
    if isinstance(value, nn.Module):
        return f"{type(value).__name__}()"
    return getattr(value, "__name__", repr(value)).lstrip("_")


def exported() -> Iterator[tuple[str, str]]:
    """The names that each part of torchmetrics exports, also those that it does where other packages are installed."""
    folder = Path(torchmetrics.__file__).parent
    yield from (("aggregation", name) for name in AGGREGATORS)
    for package in PACKAGES:
        tree = ast.parse((folder / package / "__init__.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                yield from ((package, name) for name in ast.literal_eval(node.value))


@functools.cache
def catalogue() -> dict[str, Entry]:
    """Every class, by name."""
    return {name: _entry(package, name) for package, name in exported()}


def _entry(package: str, name: str) -> Entry:
    if name in WITHOUT:
        return Entry(name, package, without=WITHOUT[name])
    if name in DOWNLOADS:
        return Entry(name, package, without="needs a model that is downloaded")
    found = getattr(importlib.import_module(f"torchmetrics.{BEHIND.get(name, package)}"), name, None)
    if found is None:
        return Entry(name, package, without="needs a package that is not installed")
    entry = Entry(name, package, found, *_made_and_fed(package, name, found))
    try:
        entry.build()
    except (ImportError, RuntimeError) as error:
        if "nstall" not in str(error):
            raise
        return Entry(name, package, without="needs a package that is not installed")
    return entry


def _made_and_fed(package: str, name: str, found: type) -> tuple[Callable[[], dict[str, Any]], Feed]:
    special = _special().get(name)
    if special is not None:
        return (lambda: _special()[name][0]), special[1]
    if package != "classification":
        return (lambda: _needed(found)), FEEDS[package]
    for task, feed in (("Binary", feeds.binary), ("Multiclass", feeds.multiclass), ("Multilabel", feeds.multilabel)):
        if name.startswith(task):
            return (lambda: _needed(found)), feed
    needed = {name: value for name, value in _needed(found, "__new__").items() if name != "num_labels"}
    return (lambda: {"task": "multiclass", **needed, "num_classes": feeds.CLASSES}), feeds.multiclass


def _needed(found: type, method: str = "__init__") -> dict[str, Any]:
    """The arguments that have no default of their own."""
    parameters = inspect.signature(getattr(found, method)).parameters.values()
    missing = [one.name for one in parameters if one.default in (one.empty, None)]
    return {name: ARGUMENTS[name] for name in missing if name in ARGUMENTS}


def numbers(value: Any) -> list[float]:
    """All numbers in a value, in order."""
    if isinstance(value, Tensor):
        return [float(one) for one in value.detach().double().reshape(-1)]
    if isinstance(value, dict):
        return [number for name in sorted(value) for number in numbers(value[name])]
    if isinstance(value, (list, tuple)):
        return [number for one in value for number in numbers(one)]
    return [float(value)]


def alone(entry: Entry, batches: list[list[int]]) -> list[float]:
    """The value in one process that is fed all batches."""
    metric = entry.build()
    for batch in batches:
        args, kwargs = entry.feed(torch.tensor(batch))
        metric.update(*args, **kwargs)
    return numbers(metric.compute())
