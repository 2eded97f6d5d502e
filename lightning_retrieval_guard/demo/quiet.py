"""Surroundings in which a run says little, and which are put back afterwards."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lightning_retrieval_guard.settings import VARIABLES

NOISY_LOGGERS = ("lightning.pytorch", "lightning.fabric", "torch.multiprocessing.spawn")
NOISY_MESSAGES = (".*does not have many workers", "Using `DistributedSampler` with the dataloaders")
# What a library does that will change one day is not the reader's; GuardWarning is none of these.
NOISY_CATEGORIES = (DeprecationWarning, FutureWarning)
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # a forked process must not meet the thread pool of its parent
    "MASTER_PORT": None,  # Lightning leaves its port there; each run takes a fresh one
    **dict.fromkeys(VARIABLES),  # they would put a guard into the runs that show none
}


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what Lightning and torch say about a small run, and computes on one thread.

    After the with block log levels, warning filters, environment and thread count are as before.
    """
    with _log_level(logging.ERROR), _environment(), _one_thread(), warnings.catch_warnings():
        for message in NOISY_MESSAGES:
            warnings.filterwarnings("ignore", message)
        for category in NOISY_CATEGORIES:
            warnings.simplefilter("ignore", category)
        yield


@contextmanager
def _log_level(level: int) -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in NOISY_LOGGERS}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)


@contextmanager
def _environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    try:
        _set_environment(ENVIRONMENT)
        yield
    finally:
        _set_environment(before)


def _set_environment(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
