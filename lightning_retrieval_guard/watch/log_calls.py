"""Every ``log`` call of the module and of callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import Kind, LogCall
from lightning_retrieval_guard.watch.call_site import LOG_METHODS, user_call_site
from lightning_retrieval_guard.watch.keys import KeyRecord, Origin
from lightning_retrieval_guard.watch.listener import WatchListener
from lightning_retrieval_guard.watch.metrics import MetricWatch
from lightning_retrieval_guard.watch.patches import BesideGraphs, Patches
from lightning_retrieval_guard.watch.stage import StageRecord

# among the arguments of `log` after name and value
_BATCH_SIZE_POSITION = 9


class LogWatch:
    """Sees log calls while it is installed, and leaves them as they are."""

    def __init__(self, trainer: Any, module: Any, metrics: MetricWatch, listener: WatchListener) -> None:
        self._trainer = trainer
        self._module = module
        self._metrics = metrics
        self._listener = listener

    def install(self, patches: Patches) -> None:
        """Watch the module, and callbacks, which hold the module's method of the time before.

        Lightning's own ``log`` is wrapped, which a ``log`` of the user's calls in the end, so that the name and the
        value are those that Lightning gets.
        """
        owner = _compat.class_that_logs(self._module)
        plain = vars(owner)["log"]
        patches.put(owner, "log", self._wrap)
        for callback in self._trainer.callbacks:
            held = vars(callback).get("log")
            if getattr(held, "__func__", None) is plain and held.__self__ is self._module:
                patches.put(callback, "log", lambda _: self._module.log)

    def _wrap(self, original: Callable[..., None]) -> Callable[..., None]:
        def log(module: Any, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
            original(module, name, value, *args, **kwargs)
            if module is self._module:
                self._listener.protect(self._note, name, value, _given_batch_size(args, kwargs))

        return BesideGraphs(log, original, leaves=True)

    def _note(self, name: str, value: Any, given: Any) -> None:
        stage, hook = self._listener.stage(), _compat.current_hook(self._module)
        if stage is None or hook is None:
            return
        if stage.results is None:  # asking Lightning in every call would double what the guard costs
            stage.results = _compat.results_of(self._trainer)
        results = stage.results
        if results is None:
            return
        storage = _compat.find_result(results, hook, name)
        if storage is None:  # Lightning took the call for something else than a value of this loop
            return
        is_tensor = isinstance(value, Tensor)
        is_object = not is_tensor and isinstance(value, Metric)  # asking that of an abstract class takes long
        origin, is_written = self._metrics.origins.of(value) if is_tensor else (None, False)
        kind: Kind = "metric" if is_object else "plain" if origin is None else origin.how
        key = stage.keys.get(storage)
        if key is None:
            key = stage.keys[storage] = self._begin(stage, storage, name, kind, results[storage])
        # what is ignored at one call alone is not ignored for the key
        elif key.suppressed:
            key.suppressed = self._listener.suppressions.still(key.suppressed)
        if is_object:
            if key.call.dataloader is not None:
                stage.note_dataloader_of_object()
            origin = self._origin_of_object(value)
            # asking the metric takes long, and a key mostly shows one
            if origin.record is not key.shown:
                key.synced = self._listener.world_size > 1 and _compat.syncs_on_compute(value)
        if origin is not None:
            origin.record.suppressed_where_shown = key.suppressed
        key.calls += 1
        # a tensor stays on its device: asking it here would wait
        if origin is not None and is_written is not False:
            key.is_written = key.is_written | is_written
        if origin is not None or kind != key.call.kind:
            key.note_origin(kind, origin)
        # only a mean over batches is weighted
        if kind != "metric" and key.call.on_epoch and key.call.in_step and key.call.reduction == "mean":
            self._note_weight(key, stage, results, value, given)
        self._listener.logged(key)

    def _begin(self, stage: StageRecord, storage: str, name: str, kind: Kind, result: Any) -> KeyRecord:
        arguments, site = _compat.result_arguments(result), user_call_site(skip_functions=LOG_METHODS)
        call = LogCall(
            **vars(arguments),
            storage=storage,
            name=name if arguments.dataloader is None else f"{name}/dataloader_idx_{arguments.dataloader}",
            hook=_compat.current_hook(self._module) or "",
            path=site.path,
            line=site.line,
            kind=kind,
            in_step=stage.in_step,
        )
        return KeyRecord(call, suppressed=self._listener.suppressions.at(site))

    def _origin_of_object(self, metric: Metric) -> Origin:
        record = self._metrics.record_of(metric)
        return Origin(record, "compute", False, record.life if record.is_rows else None)

    def _note_weight(self, key: KeyRecord, stage: StageRecord, results: Any, value: Any, given: Any) -> None:
        if stage.repeats is not None and stage.means is not None:
            key.note_repeated(stage.repeats, value, stage.means)
        used = given if given is not None else _compat.inferred_batch_size(results)
        if used is None:
            return
        key.weights.note(used, given is not None, stage.batch, value, self._listener.world_size)


def _given_batch_size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if "batch_size" in kwargs:
        return kwargs["batch_size"]
    return args[_BATCH_SIZE_POSITION] if len(args) > _BATCH_SIZE_POSITION else None
