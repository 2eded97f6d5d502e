"""How the batches of a loader are cut, so that all processes together have the batch that one process has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from lightning_retrieval_guard.parity.target import ParityError


@dataclass(frozen=True)
class Loader:
    """One loader as a run had it."""

    batch_size: int | None  # of each process; None where the loader does not tell
    fixed: str  # why it cannot be given another batch size; empty where it can
    shuffled: bool  # whether it draws its samples in a random order


def share(loaders: tuple[Loader, ...], world_size: int) -> tuple[int, ...]:
    """The batch size of each of several processes, one for each loader that one process had.

    Raises:
        ParityError: A batch cannot be cut into that many equal parts.
    """
    return tuple(_share(loader, index, world_size) for index, loader in enumerate(loaders))


def _share(loader: Loader, index: int, world_size: int) -> int:
    if loader.batch_size is None:
        raise ParityError(
            f"The batches of loader {index} cannot be cut into {world_size}: {loader.fixed}. With --keep per-rank"
            " batches stay as the program makes them."
        )
    if loader.batch_size % world_size:
        raise ParityError(
            f"The batch of {loader.batch_size} of loader {index} cannot be cut into {world_size} equal parts. Choose"
            f" world sizes that divide it, a batch size that they divide, or --keep per-rank."
        )
    return loader.batch_size // world_size


class Cutter:
    """Sees the loaders of one run after Lightning has put its samplers in, and cuts their batches.

    Args:
        batch_sizes: The batch size of each process for each loader, or ``None`` to leave all as they are.
    """

    def __init__(self, batch_sizes: tuple[int, ...] | None) -> None:
        self._batch_sizes = batch_sizes
        self.loaders: list[Loader] = []

    def process_dataloader(self, loader: Any) -> Any:
        """Take the place of the strategy's method of this name, which gets the loaders in their order.

        Raises:
            ParityError: One process had fewer loaders, or this one cannot be cut.
        """
        entry = _describe(loader)
        if self._batch_sizes is not None:
            index = len(self.loaders)
            if index >= len(self._batch_sizes) or entry.fixed:
                raise ParityError(
                    f"Loader {index} is not as on one process, where there are {len(self._batch_sizes)} loaders whose"
                    f" batches can be cut{entry.fixed and f': {entry.fixed}'}. Return the same loaders on every number"
                    " of processes, or use --keep per-rank."
                )
            # Built anew, a loader of a class of the user's may want other arguments; nothing was drawn from it yet.
            loader.batch_sampler.batch_size = self._batch_sizes[index]
            vars(loader)["batch_size"] = self._batch_sizes[index]  # plain assignment is refused after __init__
            entry = _describe(loader)
        self.loaders.append(entry)
        return loader


def _describe(loader: Any) -> Loader:
    """What a loader tells about its batches."""
    if not isinstance(loader, DataLoader):
        return Loader(None, f"it is a {type(loader).__name__} and no DataLoader", False)
    sampler: Any = loader.batch_sampler
    shuffled = isinstance(loader.sampler, RandomSampler) or bool(getattr(loader.sampler, "shuffle", False))
    if sampler is None:
        return Loader(None, "it has batch_size=None, so its dataset makes the batches", shuffled)
    if type(sampler) is not BatchSampler:
        return Loader(None, f"a {type(sampler).__name__} makes them", shuffled)
    return Loader(sampler.batch_size, "", shuffled)
