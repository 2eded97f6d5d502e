"""Which functions of a file are interpreted, and with what."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_retrieval_guard.lint.events import Story
from lightning_retrieval_guard.lint.interpreter import Interpreter
from lightning_retrieval_guard.lint.modules import ClassInfo, Module
from lightning_retrieval_guard.lint.state import TooLong
from lightning_retrieval_guard.lint.tables import HOOKS, OF_CALLBACK
from lightning_retrieval_guard.lint.values import (
    UNKNOWN,
    Callee,
    Data,
    Lead,
    Many,
    Origin,
    Reference,
    Value,
)

# An attribute is known when the methods that fill it have run, and those that fill what they fill it with.
_PASSES = 3
_RANK = frozenset({Origin.RANK})
_BATCH = Data(_RANK, Lead.BATCH, is_batch=True)
_PARAMETERS: dict[str, Value] = {
    "batch": _BATCH,
    "outputs": _BATCH,
    "all_outputs": Many(_BATCH, Lead.RANK),
    "batch_idx": Data(ids=Lead.RANK),
    "dataloader_idx": Data(),
}


def stories(module: Module) -> Iterator[Story]:
    """What happens in each class of the file, and in its functions."""
    for cls in module.all_classes:
        has_metrics = any(own.module.builds_metrics for own in cls.lineage)
        if cls.lineage and (has_metrics or cls.derives("LightningModule", "Callback")):
            yield _story_of_class(cls)
    if not module.builds_metrics:
        return
    story = Story()
    for function in module.functions.values():
        _run(Interpreter(story), Callee(function, module), function.name, [])
    yield story


def _story_of_class(cls: ClassInfo) -> Story:
    story = Story(cls)
    interpreter = Interpreter(story)
    methods = {name: own for base in reversed(cls.lineage) for name, own in base.methods.items()}
    first = [name for name in ("__init__", "setup", "configure_model") if name in methods]
    names = [*first, *(name for name in methods if name not in first)]
    for number in range(_PASSES):
        interpreter.is_recording = number == _PASSES - 1
        interpreter.all_steps = 0
        for name in names:
            found = interpreter.method(name)
            if found is not None and (name in HOOKS or found.function not in interpreter.called or name in first):
                _run(interpreter, found, name, _arguments(cls, name))
    return story


def _run(interpreter: Interpreter, callee: Callee, hook: str, arguments: list[Value]) -> None:
    interpreter.steps = 0
    try:
        interpreter.run(callee, hook, arguments)
    except TooLong:
        interpreter.frames.clear()


def _arguments(cls: ClassInfo, name: str) -> list[Value]:
    given: list[Value] = [_PARAMETERS[own] for own in HOOKS.get(name, ())]
    if cls.derives("Callback") and name in HOOKS:
        return [*map(Reference, OF_CALLBACK), *given]
    return given if cls.derives("LightningModule") else [UNKNOWN] * len(given)
