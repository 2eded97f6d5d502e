"""Which ``compute()`` calls may leave their collective out, told from the source alone."""

from __future__ import annotations

import itertools
import linecache
import textwrap
from typing import Any

import pytest

from lightning_retrieval_guard.watch.step_sync import sync_free_sites

_NUMBERS = itertools.count()


def free_lines(*classes: str) -> list[str]:
    """The free lines of a program: its first class is the module, the others are callbacks."""
    source = "\n".join(map(textwrap.dedent, classes))
    path = f"<program {next(_NUMBERS)}>"
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(source, path, "exec"), names)
    module, *callbacks = [own for own in names.values() if isinstance(own, type)]
    sites = sync_free_sites(module(), [own() for own in callbacks])
    assert {file for file, _ in sites} <= {path}
    return [source.splitlines()[line - 1].strip() for _, line in sorted(sites)]


def step(*lines: str, name: str = "validation_step", more: str = "") -> str:
    body = textwrap.indent("\n".join(lines), 8 * " ")
    return f"class Program:\n    def {name}(self, batch, batch_idx):\n{body}\n{textwrap.indent(more, 4 * ' ')}\n"


FREE = [
    ['self.log("a", self.mrr.compute())'],
    ['self.log("a", self.mrr.compute(), batch_size=4, sync_dist=True, prog_bar=True)'],
    ["value = self.mrr.compute()", 'self.log("a", value)', 'self.log("b", value, on_epoch=True)'],
    ["value = self.mrr.compute()", "alias = value", 'self.log("a", alias)'],
    ["values = self.collection.compute()", "self.log_dict(values)"],
    ['self.log_dict({"a": self.mrr.compute(), "b": 1.0})'],
    ["if batch_idx:", '    self.log("a", self.mrr.compute())'],
]


@pytest.mark.parametrize("lines", FREE)
def test_a_value_that_is_only_logged(lines: list[str]) -> None:
    [line] = free_lines(step(*lines))
    assert ".compute()" in line


@pytest.mark.parametrize("lines", FREE)
def test_training_keeps_the_value_of_each_step_unless_told_otherwise(lines: list[str]) -> None:
    assert not free_lines(step(*lines, name="training_step"))
    assert not free_lines(step(*lines, name="shared"))


def test_training_told_otherwise() -> None:
    logged = 'self.log("a", self.mrr.compute(), on_step=False, on_epoch=True)'
    assert free_lines(step(logged, name="training_step")) == [logged]
    assert not free_lines(step(logged.replace(", on_epoch=True", ""), name="training_step"))


@pytest.mark.parametrize(
    "lines",
    [
        ['self.log("a", self.mrr.compute(), on_step=True)'],
        ['self.log("a", self.mrr.compute(), on_epoch=False)'],
        ['self.log("a", self.mrr.compute(), on_step=batch_idx > 3)'],
        ['self.log("a", self.mrr.compute(), reduce_fx="max")'],
        ['self.log("a", self.mrr.compute(), rank_zero_only=True)'],
        ['self.log("a", self.mrr.compute(), **batch)'],
        ['self.log("a", self.mrr.compute(), False, True, True)'],
        ['self.log("a", float(self.mrr.compute()))'],
        ['self.log("a", self.mrr.compute() * 2)'],
        ["value = self.mrr.compute()", 'self.log("a", value)', "return value"],
        ["value = self.mrr.compute()", 'self.log("a", value)', 'return {"a": value}'],
        ["value = self.mrr.compute()", 'self.log("a", value)', "print(float(value))"],
        ["value = self.mrr.compute()", 'self.log("a", value)', "if value > 0.5: pass"],
        ["value = self.mrr.compute()", 'self.log("a", value)', "self.last = value"],
        ["value = self.mrr.compute()", 'self.log("a", value)', "self.values.append(value)"],
        ["value = self.mrr.compute()", 'self.log("a", value)', "alias = value", "print(alias)"],
        ["value = self.mrr.compute()", 'self.log("a", value)', "value += 1"],
        ["value = self.mrr.compute()", 'self.log("a", value)', "later = lambda: value"],
        ["value = self.mrr.compute()", 'self.log("a", value)', "print(locals())"],
        ["self.value = self.mrr.compute()", 'self.log("a", self.value)'],
        ['self.log("a", self.mrr.compute()); print(self.other.compute())'],
        ["self.log(", '    "a", self.mrr.compute(', "    )", ")"],
        ['self.log("a", self.mrr.compute())', "if batch_idx == 0: print(self.mrr.compute())"],
        ['self.log("a", self.mrr.compute())', "for own in self.all: print(own[0].compute())"],
    ],
)
def test_a_value_that_anybody_may_see(lines: list[str]) -> None:
    assert not free_lines(step(*lines))


LOGGED = 'self.log("a", self.mrr.compute())'


def test_the_cached_value_is_seen_elsewhere() -> None:
    """Whoever computes again finds what was computed, without a collective of its own."""
    assert not free_lines(step(LOGGED, more="def on_validation_batch_end(self):\n    print(self.mrr.compute())"))
    watcher = "class Watcher:\n    def on_validation_batch_end(self, t, module):\n        print(module.mrr.compute())"
    assert not free_lines(step(LOGGED), watcher)
    assert free_lines(step(LOGGED, more="def on_validation_epoch_end(self):\n    print(self.mrr.compute())"))


def test_steps_that_the_program_calls_itself() -> None:
    called = "def training_step(self, batch, batch_idx):\n    self.validation_step(batch, batch_idx)"
    assert not free_lines(step(LOGGED, more=called))
    assert free_lines(step(LOGGED, more=called.replace("self.", "super().")))


def test_a_log_of_the_users_own_may_do_anything() -> None:
    assert not free_lines(step(LOGGED, more="def log(self, name, value): print(value)"))


def test_without_source_nothing_is_known() -> None:
    names: dict[str, Any] = {"__name__": "program"}
    exec(step(LOGGED), names)
    assert not sync_free_sites(names["Program"](), [])
