"""What calls return: methods, builtins, metrics of torchmetrics, and functions of torch by way of the tables."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_retrieval_guard.lint import tensors, values
from lightning_retrieval_guard.lint.source import Function
from lightning_retrieval_guard.lint.values import NONE, SELF, UNKNOWN, Arguments, Const, Data, Listing, Mapping, Value

if TYPE_CHECKING:
    from lightning_retrieval_guard.lint.interpreter import Interpreter

_DEVICES = Data(symbol="devices")
_GLOBAL_RANK = Data(values.UNSURE, symbol="global rank")
_DISTRIBUTED = {"get_world_size": _DEVICES, "device_count": _DEVICES, "get_rank": _GLOBAL_RANK}
# Attributes with a meaning in a distributed run, whatever object they are of.
SYMBOLS = {
    **dict.fromkeys(("world_size", "num_devices"), _DEVICES),
    **dict.fromkeys(("global_rank", "local_rank"), _GLOBAL_RANK),
    "is_global_zero": Data(values.UNSURE, symbol="is rank zero"),
}
# Methods that return what they were called on, or something of the same kind.
_SAME_OBJECT = frozenset({"to", "cpu", "cuda", "clone", "detach", "train", "eval", "half", "float", "double"})
# Methods of what is not known that may return a Metric object.
_HOLDING = frozenset({"get", "pop", "setdefault", "values", "items"})
# Parts of a name that stand for talking to other ranks.
_TALKING = ("gather", "reduce", "sync", "broadcast", "dist", "collective")
_COMBINING = ("gather", "reduce", "sync", "broadcast", "all_to_all")
# Functions of other packages that keep the samples first.
_KEEPS_SAMPLES = frozenset({"torch_geometric.utils.to_dense_batch", "torch_geometric.utils.dense.to_dense_batch"})
# What log and log_dict take by position behind the value.
_LOG_OPTIONS = ("prog_bar", "logger", "on_step", "on_epoch", "reduce_fx", "enable_graph", "sync_dist")
# Classes that hold other metrics, or are no metric by themselves.
_HOLDERS = (
    "BootStrapper ClasswiseWrapper CompositionalMetric FeatureShare Metric MetricInputTransformer MetricTracker"
    " MinMaxMetric MultioutputWrapper MultitaskWrapper Running RunningMean RunningSum WrapperMetric"
)
_NO_METRICS = frozenset(_HOLDERS.split())
# Arguments that may change how ranks are combined.
_OWN_SYNC = ("process_group", "dist_sync_fn", "distributed_available_fn", None)


def call(run: Interpreter, node: ast.Call) -> Value:
    """What a call returns."""
    function = node.func
    _note_collective(run, node)
    if not isinstance(function, ast.Attribute):
        return _apply(run, node, run.eval(function))
    name = function.attr
    if isinstance(function.value, ast.Call) and getattr(function.value.func, "id", "") == "super":
        return _apply(run, node, run.story.cls.method(name, run.frame.function.cls) or UNKNOWN)
    owner = run.eval(function.value)
    # a logger has this method, whatever attribute holds it
    if name == "log_metrics" and owner != SELF:
        run.note("logger", node, _arguments(run, node), name=name)
        return NONE
    if name == "reset" and owner != SELF and not isinstance(owner, values.Metric):
        run.note("reset", node, Arguments([], {}))  # of something that may be a metric
    if isinstance(owner, values.Reference):
        return _apply(run, node, run.eval(function))
    arguments = _arguments(run, node)
    if isinstance(owner, values.Metric):
        return _call_metric(run, node, owner, name, arguments)
    if isinstance(owner, Mapping):
        return _call_mapping(run, owner, function, arguments)
    if isinstance(owner, Listing):
        return _call_list(run, owner, function, arguments)
    if isinstance(owner, Data):
        return _call_tensor(run, owner, function, arguments)
    # what may be a metric object must not pass for a plain number
    maybe_metric = name in _HOLDING | _SAME_OBJECT or "metric" in name.lower() or name[:1].isupper()
    return UNKNOWN if maybe_metric or owner != UNKNOWN else values.made_of(owner)


def _note_collective(run: Interpreter, node: ast.Call) -> None:
    """Notes a call that surely or by its name combines ranks in place, as ``torch.distributed.all_reduce(hits)``."""
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    is_in_place = node is run.bare_call or run.frame.function.source.dotted(node.func).startswith("torch.distributed.")
    if node.args and is_in_place and any(part in name for part in _COMBINING):
        run.note("collective", node, Arguments([], {}))


def _arguments(run: Interpreter, node: ast.Call) -> Arguments:
    given: list[Value] = []
    keywords: dict[str, Value] = {}
    is_complete = True
    for argument in node.args:
        value = run.eval(argument)
        items = run.items_of(value) if isinstance(argument, ast.Starred) else [value]
        is_complete &= items is not None
        given += [values.item_of(value)] if items is None else items
    for keyword in node.keywords:
        value = run.eval(keyword.value)
        if keyword.arg is not None:
            keywords[keyword.arg] = value
        elif isinstance(value, Mapping) and value.rest is None:
            keywords |= {str(key): item for key, item in value.items.items()}
        else:
            keywords["**"], is_complete = value, False
    return Arguments(given, keywords, is_complete)


def _apply(run: Interpreter, node: ast.Call, callee: Value) -> Value:
    arguments = _arguments(run, node)
    if isinstance(callee, values.Metric):
        return _feed(run, node, callee, "bare" if node is run.bare_call else "forward", arguments)
    if isinstance(callee, Function):
        # behind a star it is not known which parameter gets what
        return run.call(callee, arguments) if arguments.is_complete else UNKNOWN
    if callee == SELF:
        forward = run.story.cls.method("forward")
        result = run.call(forward, arguments) if forward and arguments.is_complete else UNKNOWN
        return _assumed("forward", arguments) if result == UNKNOWN else result
    return _call_reference(run, node, callee.dotted, arguments) if isinstance(callee, values.Reference) else UNKNOWN


def _assumed(name: str, arguments: Arguments) -> Value:
    """What a module returns that is not known: it is taken to keep the samples first if it gets nothing else."""
    given = [value if values.contents(value) is None else values.made_of(value) for value in arguments.all]
    talks = any(part in name.lower() for part in (*_TALKING, "metric"))
    if talks or name[:1].isupper() or not any(isinstance(value, Data) and value.origin for value in given):
        return UNKNOWN
    rows = {value.rows for value in given}
    return Data(values.made_of(*given).origin, rows=rows.pop() if len(rows) == 1 else None)


# --- methods --------------------------------------------------------------------------------------------------------


def _call_tensor(run: Interpreter, owner: Data, function: ast.Attribute, arguments: Arguments) -> Value:
    name = function.attr
    if name.endswith("_") and not name.endswith("__"):  # it works in place
        run.assign(function.value, values.made_of(owner, *arguments.values))
    return tensors.tensor_method(owner, name, arguments)


def _call_list(run: Interpreter, owner: Listing, function: ast.Attribute, arguments: Arguments) -> Value:
    name = function.attr
    if name not in ("append", "extend", "insert") or not arguments.values:
        return UNKNOWN
    added = values.contents(arguments.values[-1]) if name == "extend" else arguments.values[-1:]
    run.assign(function.value, run.extended(function.value, owner, added or [UNKNOWN]))
    return NONE


def _call_mapping(run: Interpreter, owner: Mapping, function: ast.Attribute, arguments: Arguments) -> Value:
    name = function.attr
    if name in ("get", "pop", "setdefault") and arguments.values:
        return owner.get(arguments.first)
    if name == "update":
        other = arguments.first if arguments.values else Mapping()
        run.assign(function.value, owner.merged(other).merged(Mapping(arguments.keywords)))
        return NONE
    if name == "keys":
        return Listing(tuple(run.items_of(owner) or ()))
    if name not in ("items", "values"):
        return UNKNOWN
    if owner.rest is not None:
        item = values.joined(owner.values)
        return values.many(item if name == "values" else Listing((values.Text(), item)))
    pairs = owner.items.items()
    return Listing(tuple(item if name == "values" else Listing((Const(key), item)) for key, item in pairs))


# --- functions ------------------------------------------------------------------------------------------------------


def _call_reference(run: Interpreter, node: ast.Call, dotted: str, arguments: Arguments) -> Value:
    root, last = dotted.partition(".")[0], dotted.rpartition(".")[2]
    source = run.frame.function.source
    if dotted == last and last not in source.imports.values():
        return _call_builtin(run, node, last, arguments)
    if root == "torchmetrics":
        return _call_torchmetrics(run, node, dotted, arguments)
    if root == "torch":
        return _call_torch(node, dotted, arguments)
    if _is_of_lightning(run, dotted):
        return _call_lightning(run, node, last, arguments)
    if root == "self":
        return _assumed(last, arguments)
    if last == "defaultdict" and node.args:
        return Mapping(rest=values.many() if getattr(node.args[0], "id", "") == "list" else UNKNOWN)
    if dotted in _KEEPS_SAMPLES:
        return Listing((values.as_data(arguments.first), values.as_data(arguments.first)))
    function = source.imported(dotted)
    return run.call(function, arguments) if isinstance(function, Function) else UNKNOWN


def _is_of_lightning(run: Interpreter, dotted: str) -> bool:
    """Whether a method surely is one of Lightning with which modules log or gather."""
    owner, _, name = dotted.rpartition(".")
    if name not in ("log", "log_dict", "all_gather"):
        return False
    # a callback has log() and log_dict(), and no all_gather()
    classes = ("LightningModule",) if name == "all_gather" else ("LightningModule", "Callback")
    return owner == "pl_module" or (owner == "self" and run.story.cls.derives(*classes))


def _call_lightning(run: Interpreter, node: ast.Call, name: str, arguments: Arguments) -> Value:
    if name != "all_gather":
        given, keywords, is_complete = arguments
        first = 2 if name == "log" else 1
        # what stands behind the value may be passed by position too
        keywords = dict(zip(_LOG_OPTIONS, given[first:], strict=False)) | keywords
        is_complete = is_complete and len(given) - first <= len(_LOG_OPTIONS)
        run.note("log", node, Arguments(given[:first], keywords, is_complete), name=name)
        return NONE
    if len(arguments.values) != 1 or not arguments.keywords.keys() <= {"sync_grads"}:
        return UNKNOWN  # a group of ranks, perhaps
    return values.mapped(arguments.first, lambda item: Data(values.GATHERED, line=node.lineno))


def _call_builtin(run: Interpreter, node: ast.Call, name: str, arguments: Arguments) -> Value:
    given, first = arguments.values, arguments.first
    if name == "locals":
        return Mapping(dict(run.frame.names))
    if name == "dict":
        return first if isinstance(first, Mapping) else Mapping(arguments.keywords)
    if name == "getattr" and len(given) > 1 and first == SELF:
        return _get_attribute(run, given[1])
    if name == "setattr" and len(given) == 3 and first == SELF:
        if isinstance(given[1], Const):
            run.store(str(given[1].value), UNKNOWN if given[2] == NONE else given[2], node)
        return NONE
    if name == "len":
        return Data(values.made_of(first).origin, size=first.rows)
    if name == "range":
        counted = tensors.arange(node.lineno, given)
        return values.many(Data(counted.origin, ids=counted.ids, line=counted.line), rows=counted.rows)
    if name == "enumerate":
        items = run.items_of(first)
        numbers = values.many(Data(ids=first.rows, line=node.lineno), rows=first.rows)
        return _zipped(run, numbers if items is None else Listing((Data(),) * len(items)), first)
    if name == "zip" and given:
        return _zipped(run, *given)
    if name in ("list", "tuple", "sorted", "reversed", "set"):
        return first if values.contents(first) is not None or isinstance(first, values.Metric) else values.many()
    if name in ("int", "float", "round", "abs", "min", "max", "sum"):
        return replace(first, rows=None) if isinstance(first, Data) and len(given) == 1 else values.made_of(*given)
    return Data() if name in ("isinstance", "hasattr", "str", "id", "type", "bool") else UNKNOWN


def _zipped(run: Interpreter, *columns: Value) -> Listing:
    """Tuples of one item of each column, one by one where the items of all are known so."""
    listed = [items for column in columns if (items := run.items_of(column)) is not None]
    if len(listed) == len(columns) and len(set(map(len, listed))) == 1:
        return Listing(tuple(map(Listing, zip(*listed, strict=True))))
    return values.many(Listing(tuple(map(values.item_of, columns))), rows=columns[0].rows)


def _get_attribute(run: Interpreter, name: Value) -> Value:
    """``getattr(self, name)``."""
    if isinstance(name, Const):
        return run.attribute(str(name.value))
    if isinstance(name, values.Text) and name.pattern:
        return values.joined(value for key, value in run.attributes.items() if re.fullmatch(name.pattern, key))
    return UNKNOWN


def _call_torch(node: ast.Call, dotted: str, arguments: Arguments) -> Value:
    last, first = dotted.rpartition(".")[2], arguments.first
    if last in _DISTRIBUTED and not arguments.values:
        return _DISTRIBUTED[last]
    if last == "ModuleList" and arguments.values:
        modules = first if isinstance(first, Listing) else values.many(*(values.contents(first) or ()))
        return UNKNOWN if values.contents(first) is None else replace(modules, is_module=True)
    if last == "ModuleDict":
        mapping = first if arguments.values else Mapping(arguments.keywords)
        return replace(mapping, is_module=True) if isinstance(mapping, Mapping) else UNKNOWN
    # most collectives change their argument in place, or take a group: what comes out of them is not known
    if ".distributed" in dotted or dotted.startswith("torch.cuda."):
        gathers = last == "all_gather" and ".nn." in dotted and len(arguments.values) == 1
        return Data(values.GATHERED, line=node.lineno) if gathers else UNKNOWN
    # classes are modules, samplers or optimizers, but for the old constructors of tensors
    if last[:1].isupper() and not last.endswith("Tensor"):
        return UNKNOWN
    return tensors.tensor_function(node.lineno, last, arguments)


# --- metrics --------------------------------------------------------------------------------------------------------


def _call_torchmetrics(run: Interpreter, node: ast.Call, dotted: str, arguments: Arguments) -> Value:
    last = dotted.rpartition(".")[2]
    if ".functional" in dotted:
        origin = values.made_of(*arguments.all).origin
        if last.startswith("pairwise_"):
            return Data(origin, rows=arguments.first.rows, ndim=2)
        run.note("functional", node, arguments, name=last)
        score = values.Score("functional", is_local=origin >= values.RANK, name=last)
        return Data(origin, scores=(score,) if last.startswith("retrieval_") else ())
    if last == "MetricCollection":
        members = tuple(member for metric in values.metrics_in(*arguments.values) for member in metric.members)
        return values.Metric((members,), is_collection=True, identity=node) if members else UNKNOWN
    if not last[:1].isupper() or last in _NO_METRICS:
        return UNKNOWN
    source = run.frame.function.source
    options = values.constant_keywords(node)
    # without these options, and in a file that switches nothing, torchmetrics surely combines ranks in compute()
    is_plain = options.keys().isdisjoint(_OWN_SYNC) and options.get("sync_on_compute") in (None, True)
    member = values.MetricCall(last, is_plain and not source.switches_sync, node, source)
    return values.Metric(((member,),), identity=node)


def _call_metric(run: Interpreter, node: ast.Call, metric: values.Metric, name: str, arguments: Arguments) -> Value:
    if name in ("update", "forward"):
        is_bare = name == "forward" and node is run.bare_call
        return _feed(run, node, metric, "bare" if is_bare else name, arguments)
    if name in _SAME_OBJECT:
        return replace(metric, identity=node, name="") if name == "clone" else metric
    if name in ("compute", "reset"):
        run.note(name, node, arguments, metric)
        value = Data(values.UNSURE, scores=(values.Score("compute", metric),), line=node.lineno)
        return NONE if name == "reset" else Mapping(rest=value) if metric.is_collection else value
    pairs = {"items": Listing((values.Text(), metric.single)), "values": metric.single, "keys": values.Text()}
    return values.many(pairs[name]) if metric.is_collection and name in pairs else UNKNOWN


def _feed(run: Interpreter, node: ast.Call, metric: values.Metric, name: str, arguments: Arguments) -> Value:
    run.note("feed", node, arguments, metric, name)
    if name == "update":
        return NONE
    origin = values.made_of(*arguments.all).origin
    value = Data(origin, scores=(values.Score("forward", metric, origin >= values.RANK),))
    return Mapping(rest=value) if metric.is_collection else value
