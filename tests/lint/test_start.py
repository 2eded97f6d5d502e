"""The lint starts without torch, and the package's public names are there all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lightning_retrieval_guard

from .test_runner import WRONG

HEAVY = (
    "torch lightning lightning_fabric pytorch_lightning torchmetrics numpy libcst flake8 typing_extensions packaging"
)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import lightning_retrieval_guard",
        "import lightning_retrieval_guard.lint.plugin, lightning_retrieval_guard.lint.runner",
        "from lightning_retrieval_guard.cli import main; main(['lint', 'LICENSE', '--format=sarif'])",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    assert run(f"{code}\nimport sys\nprint('heavy:', *(set({HEAVY!r}.split()) & set(sys.modules)))").endswith("heavy:")


def test_the_lint_runs_where_nothing_else_is_installed(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(WRONG)
    root = Path(lightning_retrieval_guard.__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(root)!r})\nfrom lightning_retrieval_guard.cli import main\n"
    command = [sys.executable, "-S", "-I", "-c", f"{code}sys.exit(main(['lint', {str(path)!r}]))"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "LRG204" in done.stdout, done.stderr) == (1, True, "1 finding, 1 fixable with --fix.\n")


def test_every_public_name_is_there_and_loads_once() -> None:
    for name in lightning_retrieval_guard.__all__:
        assert getattr(lightning_retrieval_guard, name) is getattr(lightning_retrieval_guard, name)
        assert name in dir(lightning_retrieval_guard)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lightning_retrieval_guard.nothing  # noqa: B018 - reading it raises


@pytest.mark.parametrize(
    "first",
    [
        "import lightning_retrieval_guard.rules.documentation",
        "from lightning_retrieval_guard import RetrievalGuard",
        "",
    ],
)
def test_the_registry_is_public_whatever_is_imported_first(first: str) -> None:
    assert run(f"{first}\nfrom lightning_retrieval_guard import rules\nprint(rules['LRG201'].code)") == "LRG201"


def test_a_star_import_binds_the_public_names() -> None:
    code = "from lightning_retrieval_guard import *\nimport pickle\nprint(pickle.loads(pickle.dumps(RetrievalGuard)))"
    assert "RetrievalGuard" in run(code)
