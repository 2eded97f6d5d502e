"""Where in the user's source a call stands, and what its arguments say there."""

import linecache
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_retrieval_guard.watch.call_site import CallSite, names_device_count, user_call_site

User = Callable[[str], Any]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run source text as a module of a given name; its ``user_call_site`` is the real one."""

    def run(source: str, module: str, **names: Any) -> dict[str, Any]:
        path = tmp_path / f"{module.replace('.', '_')}.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        space = {"__name__": module, "user_call_site": user_call_site, **names}
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), space)
        return space

    return run


ASK = "def ask():\n    return user_call_site()\n"
CALL = "def step():\n    x = 1\n    return ask()\n"


@pytest.mark.parametrize(
    "library",
    [
        "lightning.pytorch.core.module",
        "pytorch_lightning.core.module",
        "lightning_fabric.fabric",
        "torchmetrics.metric",
        "torch.nn.modules.module",
        "contextlib",
        "lightning_retrieval_guard.watch.log_calls",
        "lightning_retrieval_guard",
    ],
)
def test_frames_of_libraries_and_of_the_guard_are_passed_over(run: Callable[..., dict], library: str) -> None:
    ask = run(ASK, library)["ask"]
    user = run(CALL, "project.module", ask=ask)
    assert user["step"]() == CallSite(user["step"].__code__.co_filename, 3)


@pytest.mark.parametrize(
    "module", ["__main__", "torch_models", "lightning_experiments.a", "lightning_retrieval_guard.demo.x"]
)
def test_modules_with_a_similar_name_are_the_users(run: Callable[..., dict], module: str) -> None:
    space = run(ASK, module)
    assert space["ask"]() == CallSite(space["ask"].__code__.co_filename, 2)


def test_a_callback_into_the_users_code_is_the_innermost(run: Callable[..., dict]) -> None:
    user = run(ASK, "project.inner")
    library = run(CALL, "torch.nn.modules.module", ask=user["ask"])
    site = run(CALL, "project.outer", ask=library["step"])["step"]()
    assert site == CallSite(user["ask"].__code__.co_filename, 2)


def names(tmp_path: Path, source: str, line: int | None = None) -> bool:
    path = tmp_path / f"module_{abs(hash(source))}.py"
    path.write_text(source, encoding="utf-8")
    linecache.checkcache(str(path))
    return names_device_count(CallSite(str(path), line or source.count("\n")))


@pytest.mark.parametrize(
    "argument",
    [
        "self.batch_size * self.trainer.world_size",
        "len(x) * dist.get_world_size()",
        "len(x) * int(os.environ['WORLD_SIZE'])",
        "n * self.trainer.num_devices",
        "n * torch.cuda.device_count()",
        "n * cfg.n_gpus",
        "n * num_processes",
        "n * self.num_ranks",
        "n * num_replicas",
    ],
)
def test_the_argument_itself_names_the_devices(tmp_path: Path, argument: str) -> None:
    assert names(tmp_path, f"self.log('a', v, batch_size={argument})\n")


def test_a_name_is_followed_to_its_assignment(tmp_path: Path) -> None:
    source = "total = len(x) * self.trainer.world_size\nself.log('a', v, batch_size=total)\n"
    assert names(tmp_path, source)
    assert names(tmp_path, source.replace("=total", "=int(total)"))


def test_another_name_is_not_followed(tmp_path: Path) -> None:
    assert not names(tmp_path, "total = n * world_size\nself.log('a', v, batch_size=other)\n")


@pytest.mark.parametrize(
    "source",
    [
        "self.log('world_size', v * world_size, batch_size=len(x))\n",  # in another argument
        "self.log('a', v, batch_size=len(x))  # times world_size\n",
        "world_size = 2\nself.log('a', v, batch_size=len(x))\n",
        "self.log('a', v)\n",
        "self.log('a', v, batch_size=len(x), sync_dist=self.trainer.world_size > 1)\n",
        "self.log('a', v, sync_dist=self.trainer.world_size > 1, batch_size=len(x))\n",
        "self.log('a', v, batch_size=self.batch_size)\n",
    ],
)
def test_a_match_elsewhere_is_no_evidence(tmp_path: Path, source: str) -> None:
    assert not names(tmp_path, source)


def test_a_call_over_several_lines_is_read_whole(tmp_path: Path) -> None:
    source = "self.log(\n    'a',\n    v,\n    batch_size=n * world_size,\n)\n"
    assert all(names(tmp_path, source, line) for line in range(1, 6))


def test_of_two_calls_the_one_on_the_line_counts(tmp_path: Path) -> None:
    source = "self.log('a', v, batch_size=n * world_size)\nself.log('b', v, batch_size=n)\n"
    assert names(tmp_path, source, 1)
    assert not names(tmp_path, source, 2)


@pytest.mark.parametrize("source", ["%matplotlib inline\nself.log('a', v, batch_size=n * world_size)\n", "\0\n"])
def test_source_that_is_no_python_tells_nothing(tmp_path: Path, source: str) -> None:
    assert not names(tmp_path, source)


def test_a_file_that_is_not_there_tells_nothing() -> None:
    assert not names_device_count(CallSite("<ipython-input-1>", 1))
