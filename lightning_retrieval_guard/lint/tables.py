"""What functions of torch and torchmetrics do to what is known of a tensor, and which names have a meaning."""

from __future__ import annotations

from lightning_retrieval_guard.lint.values import UNKNOWN, Data, Lead, Many, Origin, Symbol, Value

# What is kept of the first argument; whatever is not named here keeps the origin alone.
# "rows": the first dimension, "ids": which id a row has, "ndim": the number of dimensions, "scores": metric values.
_ALL = frozenset({"rows", "ids", "ndim", "scores", "size"})
_SHAPE = frozenset({"rows", "ndim"})
_PLACES = "to cpu cuda detach clone contiguous type type_as float double half bfloat16 long int requires_grad_ data"
_ELEMENTWISE = (
    "sigmoid softmax log_softmax logit exp log abs neg masked_fill where normalize relu tanh squeeze_ pow sqrt"
    " logical_not bool nan_to_num argsort sort cumsum fliplr flip scatter scatter_"
)
_SCALING = "round clamp mul div add sub mul_ div_ add_ sub_"
_FIRST_DIMENSION = "expand expand_as broadcast_to"
_RESHAPED = "repeat repeat_interleave view view_as reshape flatten ravel squeeze unsqueeze"
_REDUCED = "mean item tolist nanmean sum max min amax amin median any all argmax argmin count_nonzero numpy"
KEEPS: dict[str, frozenset[str]] = {
    **dict.fromkeys(_PLACES.split(), _ALL),
    **dict.fromkeys(_ELEMENTWISE.split(), _SHAPE),
    **dict.fromkeys(_SCALING.split(), _SHAPE | {"ids", "scores"}),
    **dict.fromkeys(_FIRST_DIMENSION.split(), frozenset({"rows", "ids"})),
    **dict.fromkeys(_RESHAPED.split(), frozenset({"ids", "scores"})),
    **dict.fromkeys(_REDUCED.split(), frozenset({"scores"})),
}
# Methods that leave the value of a metric as it is.
EXACT = frozenset({"item", "tolist", "detach", "cpu", "clone", "to", "float", "double", "numpy", "data"})
# Methods that return what they were called on, or something of the same kind.
SAME_OBJECT = frozenset({"to", "cpu", "cuda", "clone", "detach", "train", "eval", "half", "float", "double"})
# Methods of what is not known that may return a Metric object.
HOLDING = frozenset({"get", "pop", "setdefault", "values", "items"})
# Functions that make a list of tensors, or of numbers, one.
CONCATENATING = frozenset({"cat", "concat", "concatenate", "hstack", "vstack"})
FROM_LISTS = frozenset({"stack", "tensor", "as_tensor", "LongTensor", "IntTensor", "FloatTensor", "array", "asarray"})
# Functions that ask for the shape first.
FILLED = frozenset({"full", "full_like", "new_full"})
MADE = frozenset({"zeros", "ones", "empty", "rand", "randn", "randint", "eye", "zeros_like", "ones_like", "rand_like"})
BY_CHANCE = ("rand", "normal", "bernoulli", "multinomial", "uniform", "dropout")
# Parts of a name that stand for talking to other ranks.
TALKING = ("gather", "reduce", "sync", "broadcast", "dist", "collective")
# Functions of other packages that keep the samples first.
KEEPS_SAMPLES = frozenset({"torch_geometric.utils.to_dense_batch", "torch_geometric.utils.dense.to_dense_batch"})

_DEVICES = Data(symbol=Symbol.DEVICES)
_GLOBAL_RANK = Data(UNKNOWN.origin, symbol=Symbol.GLOBAL_RANK)
DISTRIBUTED = {"get_world_size": _DEVICES, "device_count": _DEVICES, "get_rank": _GLOBAL_RANK}
SYMBOLS = {
    **dict.fromkeys(("world_size", "num_devices"), _DEVICES),
    **dict.fromkeys(("global_rank", "local_rank"), _GLOBAL_RANK),
    "is_global_zero": Data(UNKNOWN.origin, symbol=Symbol.IS_ZERO),
}
PARAMETERS = dict.fromkeys(("world_size", "num_devices", "n_devices", "num_gpus", "n_gpus"), _DEVICES)
BATCH_COUNTS = ("num_graphs", "batch_size")

# Classes that hold other metrics, or are no metric by themselves.
_HOLDERS = (
    "BootStrapper ClasswiseWrapper CompositionalMetric FeatureShare Metric MetricInputTransformer MetricTracker"
    " MinMaxMetric MultioutputWrapper MultitaskWrapper Running RunningMean RunningSum WrapperMetric"
)
NO_METRICS = frozenset(_HOLDERS.split())
# Arguments that may change how ranks are combined.
OWN_SYNC = ("process_group", "dist_sync_fn", "distributed_available_fn")
# Metrics that a second copy of every row changes where they look at two rows or more, or at any number of rows.
CHANGED_FROM_TWO = ("RetrievalMAP", "RetrievalMRR", "RetrievalNormalizedDCG", "RetrievalHitRate", "RetrievalPrecision")
CHANGED_FROM_ONE = ("RetrievalRecall", "RetrievalFallOut")
CHANGED_WITHOUT_CUT = ("RetrievalMAP", "RetrievalMRR", "RetrievalNormalizedDCG")
# Metrics that are no mean over samples, so that no mean over batches gives their value; all tasks alike.
NO_MEANS = ("AUROC", "AveragePrecision", "PearsonCorrCoef", "SpearmanCorrCoef", "R2Score", "MatthewsCorrCoef")
MACRO = ("MulticlassAccuracy", "MulticlassRecall", "MulticlassPrecision", "MulticlassF1Score")
NO_MEAN_OF_QUERIES = ("median", "min", "max")

STEPS = ("training_step", "validation_step", "test_step", "predict_step")
_OUTPUT = Data(frozenset({Origin.RANK}), Lead.BATCH, is_batch=True)
_BATCH = (_OUTPUT, Data(ids=Lead.RANK), Data())
# What Lightning passes to hooks after ``self``, by position.
HOOKS: dict[str, tuple[Value, ...]] = {
    **dict.fromkeys(STEPS, _BATCH),
    **{f"on_{stage}_batch_start": _BATCH for stage in ("train", "validation", "test", "predict")},
    **{f"on_{stage}_batch_end": (_OUTPUT, *_BATCH) for stage in ("train", "validation", "test", "predict")},
    **{f"on_{stage}_epoch_{end}": () for stage in ("train", "validation", "test") for end in ("start", "end")},
    **{f"{stage}_epoch_end": (Many(_OUTPUT, Lead.RANK),) for stage in ("training", "validation", "test")},
    **{f"{stage}_step_end": (_OUTPUT,) for stage in ("training", "validation", "test")},
    **{f"on_{stage}_{end}": () for stage in ("fit", "train", "validation", "test") for end in ("start", "end")},
}
