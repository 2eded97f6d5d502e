"""The way of a logged Metric object through the package, as traced: ``python -m tools.way_of_a_value`` draws it.

A program with one retrieval metric runs on two processes in correct mode. Whatever function of the package runs from
the start of the validation to its end is noted on rank zero, in the order in which files are first met. The figure
shows the files by folder, with their numbers in that order; the rules count as one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_retrieval_guard"
FIGURE = ROOT / "docs" / "way-of-a-value.svg"
OUTPUT = "TRACE_OUTPUT"
COLUMNS = ("watch", "run", "distributed", "epoch", "ranking", "rules", "report", "")
TITLES = ("watch: seeing", "run: acting", "distributed: talking", "epoch: documents", "ranking: scoring",
          "rules: judging", "report: showing", "at the root")  # fmt: skip


def traced_program() -> None:
    """Validate one logged Metric object, and write down the files that it passes on this rank."""
    import torch
    from lightning.pytorch import Callback, LightningModule, Trainer
    from torch.utils.data import DataLoader, TensorDataset
    from torchmetrics.retrieval import RetrievalRecall

    from lightning_retrieval_guard import RetrievalGuard

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.recall = RetrievalRecall(top_k=1)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            query, scores, target = batch
            self.recall.update(scores, target, indexes=query)
            self.log("val_recall", self.recall)

    torch.manual_seed(0)
    data = TensorDataset(torch.arange(32) // 4, torch.rand(32), (torch.arange(32) % 4 == 0).long())
    visited: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(str(PACKAGE)):
            name = str(Path(path).relative_to(PACKAGE))
            visited.setdefault("rules/one file a rule" if name.startswith("rules/lrg") else name)

    class Traced(Callback):
        def on_validation_start(self, *_: object) -> None:
            sys.setprofile(note)

        def on_validation_end(self, *_: object) -> None:
            sys.setprofile(None)

    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", callbacks=[RetrievalGuard("correct"), Traced()], logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.validate(Module(), DataLoader(data, batch_size=8), verbose=False)
    if trainer.is_global_zero:
        Path(os.environ[OUTPUT]).write_text(json.dumps(list(visited)), encoding="utf-8")


def files_on_the_way() -> list[str]:
    """The files, relative to the package, in the order in which they are first met."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "files.json"
        environment = {**os.environ, OUTPUT: str(output)}
        command = [sys.executable, "-W", "ignore", "-m", "tools.way_of_a_value", "--run"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=180)
        files: list[str] = json.loads(output.read_text(encoding="utf-8"))
    return files


def draw(files: list[str]) -> str:
    """The figure, as SVG."""
    columns: dict[str, list[tuple[int, str]]] = {name: [] for name in COLUMNS}
    for number, file in enumerate(files, 1):
        folder, _, name = file.rpartition("/")
        columns[folder if folder in columns else ""].append((number, name.removesuffix(".py")))
    shown = [(title, columns[name]) for name, title in zip(COLUMNS, TITLES, strict=True) if columns[name]]
    height = 70 + 26 * max(len(entries) for _, entries in shown)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{170 * len(shown) + 20}" height="{height}"'
        ' font-family="sans-serif" font-size="13">',
        "<style>text{fill:#222}rect{fill:#eef3fa;stroke:#6b8cc0}circle{fill:#2f5fa8}.n{fill:#fff;font-size:10px}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}rect{fill:#1d2633}}</style>",
    ]
    for column, (title, entries) in enumerate(shown):
        left = 10 + 170 * column
        parts.append(f'<text x="{left}" y="24" font-weight="bold">{title}</text>')
        for row, (number, name) in enumerate(entries):
            top = 40 + 26 * row
            parts.append(f'<rect x="{left}" y="{top}" width="158" height="22" rx="4"/>')
            parts.append(f'<circle cx="{left + 13}" cy="{top + 11}" r="9"/>')
            parts.append(f'<text class="n" x="{left + 13}" y="{top + 15}" text-anchor="middle">{number}</text>')
            parts.append(f'<text x="{left + 28}" y="{top + 16}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main(arguments: list[str]) -> int:
    """Draw the figure, or with ``--run`` be one of the traced processes."""
    if "--run" in arguments:
        traced_program()
        return 0
    files = files_on_the_way()
    FIGURE.write_text(draw(files), encoding="utf-8")
    print(f"{len(files)} files: {', '.join(files)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
