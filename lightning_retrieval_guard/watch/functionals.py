"""Calls of torchmetrics' functional retrieval metrics with more than the rows of one query."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from torch import Tensor

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import FlattenedCall
from lightning_retrieval_guard.watch.call_site import user_call_site
from lightning_retrieval_guard.watch.listener import WatchListener
from lightning_retrieval_guard.watch.patches import BesideGraphs, Patches
from lightning_retrieval_guard.watch.suppressions import patterns_of


def watch_functionals(listener: WatchListener, patches: Patches) -> None:
    """See what the functionals' own check of their input sees."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def check(preds: Tensor, *args: Any, **kwargs: Any) -> Any:
            if preds.ndim == 2 and min(preds.shape) > 1:
                function = _functional_that_runs()
                listener.protect(_note, listener, function, (preds.shape[0], preds.shape[1]))
            return original(preds, *args, **kwargs)

        return BesideGraphs(check, original, leaves=False)

    for module, name in _compat.functional_input_checks():
        patches.put(module, name, wrap)


def _functional_that_runs() -> str:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_name.startswith("retrieval_"):
        frame = frame.f_back
    return "a retrieval functional" if frame is None else frame.f_code.co_name


def _note(listener: WatchListener, function: str, shape: tuple[int, int]) -> None:
    stage, site = listener.stage(), user_call_site()
    if stage is not None:
        suppressed = patterns_of(listener.suppressions.at(site))
        call = FlattenedCall(function, shape, listener.hook() or "", site.path, site.line, suppressed)
        stage.flattened.setdefault(call.target, call)
