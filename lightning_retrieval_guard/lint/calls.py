"""What calls return: methods, builtins, metrics of torchmetrics, and functions of torch by way of the tables."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

from lightning_retrieval_guard.lint.modules import ClassInfo
from lightning_retrieval_guard.lint.state import DISTRIBUTED, SYMBOLS, Instance, State
from lightning_retrieval_guard.lint.tensors import arange, tensor_function, tensor_method
from lightning_retrieval_guard.lint.values import (
    NONE,
    UNKNOWN,
    Arguments,
    Built,
    Callee,
    Const,
    Data,
    Items,
    Lead,
    Many,
    Mapping,
    Metric,
    Origin,
    Reference,
    Score,
    Text,
    Unknown,
    Value,
    as_data,
    contents,
    is_known,
    item_of,
    joined,
    mapped,
    metrics_in,
    origin_of,
    unsure,
)

# Methods that return what they were called on, or something of the same kind.
_SAME_OBJECT = frozenset({"to", "cpu", "cuda", "clone", "detach", "train", "eval", "half", "float", "double"})
# Methods of what is not known that may return a Metric object.
_HOLDING = frozenset({"get", "pop", "setdefault", "values", "items"})
# Parts of a name that stand for talking to other ranks.
_TALKING = ("gather", "reduce", "sync", "broadcast", "dist", "collective")
# Functions of other packages that keep the samples first.
_KEEPS_SAMPLES = frozenset({"torch_geometric.utils.to_dense_batch", "torch_geometric.utils.dense.to_dense_batch"})
# Classes that hold other metrics, or are no metric by themselves.
_HOLDERS = (
    "BootStrapper ClasswiseWrapper CompositionalMetric FeatureShare Metric MetricInputTransformer MetricTracker"
    " MinMaxMetric MultioutputWrapper MultitaskWrapper Running RunningMean RunningSum WrapperMetric"
)
_NO_METRICS = frozenset(_HOLDERS.split())
# Arguments that may change how ranks are combined.
_OWN_SYNC = ("process_group", "dist_sync_fn", "distributed_available_fn")


class Calls(State):
    """Evaluates calls."""

    def call(self, node: ast.Call) -> Value:
        """What a call returns."""
        function = node.func
        if not isinstance(function, ast.Attribute):
            return self._apply(node, self.eval(function))
        if isinstance(function.value, ast.Call) and getattr(function.value.func, "id", "") == "super":
            return self._apply(node, self.method(function.attr, self.frame.callee.cls) or UNKNOWN)
        owner = self.eval(function.value)
        if isinstance(owner, Instance):
            return self._call_own(node, function.attr)
        if function.attr == "log_metrics":
            return self._log(node, function.attr, "logger")
        if isinstance(owner, Reference):
            return self._apply(node, self.eval(function))
        if isinstance(owner, Metric):
            return self._call_metric(node, owner, function.attr)
        return self._call_method(node, owner, function, self._arguments(node))

    def _arguments(self, node: ast.Call) -> Arguments:
        values: list[Value] = []
        keywords: dict[str, Value] = {}
        is_complete = True
        for argument in node.args:
            value = self.eval(argument.value if isinstance(argument, ast.Starred) else argument)
            items = self.items_of(value) if isinstance(argument, ast.Starred) else [value]
            is_complete &= items is not None
            values += [item_of(value)] if items is None else items
        for keyword in node.keywords:
            value = self.eval(keyword.value)
            if keyword.arg is not None:
                keywords[keyword.arg] = value
            elif isinstance(value, Mapping) and value.rest is None:
                keywords |= {str(key): item for key, item in value.items}
            else:
                keywords["**"], is_complete = value, False
        return Arguments(values, keywords, is_complete)

    def _apply(self, node: ast.Call, callee: Value) -> Value:
        arguments = self._arguments(node)
        if isinstance(callee, Metric):
            return self._feed(node, callee, "bare" if node is self.bare_call else "forward", arguments)
        if isinstance(callee, Callee):
            return self.call_function(callee, arguments) if arguments.is_complete else UNKNOWN
        if isinstance(callee, Reference):
            return self._call_reference(node, callee.dotted, arguments)
        if isinstance(callee, Instance):
            forward = self.method("forward")
            result = self.call_function(forward, arguments) if forward and arguments.is_complete else UNKNOWN
            return _assumed("forward", arguments) if result == UNKNOWN else result
        return UNKNOWN

    # --- the object itself ------------------------------------------------------------------------------------------

    def _call_own(self, node: ast.Call, name: str) -> Value:
        if self.method(name) is None:
            if name in ("log", "log_dict"):
                return self._log(node, name) if self.is_a("LightningModule", "Callback") else NONE
            if name == "all_gather" and self.is_a("LightningModule"):
                return self._gathered(node, self._arguments(node))
        return self._apply(node, self.attribute(name))

    def _log(self, node: ast.Call, name: str, kind: str = "log") -> Value:
        self.note(kind, node, self._arguments(node), name=name)
        return NONE

    def _gathered(self, node: ast.Call, arguments: Arguments) -> Value:
        if len(arguments.values) != 1 or not arguments.keywords.keys() <= {"sync_grads"}:
            return UNKNOWN
        return mapped(arguments.first, lambda item: Data(frozenset({Origin.GATHERED}), line=node.lineno))

    def attribute(self, name: str) -> Value:
        """What ``self.name`` is."""
        if any(name in cls.module.foreign_stores for cls in self.lineage):
            return UNKNOWN
        unknown = Reference(f"self.{name}")
        if name in self.instance.attributes:
            value = self.instance.attributes[name]
            return unknown if isinstance(value, Unknown) else value
        method = self.method(name)
        if method is not None:
            is_property = any("property" in ast.unparse(node) for node in method.function.decorator_list)
            return self.call_function(method, Arguments([], {})) if is_property else method
        for node in (node for cls in self.lineage for node in cls.node.body if isinstance(node, ast.Assign)):
            if any(getattr(target, "id", "") == name for target in node.targets):
                return self.eval(node.value) if isinstance(node.value, ast.Constant) else Data()
        return SYMBOLS.get(name, Data() if name in ("device", "dtype") else unknown)

    # --- methods ----------------------------------------------------------------------------------------------------

    def _call_method(self, node: ast.Call, owner: Value, function: ast.Attribute, arguments: Arguments) -> Value:
        name = function.attr
        if isinstance(owner, Mapping):
            return self._call_mapping(owner, function, arguments)
        if isinstance(owner, (Items, Many)):
            if name in ("append", "extend", "insert") and arguments.values:
                added = contents(arguments.values[-1]) if name == "extend" else arguments.values[-1:]
                self.replace_value(function.value, self.extended(function.value, owner, added or [UNKNOWN]))
                return NONE
            return owner if name == "copy" or name in _SAME_OBJECT else UNKNOWN
        if name == "reset":
            self.note("reset", node, arguments)  # of something that may be a metric
        if isinstance(owner, Data) and not isinstance(owner, Unknown):
            if owner.is_batch and name in ("items", "values", "keys", "get", "pop"):
                options = {"items": Many(Items((Data(), owner))), "values": Many(owner), "keys": Many(Data())}
                return options.get(name, owner)
            if name.endswith("_") and not name.endswith("__"):
                self.replace_value(function.value, unsure(owner, *arguments.values))
            return tensor_method(owner, name, arguments)
        maybe_metric = name in _HOLDING | _SAME_OBJECT or "metric" in name.lower() or name[:1].isupper()
        return UNKNOWN if maybe_metric or not isinstance(owner, Unknown) else unsure(owner)

    def _call_mapping(self, owner: Mapping, function: ast.Attribute, arguments: Arguments) -> Value:
        name = function.attr
        if name in ("get", "pop", "setdefault") and arguments.values:
            return owner.get(arguments.first)
        if name == "update":
            other = arguments.first if arguments.values else Mapping()
            more = Mapping(tuple(arguments.keywords.items()))
            self.replace_value(function.value, owner.merged(other).merged(more))
            return NONE
        if name == "keys":
            return Items(tuple(self.items_of(owner) or ()))
        if name not in ("items", "values"):
            return owner if name == "copy" or name in _SAME_OBJECT else UNKNOWN
        if owner.rest is not None:
            item = joined(owner.all())
            return Many(item if name == "values" else Items((Text(), item)))
        return Items(tuple(item if name == "values" else Items((Const(key), item)) for key, item in owner.items))

    def extended(self, holder: ast.expr, value: Items | Many, added: list[Value]) -> Many:
        """A list with more items; one that outlives the step counts what the rank sees in the epoch."""
        in_step = self.hook.endswith(("_step", "_batch_end")) and not isinstance(holder, ast.Name)
        return Many(joined([*(contents(value) or ()), *added]), Lead.RANK if in_step else self.loop_lead)

    # --- functions --------------------------------------------------------------------------------------------------

    def _call_reference(self, node: ast.Call, dotted: str, arguments: Arguments) -> Value:
        root, last = dotted.partition(".")[0], dotted.rpartition(".")[2]
        module = self.frame.callee.module
        if dotted == last and last not in module.imports.values():
            return self._call_builtin(node, last, arguments)
        if root == "torchmetrics":
            return self._call_torchmetrics(node, dotted, arguments)
        if root in ("torch", "numpy", "jax"):
            return _call_torch(node, dotted, arguments)
        if root == "self":
            if last == "reset":
                self.note("reset", node, arguments)  # of something that may be a metric
            return _assumed(last, arguments)
        if dotted in ("pl_module.log", "pl_module.log_dict"):
            self.note("log", node, arguments, name=last)
            return NONE
        if dotted == "pl_module.all_gather":
            return self._gathered(node, arguments)
        if dotted in ("copy.deepcopy", "copy.copy"):
            return arguments.first
        if last in ("defaultdict", "OrderedDict"):
            factory = getattr(node.args[0], "id", "") if node.args else ""
            return Mapping(rest=Many()) if factory == "list" else Mapping(rest=UNKNOWN if node.args else None)
        if dotted in _KEEPS_SAMPLES:
            return Items((as_data(arguments.first), as_data(arguments.first)))
        entry = module.imported(dotted)
        if entry is None or isinstance(entry, ClassInfo):
            return UNKNOWN
        return self.call_function(Callee(entry[1], entry[0]), arguments)

    def _call_builtin(self, node: ast.Call, name: str, arguments: Arguments) -> Value:
        values, first = arguments.values, arguments.first
        if name == "locals":
            return Mapping(tuple(self.frame.names.items()))
        if name == "dict":
            return first if isinstance(first, Mapping) else Mapping(tuple(arguments.keywords.items()))
        if name == "getattr" and len(values) > 1:
            return self._named(first, values[1])
        if name == "setattr" and len(values) == 3 and isinstance(first, Instance):
            key, value = values[1], UNKNOWN if values[2] == NONE else values[2]
            self.store(str(key.value) if isinstance(key, Const) else repr(key), value, node)
            return NONE
        lead = first.lead if isinstance(first, (Data, Many)) else None
        if name == "len":
            return Data(unsure(first).origin, size=lead)
        if name == "range":
            counted = arange(node, values)
            return Many(Data(counted.origin, ids=counted.ids, line=counted.line), counted.lead)
        if name == "enumerate":
            items = self.items_of(first)
            if items is not None:
                return Items(tuple(Items((Data(), item)) for item in items))
            return Many(Items((Data(ids=lead, line=node.lineno), item_of(first))), lead)
        if name == "zip":
            columns = [self.items_of(value) for value in values]
            if columns and None not in columns and len({len(column or ()) for column in columns}) == 1:
                return Items(tuple(Items(row) for row in zip(*(column or () for column in columns), strict=True)))
            leads = [value.lead for value in values if isinstance(value, (Data, Many))]
            return Many(Items(tuple(map(item_of, values))), leads[0] if leads else None)
        if name in ("list", "tuple", "sorted", "reversed", "set"):
            return first if contents(first) is not None or isinstance(first, Metric) else Many()
        if name in ("int", "float", "round", "abs", "min", "max", "sum"):
            inner = contents(first)
            if inner is not None and name == "sum":
                return tensor_method(as_data(joined(inner)) if inner else Data(), "sum", Arguments([], {}))
            return replace(as_data(first), lead=None) if is_known(first) and len(values) == 1 else unsure(*values)
        return Data() if name in ("isinstance", "hasattr", "str", "id", "type", "bool") else UNKNOWN

    def _named(self, owner: Value, name: Value) -> Value:
        """``getattr(owner, name)``."""
        if isinstance(owner, Instance) and isinstance(name, Const):
            return self.attribute(str(name.value))
        if isinstance(owner, Instance) and isinstance(name, Text) and name.pattern:
            attributes = self.instance.attributes.items()
            return joined(value for key, value in attributes if re.fullmatch(name.pattern, key) or key == repr(name))
        return UNKNOWN

    # --- metrics ----------------------------------------------------------------------------------------------------

    def _call_torchmetrics(self, node: ast.Call, dotted: str, arguments: Arguments) -> Value:
        last = dotted.rpartition(".")[2]
        if ".functional" in dotted:
            origin = unsure(*arguments.all).origin
            if last.startswith("pairwise_"):
                return Data(origin, as_data(arguments.first).lead, ndim=2)
            self.note("functional", node, arguments, name=last)
            score = Score("functional", is_own=Origin.RANK in origin, name=last)
            return Data(origin, scores=(score,) if last.startswith("retrieval_") else ())
        if last == "MetricCollection":
            metrics = [metric for value in arguments.values for metric in metrics_in(value)]
            members = tuple(member for metric in metrics for member in metric.members)
            return Metric((members,), is_collection=True, identity=node) if members else UNKNOWN
        if not last[:1].isupper() or last in _NO_METRICS:
            return UNKNOWN
        module = self.frame.callee.module
        built = Built(last, False, node, module)
        is_plain = not any(keyword.arg is None or keyword.arg in _OWN_SYNC for keyword in node.keywords)
        is_synced = is_plain and built.option("sync_on_compute") in (None, True) and not module.switches_sync
        return Metric(((replace(built, is_synced=is_synced),),), identity=node)

    def _call_metric(self, node: ast.Call, metric: Metric, name: str) -> Value:
        arguments = self._arguments(node)
        if name in ("update", "forward"):
            is_bare = name == "forward" and node is self.bare_call
            return self._feed(node, metric, "bare" if is_bare else name, arguments)
        if name in _SAME_OBJECT:
            return replace(metric, identity=node, name="") if name == "clone" else metric
        if name == "compute":
            self.note("compute", node, arguments, metric)
            value = Data(UNKNOWN.origin, scores=(Score("compute", metric),), line=node.lineno)
            return Mapping(rest=value) if metric.is_collection else value
        if name == "reset":
            self.note("reset", node, arguments, metric)
            return NONE
        pairs = {"items": Items((Text(), metric.single)), "values": metric.single, "keys": Text()}
        return Many(pairs[name]) if metric.is_collection and name in pairs else UNKNOWN

    def _feed(self, node: ast.Call, metric: Metric, name: str, arguments: Arguments) -> Value:
        self.note("feed", node, arguments, metric, name)
        if name == "update":
            return NONE
        origin = unsure(*arguments.all).origin
        value = Data(origin, scores=(Score("forward", metric, Origin.RANK in origin),))
        return Mapping(rest=value) if metric.is_collection else value


def _assumed(name: str, arguments: Arguments) -> Value:
    """What a module returns that is not known: it is taken to keep the samples first if it gets nothing else."""
    given = [unsure(value) if contents(value) is not None else value for value in arguments.all]
    talks = any(part in name.lower() for part in (*_TALKING, "metric"))
    if talks or not any(is_known(value) and origin_of(value) for value in given) or name[:1].isupper():
        return UNKNOWN
    leads = {value.lead if isinstance(value, Data) else None for value in given}
    return Data(unsure(*given).origin, lead=leads.pop() if len(leads) == 1 else None)


def _call_torch(node: ast.Call, dotted: str, arguments: Arguments) -> Value:
    last, first = dotted.rpartition(".")[2], arguments.first
    if last in DISTRIBUTED and not arguments.values:
        return DISTRIBUTED[last]
    if last in ("ModuleList", "Sequential") and arguments.values:
        inner = contents(first)
        modules = first if isinstance(first, (Items, Many)) else Many(joined(inner or ()))
        return UNKNOWN if inner is None else replace(modules, is_module=True)
    if last == "ModuleDict":
        mapping = first if arguments.values else Mapping(tuple(arguments.keywords.items()))
        return replace(mapping, is_module=True) if isinstance(mapping, Mapping) else UNKNOWN
    if ".distributed" in dotted or dotted.startswith("torch.cuda."):
        gathers = last == "all_gather" and ".nn." in dotted and len(arguments.values) == 1
        return Data(frozenset({Origin.GATHERED}), line=node.lineno) if gathers else UNKNOWN
    if last[:1].isupper() and not last.endswith("Tensor"):
        return UNKNOWN
    return tensor_function(node, last, arguments)
