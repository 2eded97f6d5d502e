"""What a static rule shares with the rule of the run, and what the corpus says of it."""

from __future__ import annotations

import ast

import pytest

from lightning_retrieval_guard import rules
from lightning_retrieval_guard.lint.finding import STATIC
from lightning_retrieval_guard.lint.plugin import findings
from tests.programs.expectations import Place, Program, read_programs

from .snippets import expected, in_module, places

PROGRAMS = read_programs()
each_program = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)


@pytest.mark.parametrize("code", STATIC)
def test_it_is_the_rule_of_the_run(code: str) -> None:
    if code not in rules:
        pytest.skip("the run does not have this rule yet")
    spec, rule = STATIC[code], rules[code]
    assert (spec.code, spec.slug, spec.severity) == (rule.code, rule.slug, rule.severity.value)
    assert spec.fix.endswith(".")


def test_every_static_rule_has_a_program() -> None:
    found = {place.code for program in PROGRAMS.values() for place in program.expected_by_lint(missed=False)}
    assert found >= {code for code in STATIC if code in rules}


@each_program
def test_it_finds_what_the_source_makes_certain_and_nothing_else(program: Program) -> None:
    found = findings(ast.parse(program.text), program.text.splitlines(keepends=True))
    for note in (True, False):
        places = {
            Place(finding.rule.code, finding.line) for finding in found if (finding.rule.severity == "note") == note
        }
        assert places == program.expected_by_lint(note, missed=False)


@each_program
def test_in_a_right_program_nothing_is_expected_but_a_note_of_the_run(program: Program) -> None:
    if program.is_right:
        assert not program.expected_by_lint(note=False)
        run = set().union(*(program.expected(world, note=True) for world in (1, 2)))
        assert {place.code for place in program.expected_by_lint()} <= {place.code for place in run}


@each_program
def test_the_run_finds_the_same_codes(program: Program) -> None:
    run = {expectation.place.code for expectation in program.expectations}
    assert {place.code for place in program.expected_by_lint()} <= run


def test_a_loop_that_is_too_long_hides_nothing_after_it() -> None:
    generated = "def made(self, rows):\n    for row in rows:\n" + "        x = row\n" * 6_000
    step = "def validation_step(self, batch, batch_idx):\n    self.local.update(*batch)\n"
    end = "def on_validation_epoch_end(self):\n    self.log('r', self.local.compute())  # lint: LRG203\n"
    source = in_module(generated + step + end)
    assert places(source) == expected(source)


def test_what_is_deep_or_long_is_silent_and_does_not_fail() -> None:
    deep = " * ".join(["self.trainer.world_size"] * 300)
    negated = "not " * 300
    methods = "".join(f"    def own{number}(self):\n        return {number}\n" for number in range(16_000))
    source = f"""
from lightning.pytorch import LightningModule
from torchmetrics.retrieval import RetrievalMRR
class Model(LightningModule):
    def validation_step(self, batch, batch_idx):
        metric = RetrievalMRR(){".to(self.device)" * 60}
        self.log("loss", 1.0, batch_size={deep})
        if {negated}self.trainer.is_global_zero:
            metric.compute()
        self.log("loss", 1.0, sync_dist=True, rank_zero_only=True)
{methods}"""
    found = findings(ast.parse(source), source.splitlines(keepends=True))
    assert [finding.rule.code for finding in found] == ["LRG101", "LRG204"]
