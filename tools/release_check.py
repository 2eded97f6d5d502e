"""A dry run of a release: ``python -m tools.release_check`` builds, checks and installs, and publishes nothing.

1. Wheel and sdist are built into ``dist``, and twine checks both.
2. Each is installed in a fresh environment of every supported Python at hand.
3. There the package is imported, the lint reads a wrong program, and the demo runs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
WRONG = """\
from lightning.pytorch import LightningModule


class Model(LightningModule):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", batch.mean(), sync_dist=True, rank_zero_only=True)
"""


def run(*command: str | Path, cwd: Path = ROOT, expect: int = 0) -> str:
    """Run a command, and return what it prints.

    Raises:
        SystemExit: It ended with another exit code.
    """
    print("$", *command, flush=True)
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != expect:
        sys.exit(f"{done.stdout}{done.stderr}\nexit code {done.returncode}, not {expect}")
    return done.stdout + done.stderr


def build() -> list[Path]:
    """Build wheel and sdist anew, and have twine check them."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    files = sorted(DIST.iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    return files


def pythons_at_hand(wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The version and the path of each wanted Python that starts."""
    for version in wanted:
        path = sys.executable if version == f"3.{sys.version_info.minor}" else shutil.which(f"python{version}")
        starts = path is not None and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0
        if path is not None and starts:
            yield version, path
        else:
            print(f"Python {version} is not at hand", flush=True)


def check_installed(python: str, file: Path) -> None:
    """Install a file in a fresh environment, and use it from another folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = folder / "environment"
        if python == sys.executable:
            venv.create(environment, with_pip=True)
        else:
            run(python, "-m", "venv", environment)
        programs = environment / ("Scripts" if sys.platform == "win32" else "bin")
        pip = (programs / "python", "-m", "pip", "--quiet", "--disable-pip-version-check")
        run(*pip, "install", "-c", ROOT / "constraints-dev.txt", file)
        (folder / "wrong.py").write_text(WRONG, encoding="utf-8")
        run(programs / "python", "-c", "import lightning_retrieval_guard as guard; guard.RetrievalGuard()", cwd=folder)
        found = run(programs / "lightning-retrieval-guard", "lint", "wrong.py", cwd=folder, expect=1)
        assert "LRG204" in found, found
        shown = run(programs / "lightning-retrieval-guard", "demo", cwd=folder)
        assert "The corrected numbers are those of one process." in shown, shown


def main(argv: Sequence[str] | None = None) -> int:
    """Check a release.

    Args:
        argv: The arguments after the program's name; by default those of this process.
    """
    parser = ArgumentParser(prog="python -m tools.release_check", description=main.__doc__)
    parser.add_argument("--python", action="append", help="such as 3.12; all supported ones by default")
    options = parser.parse_args(argv)
    files = build()
    for version, path in pythons_at_hand(options.python or PYTHONS):
        for file in files:
            check_installed(path, file)
            print(f"Python {version}: {file.name} is installed, and the demo runs", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
