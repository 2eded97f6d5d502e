"""What calls return: methods, builtins, metrics of torchmetrics, and functions of torch by way of the tables."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

from lightning_retrieval_guard.lint.modules import ClassInfo
from lightning_retrieval_guard.lint.state import Instance
from lightning_retrieval_guard.lint.tables import (
    DISTRIBUTED,
    HOLDING,
    KEEPS_SAMPLES,
    NO_METRICS,
    OWN_SYNC,
    PAIRWISE,
    SAME_OBJECT,
    TALKING,
)
from lightning_retrieval_guard.lint.tensors import Tensors
from lightning_retrieval_guard.lint.values import (
    UNKNOWN,
    Built,
    Callee,
    Const,
    Data,
    Items,
    Lead,
    Many,
    Mapping,
    Method,
    Metric,
    Origin,
    Reference,
    Score,
    Text,
    Unknown,
    Value,
    as_data,
    contents,
    joined,
    mapped,
    metrics_in,
    origin_of,
    unsure,
)

_LOGGING = ("log", "log_dict")
_NUMBERS = ("int", "float", "round", "abs", "min", "max", "sum")
_LISTS = ("list", "tuple", "sorted", "reversed", "set")


class Calls(Tensors):
    """Evaluates calls."""

    def call(self, node: ast.Call) -> Value:
        """What a call returns."""
        function = node.func
        if not isinstance(function, ast.Attribute):
            return self._apply(node, self.eval(function))
        if isinstance(function.value, ast.Call) and getattr(function.value.func, "id", "") == "super":
            found = self.method(function.attr, self.frame.cls)
            return self._apply(node, found or UNKNOWN)
        owner = self.eval(function.value)
        if isinstance(owner, Instance):
            return self._call_own(node, function.attr)
        if isinstance(owner, Reference):
            return self._apply(node, self.eval(function))
        return self._call_method(node, owner, function)

    def _arguments(self, node: ast.Call) -> tuple[list[Value], dict[str, Value], bool]:
        """What is passed by position and by name, and whether that is all."""
        values: list[Value] = []
        is_all = True
        for own in node.args:
            value = self.eval(own.value if isinstance(own, ast.Starred) else own)
            if isinstance(own, ast.Starred):
                items = self.items_of(value)
                is_all &= items is not None
                values += [self.item_of(value)] if items is None else items
            else:
                values.append(value)
        keywords: dict[str, Value] = {}
        for keyword in node.keywords:
            value = self.eval(keyword.value)
            if keyword.arg is not None:
                keywords[keyword.arg] = value
            elif isinstance(value, Mapping) and value.rest is None:
                keywords |= {str(key): own for key, own in value.items}
            else:
                keywords["**"], is_all = value, False
        return values, keywords, is_all

    def _apply(self, node: ast.Call, callee: Value) -> Value:
        values, keywords, is_all = self._arguments(node)
        if isinstance(callee, Metric):
            return self._feed(node, callee, "bare" if node is self.bare_call else "forward")
        if isinstance(callee, Callee):
            return self.call_function(callee, values, keywords) if is_all else UNKNOWN
        if isinstance(callee, Reference):
            return self._call_reference(node, callee.dotted, values, keywords)
        if isinstance(callee, Instance):
            forward = self.method("forward")
            result = self.call_function(forward, values, keywords) if forward and is_all else UNKNOWN
            return self._assumed("forward", [*values, *keywords.values()]) if result == UNKNOWN else result
        return self._assumed(callee.name, [*values, *keywords.values()]) if isinstance(callee, Method) else UNKNOWN

    # --- the object itself ----------------------------------------------------------------------------------------

    def _call_own(self, node: ast.Call, name: str) -> Value:
        if name in _LOGGING and self.method(name) is None:
            if self.is_a("LightningModule", "Callback"):
                self._note_log(node, name)
            return Const(None)
        if name == "all_gather" and self.is_a("LightningModule") and self.method(name) is None:
            return self._gathered(node)
        return self._apply(node, self.attribute(name))

    def _note_log(self, node: ast.Call, name: str, kind: str = "log") -> None:
        values, keywords, is_all = self._arguments(node)
        self.note(kind, node, arguments=tuple(values), keywords=keywords, name=name, is_spelled_out=is_all)

    def _gathered(self, node: ast.Call) -> Value:
        values, keywords, _ = self._arguments(node)
        if len(values) != 1 or not keywords.keys() <= {"sync_grads"}:
            return UNKNOWN
        return mapped(values[0], lambda own: Data(frozenset({Origin.GATHERED}), line=node.lineno))

    def _assumed(self, name: str, values: list[Value]) -> Value:
        """What a module returns that is not known: it is taken to keep the samples first if it gets nothing else."""
        given = [unsure(own) if contents(own) is not None else own for own in values]
        known = [own for own in given if isinstance(own, Data) and not isinstance(own, Unknown)]
        talks = any(part in name.lower() for part in (*TALKING, "metric"))
        if talks or not any(own.origin for own in known) or name[:1].isupper():
            return UNKNOWN
        leads = {own.lead if isinstance(own, Data) else None for own in given}
        return Data(unsure(*given).origin, lead=leads.pop() if len(leads) == 1 else None)

    # --- methods --------------------------------------------------------------------------------------------------

    def _call_method(self, node: ast.Call, owner: Value, function: ast.Attribute) -> Value:
        name = function.attr
        if isinstance(owner, Metric):
            return self._call_metric(node, owner, name)
        if name == "log_metrics":
            self._note_log(node, name, "logger")
            return Const(None)
        values, keywords, _ = self._arguments(node)
        if isinstance(owner, Mapping):
            return self._call_mapping(owner, function, values, keywords)
        if isinstance(owner, (Items, Many)):
            return self._call_list(owner, function, values)
        if name in ("reset", "update", "forward", "compute"):
            self.note(name, node)  # of something that may be a metric
        if isinstance(owner, Data) and not isinstance(owner, Unknown):
            if owner.is_batch and name in ("items", "values", "keys", "get", "pop"):
                pair = Items((Data(), owner))
                options: dict[str, Value] = {"items": Many(pair), "values": Many(owner), "keys": Many(Data())}
                return options.get(name, owner)
            if name.endswith("_") and not name.endswith("__"):
                self.replace_value(function.value, unsure(owner, *values))
            return self.tensor_method(node, owner, name, values, keywords)
        if isinstance(owner, Method) and _root(owner) is self.instance:
            return self._assumed(name, [*values, *keywords.values()])
        maybe_metric = name in HOLDING | SAME_OBJECT or "metric" in name.lower() or name[:1].isupper()
        return UNKNOWN if maybe_metric or not isinstance(owner, Unknown) else unsure(owner)

    def _call_mapping(
        self, owner: Mapping, function: ast.Attribute, values: list[Value], keywords: dict[str, Value]
    ) -> Value:
        name = function.attr
        if name in ("get", "pop", "setdefault") and values:
            return owner.get(values[0])
        if name == "update":
            known = values[0] if values else Mapping()
            other = known if isinstance(known, Mapping) else Mapping(rest=UNKNOWN)
            self.replace_value(function.value, owner.merged(other).merged(Mapping(tuple(keywords.items()))))
            return Const(None)
        if name not in ("items", "keys", "values"):
            return owner if name in ("copy", "clone", *SAME_OBJECT) else UNKNOWN
        pairs = [Items((Const(key), own)) for key, own in owner.items]
        if owner.rest is not None:
            item = joined(owner.all())
            keys = Items(tuple(self.items_of(owner) or ()))
            return keys if name == "keys" else Many(item if name == "values" else Items((Text(), item)))
        return Items(tuple(own if name == "items" else own.items[name == "values"] for own in pairs))

    def _call_list(self, owner: Items | Many, function: ast.Attribute, values: list[Value]) -> Value:
        if function.attr in ("append", "extend", "insert") and values:
            added = contents(values[-1]) if function.attr == "extend" else [values[-1]]
            self.replace_value(function.value, self.extended(function.value, owner, added or [UNKNOWN]))
            return Const(None)
        return owner if function.attr in ("copy", *SAME_OBJECT) else UNKNOWN

    def extended(self, holder: ast.expr, known: Items | Many, added: list[Value]) -> Many:
        """A list with more items; one that outlives the step counts what the rank sees in the epoch."""
        in_step = self.hook.endswith(("_step", "_batch_end")) and not isinstance(holder, ast.Name)
        return Many(joined([*(contents(known) or ()), *added]), Lead.RANK if in_step else self.loop_lead)

    # --- functions ------------------------------------------------------------------------------------------------

    def _call_reference(self, node: ast.Call, dotted: str, values: list[Value], keywords: dict[str, Value]) -> Value:
        root, last = dotted.partition(".")[0], dotted.rpartition(".")[2]
        if dotted == last and last not in self.frame.module.imports.values():
            return self._call_builtin(node, last, values, keywords)
        if root == "torchmetrics":
            return self._call_torchmetrics(node, dotted, values, keywords)
        if root in ("torch", "numpy", "jax"):
            return self._call_torch(node, dotted, values, keywords)
        if dotted in ("pl_module.log", "pl_module.log_dict"):
            self._note_log(node, last)
            return Const(None)
        if last == "log_metrics":
            self._note_log(node, last, "logger")
            return Const(None)
        if dotted == "pl_module.all_gather":
            return self._gathered(node)
        if dotted in ("copy.deepcopy", "copy.copy"):
            return values[0] if values else UNKNOWN
        if last in ("defaultdict", "OrderedDict"):
            factory = getattr(node.args[0], "id", "") if node.args else ""
            return Mapping(rest=Many()) if factory == "list" else Mapping(rest=UNKNOWN if values else None)
        if dotted in KEEPS_SAMPLES:
            return Items((as_data(values[0]), as_data(values[0])) if values else ())
        found = self.frame.module.imported(dotted)
        if found is None or isinstance(found, ClassInfo):
            return UNKNOWN
        return self.call_function(Callee(found[1], found[0]), values, keywords)

    def _call_torch(self, node: ast.Call, dotted: str, values: list[Value], keywords: dict[str, Value]) -> Value:
        last = dotted.rpartition(".")[2]
        if last in DISTRIBUTED and not values:
            symbol = DISTRIBUTED[last]
            return self.symbol(symbol)
        if last in ("ModuleList", "Sequential") and values:
            inner = contents(values[0])
            return UNKNOWN if inner is None else replace(_as_list(values[0]), is_module=True)
        if last == "ModuleDict":
            known = values[0] if values else Mapping(tuple(keywords.items()))
            return replace(known, is_module=True) if isinstance(known, Mapping) else UNKNOWN
        if ".distributed" in dotted or dotted.startswith("torch.cuda."):
            gathers = last == "all_gather" and ".nn." in dotted and len(values) == 1
            return Data(frozenset({Origin.GATHERED}), line=node.lineno) if gathers else UNKNOWN
        if last[:1].isupper() and not last.endswith("Tensor"):
            return UNKNOWN
        return self.tensor_function(node, last, values, keywords)

    def _call_builtin(self, node: ast.Call, name: str, values: list[Value], keywords: dict[str, Value]) -> Value:
        first = values[0] if values else UNKNOWN
        if name == "locals":
            return Mapping(tuple(self.frame.names.items()))
        if name == "dict":
            return first if isinstance(first, Mapping) else Mapping(tuple(keywords.items()))
        if name == "getattr" and len(values) > 1:
            return self._named(first, values[1])
        if name == "setattr" and len(values) == 3 and isinstance(first, Instance):
            key = values[1]
            value = UNKNOWN if values[2] == Const(None) else values[2]
            self.store(str(key.value) if isinstance(key, Const) else repr(key), value, node)
            return Const(None)
        if name in ("len", "range", "enumerate", "zip"):
            return self.counting(node, name, values, keywords)
        if name in _LISTS:
            return first if contents(first) is not None or isinstance(first, Metric) else Many()
        if name in _NUMBERS:
            inner = contents(first)
            if inner is not None and name == "sum":
                return self.tensor_method(node, as_data(joined(inner)) if inner else Data(), "sum", [], {})
            known = isinstance(first, Data) and len(values) == 1 and not isinstance(first, Unknown)
            return replace(as_data(first), lead=None) if known else unsure(*values)
        return Data() if name in ("isinstance", "hasattr", "str", "id", "type", "bool") else UNKNOWN

    def _named(self, owner: Value, name: Value) -> Value:
        """``getattr(owner, name)``."""
        if isinstance(owner, Instance) and isinstance(name, Const):
            return self.attribute(str(name.value))
        if isinstance(owner, Instance) and isinstance(name, Text) and name.pattern:
            known = self.instance.attributes
            fitting = [own for key, own in known.items() if re.fullmatch(name.pattern, key) or key == repr(name)]
            return joined(fitting) if fitting else UNKNOWN
        return UNKNOWN

    # --- metrics --------------------------------------------------------------------------------------------------

    def _call_torchmetrics(self, node: ast.Call, dotted: str, values: list[Value], keywords: dict[str, Value]) -> Value:
        last = dotted.rpartition(".")[2]
        if ".functional" in dotted:
            if dotted.startswith(PAIRWISE) or last.startswith("pairwise_"):
                return Data(unsure(*values).origin, as_data(values[0]).lead if values else None, ndim=2)
            rows = [*values, *keywords.values()]
            self.note("functional", node, arguments=tuple(values), keywords=keywords, name=last)
            is_own = any(Origin.RANK in origin_of(own) for own in rows)
            found = (Score("functional", None, is_own, name=last),) if last.startswith("retrieval_") else ()
            return Data(unsure(*rows).origin, scores=found)
        if last == "MetricCollection":
            members = tuple(own for part in values for metric in metrics_in(part) for own in metric.members)
            return Metric((members,), is_collection=True, place=node) if members else UNKNOWN
        if not last[:1].isupper() or last in NO_METRICS:
            return UNKNOWN
        given = [own.value for own in node.keywords if own.arg == "sync_on_compute"]
        is_plain = all(own.arg is not None and own.arg not in OWN_SYNC for own in node.keywords)
        is_on = all(isinstance(own, ast.Constant) and own.value is True for own in given)
        module = self.frame.module
        return Metric(((Built(last, is_plain and is_on and not module.switches_sync, node, module),),), place=node)

    def _call_metric(self, node: ast.Call, metric: Metric, name: str) -> Value:
        if name in ("update", "forward"):
            return self._feed(node, metric, "bare" if node is self.bare_call and name == "forward" else name)
        if name in SAME_OBJECT:
            return replace(metric, place=node, name="") if name == "clone" else metric
        single = replace(metric, choices=tuple((own,) for own in metric.members), is_collection=False)
        if name == "compute":
            self.note("compute", node, metric=metric)
            value = Data(UNKNOWN.origin, scores=(Score("compute", metric),), line=node.lineno)
            return Mapping(rest=value) if metric.is_collection else value
        if name == "reset":
            self.note("reset", node, metric=metric)
            return Const(None)
        pairs: dict[str, Value] = {"items": Items((Text(), single)), "values": single, "keys": Text()}
        return Many(pairs[name]) if metric.is_collection and name in pairs else UNKNOWN

    def _feed(self, node: ast.Call, metric: Metric, name: str) -> Value:
        values, keywords, is_all = self._arguments(node)
        self.note(
            "feed", node, metric=metric, arguments=tuple(values), keywords=keywords, name=name, is_spelled_out=is_all
        )
        if name == "update":
            return Const(None)
        rows = [*values, *keywords.values()]
        is_own = any(Origin.RANK in origin_of(own) for own in rows)
        value = Data(unsure(*rows).origin, scores=(Score("forward", metric, is_own),))
        return Mapping(rest=value) if metric.is_collection else value


def _root(value: Method) -> Value:
    owner: Value = value
    while isinstance(owner, Method):
        owner = owner.owner
    return owner


def _as_list(value: Value) -> Items | Many:
    return value if isinstance(value, (Items, Many)) else Many(joined(contents(value) or ()))
