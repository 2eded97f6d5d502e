"""What a target may be and return, and what is said of one that cannot be run."""

from __future__ import annotations

import importlib
import random
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn.parameter import is_lazy

from lightning_retrieval_guard.parity.check import Processes, check
from lightning_retrieval_guard.parity.compare import NOT_RUN, SAME, Parity
from lightning_retrieval_guard.parity.options import ParityError, build_options, find_target
from lightning_retrieval_guard.parity.worker import build, load_weights, save_weights

from . import targets

HERE = f"{__package__}.targets"
FILE = Path(targets.__file__)


def evaluated(processes: Processes, name: str, **options: object) -> Parity:
    given = {"world_sizes": (1, 2), "timeout": 60.0, **options}
    return check(build_options(f"{HERE}:{name}", **given), processes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "batch_sizes"),
    [
        ("mean", [[8], [4]]),
        ("module_alone", [[8], [4]]),
        ("module_and_none", [[8], [4]]),
        ("datamodule", [[8, 4], [4, 2]]),
        ("trainer_arguments", [[8], [4]]),
        ("other_package", [[8], [4]]),
        ("workers", [[8], [4]]),
        ("unequal_weights", [[8], [4]]),
    ],
)
def test_what_may_be_returned(processes: Processes, name: str, batch_sizes: list[list[int]]) -> None:
    parity = evaluated(processes, name)
    assert parity.exit_code == SAME, parity
    assert [[loader.batch_size for loader in run.loaders] for run in parity.runs] == batch_sizes


def test_the_stage_is_the_one_asked_for(processes: Processes) -> None:
    assert [key.name for key in evaluated(processes, "mean", stage="test").keys] == ["test_mean"]


def test_trainer_arguments_are_used(processes: Processes) -> None:
    all_batches, two = evaluated(processes, "mean"), evaluated(processes, "trainer_arguments")
    assert two.keys[0].numbers[1] < all_batches.keys[0].numbers[1] / 2


def test_the_programs_own_guard_gives_its_settings_but_not_its_mode(processes: Processes) -> None:
    plain, ignored = evaluated(processes, "shard"), evaluated(processes, "given_guard")
    assert [finding.code for finding in plain.runs[1].findings] == ["LRG203"]
    assert ignored.runs[1].findings == ()
    assert [key.name for key in ignored.different] == ["shard"]


def test_per_rank_leaves_batches_alone(processes: Processes) -> None:
    for name, size in (("mean", 8), ("custom_batches", None), ("whole_batches", None)):
        parity = evaluated(processes, name, keep="per-rank")
        assert not parity.problems
        assert [[loader.batch_size for loader in run.loaders] for run in parity.runs] == [[size], [size]]


def test_layers_without_a_shape_are_left_as_they_are(tmp_path: Path) -> None:
    one, other = (torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LazyLinear(1)) for _ in range(2))
    save_weights(one, tmp_path)
    load_weights(other, tmp_path)
    assert torch.equal(one[0].weight, other[0].weight)
    assert is_lazy(other[1].weight)


REFUSED_ON_ONE = {
    "missing": "has no function 'missing'. It has rank, world_size, loader, mean",
    "not_callable": "has no function 'not_callable'",
    "needs_arguments": "needs the arguments config, size. It is called without any: give them defaults",
    "no_module": "returned (DataLoader, Mean). It must return a LightningModule, (module, loaders)",
    "number": "returned int. It must return a LightningModule",
    "too_many": "returned (Mean, DataLoader, dict, NoneType). It must return",
    "bad_data": "returned str as the data. It must return",
    "bad_trainer_arguments": "returned list as the third part, which must be a dict of Trainer arguments",
    "own_arguments": "returned the Trainer arguments accelerator, devices, which parity sets itself: it runs on",
    "two_packages": "returned a module of lightning.pytorch and a datamodule of pytorch_lightning",
    "without_numbers": "The weights of Mean cannot be copied: Cannot copy out of meta tensor; no data!",
    "needs_gpu": "Parity runs on the CPU: use self.device in the module in place of a device of your own.",
    "raising": "Rank 0 of 1 raised LookupError: no such data set",
    "silent": "Nothing was logged with self.log for the epoch of 'validate'",
    "hangs_at_once": "Not done after 4 s, which is the limit of --timeout",
}


@pytest.mark.parametrize("name", REFUSED_ON_ONE)
def test_what_cannot_be_run_at_all(processes: Processes, name: str) -> None:
    parity = evaluated(processes, name, timeout=4.0 if name == "hangs_at_once" else 60.0)
    [run] = parity.runs
    assert parity.exit_code == NOT_RUN
    assert REFUSED_ON_ONE[name] in run.problem


REFUSED_ON_TWO = {
    "other_weights": "Mean has other weights here than on one process: more.bias, more.weight. Build the same",
    "custom_batches": "The batches of loader 0 cannot be cut into 2: a Pairs makes them. With --keep per-rank",
    "whole_batches": "cannot be cut into 2: it has batch_size=None, so its dataset makes the batches",
    "no_loader": "cannot be cut into 2: it is a Plain and no DataLoader",
    "other_loaders": "Loader 1 is not as on one process, where there are 1 loaders whose batches can be cut.",
    "dying": "Rank 1 of 2 died: exit code -6.",
    "raising_on_one": "Rank 1 of 2 raised ArithmeticError: on rank one",
}


@pytest.mark.parametrize("name", REFUSED_ON_TWO)
def test_what_cannot_be_run_on_two(processes: Processes, name: str) -> None:
    parity = evaluated(processes, name)
    one, two = parity.runs
    assert not one.problem
    assert REFUSED_ON_TWO[name] in two.problem
    assert parity.exit_code == NOT_RUN
    assert not parity.different


def test_the_stack_of_a_rank_that_hangs_is_told(processes: Processes) -> None:
    problem = evaluated(processes, "hanging", timeout=6.0).problems[0].problem
    assert "Not done after 6 s" in problem
    assert "in misbehave" in problem.partition("rank 1 of 2")[2]


def test_the_traceback_of_a_rank_that_raised_is_told(processes: Processes) -> None:
    problem = evaluated(processes, "raising_on_one").problems[0].problem
    assert "The end of what rank 1 wrote:" in problem
    assert 'raise ArithmeticError("on rank one")' in problem


def test_only_the_world_size_that_does_not_divide_a_batch_is_left_out(processes: Processes) -> None:
    parity = evaluated(processes, "odd_batch", world_sizes=(2, 4))
    assert [run.problem for run in parity.runs[:2]] == ["", ""]
    assert parity.runs[2].problem.startswith("The batch of 6 of loader 1 cannot be cut into 4 equal parts. Choose")
    assert parity.exit_code == NOT_RUN
    assert list(parity.keys[0].numbers) == [1, 2]


# --- where a target is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retriever.py", "'retriever.py' is no target. Give path/to/file.py:function or package.module:function."),
        (":build", "is no target"),
        ("module:not a name", "is no target"),
        ("a/b:build", "'a/b' is neither a .py file nor a module"),
        ("nowhere/file.py:build", "there is no file '"),
    ],
)
def test_a_text_that_is_no_target(text: str, message: str) -> None:
    with pytest.raises(ParityError) as refused:
        find_target(text)
    assert message in str(refused.value)


def test_functions_that_other_processes_cannot_import() -> None:
    def inner() -> None:
        """Not at the top of its module."""

    for function in (inner, lambda: None, partial(inner)):
        with pytest.raises(match=r"cannot be found by other processes\. Move the function to the top"):
            find_target(function)  # type: ignore[arg-type]


def test_a_file_has_the_name_that_its_packages_give_it() -> None:
    target = find_target(f"{FILE}:mean")
    assert (target.module, target.function, target.folder) == ("tests.parity.targets", "mean", str(FILE.parents[2]))


def test_a_function_is_found_by_the_name_of_its_module_or_where_python_does_not_look_there_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "space_without_init"
    folder.mkdir()
    (folder / "module_in_space.py").write_text("def build():\n    pass\n")
    with monkeypatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        function = importlib.import_module("space_without_init.module_in_space").build
        target = find_target(function)
        assert (target.module, target.folder) == ("space_without_init.module_in_space", str(tmp_path))
    target = find_target(function)
    assert (target.module, target.folder) == ("module_in_space", str(folder))


def test_a_file_of_its_own_may_import_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: Processes
) -> None:
    (tmp_path / "neighbour_of_target.py").write_text("from tests.parity.targets import mean\n")
    (tmp_path / "test.py").write_text("from neighbour_of_target import mean\n\n\ndef build():\n    return mean()\n")
    monkeypatch.chdir(tmp_path)
    parity = check(build_options("test.py:build", world_sizes=[2]), processes)
    assert parity.exit_code == SAME


def test_a_file_named_as_a_loaded_module_does_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)  # takes out again what finding the target puts in
    (tmp_path / "random.py").write_text("from tests.parity.targets import mean\n")
    built = build(find_target(f"{tmp_path / 'random.py'}:mean"))
    assert type(built.module).__name__ == "Mean"
    assert random.__file__ != str(tmp_path / "random.py")
    assert sys.modules["random"] is random


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no.such:build", "there is no module 'no' in "),
        (f"{HERE}.more:build", f"there is no module '{HERE}.more' in "),
        ("broken:build", "'broken:build' cannot be imported: "),
        ("broken:build", "broken.py:1: ModuleNotFoundError: No module named 'missing_in_broken'. Install"),
    ],
)
def test_a_module_that_is_not_there_is_told_from_one_that_fails(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("import missing_in_broken\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ParityError, match=message.replace(".", r"\.")):
        build(find_target(text))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"world_sizes": (1,)},
            r"world_sizes=\(1,\) is not allowed\. Give whole numbers from 1 to 64, one of them above 1, such as",
        ),
        ({"world_sizes": (0, 2)}, "is not allowed"),
        ({"world_sizes": (65,)}, "is not allowed"),
        ({"stage": "fit"}, "stage='fit' is not one of 'validate', 'test'"),
        ({"mode": "strict"}, "mode='strict' is not one of 'warn', 'correct'"),
        ({"keep": "none"}, "keep='none' is not one of 'global', 'per-rank'"),
        ({"rtol": -1.0}, "rtol=-1.0 must be a number from 0 on"),
        ({"atol": float("nan")}, "atol=nan must be a number from 0 on"),
        ({"timeout": 0.0}, "timeout=0.0 must be a number of seconds above 0"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0 to 4294967295"),
    ],
)
def test_an_option_that_is_not_allowed(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_options(f"{HERE}:mean", **options)  # type: ignore[arg-type]


def test_one_process_is_always_the_reference() -> None:
    assert build_options(f"{HERE}:mean", world_sizes=[4, 2, 4]).world_sizes == (1, 2, 4)
