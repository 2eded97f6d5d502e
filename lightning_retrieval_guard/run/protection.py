"""Nothing of the guard brings a run down: its failures are caught here, and it steps aside on all ranks together."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard._compat import GuardError
from lightning_retrieval_guard.distributed.exchange import ExchangeError, RanksFailedError
from lightning_retrieval_guard.findings import Finding, GuardWarning
from lightning_retrieval_guard.report.text import printable
from lightning_retrieval_guard.rules.lrg204_rank_zero_sync import describe_lone_compute
from lightning_retrieval_guard.rules.lrg901_guard_disabled import GuardDisabled
from lightning_retrieval_guard.run.context import RunContext
from lightning_retrieval_guard.settings import Settings
from lightning_retrieval_guard.watch.call_site import user_call_site

P = ParamSpec("P")
T = TypeVar("T")


def failure_text(error: BaseException) -> str:
    """A failure in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@dataclass(frozen=True)
class Failure:
    """A failure of the guard.

    Attributes:
        reason: In a line.
        ranks: Where it failed.
        say: Whether this process reports it.
        of_guard: Whether the guard failed, and not the program, whose ranks did not meet.
    """

    reason: str
    ranks: Sequence[int]
    say: bool
    of_guard: bool = True

    def finding(self, trainer: Any, module: Any) -> Finding:
        """The finding at the user's line."""
        site = user_call_site()
        return GuardDisabled().at_failure(
            self.reason,
            self.ranks,
            of_guard=self.of_guard,
            stage=_compat.stage_name(trainer) or "",
            hook=_compat.current_hook(module) or "",
            path=site.path,
            line=site.line,
        )


class Protection:
    """Runs parts of the guard, and knows whether one has failed.

    Args:
        run: The run.
        take_off: Takes off everything that the guard has put on.

    Attributes:
        is_open: Whether the guard is on.
        in_step: Whether a batch has begun since the ranks last met.
        failure: What has failed, until the ranks have heard of it.
    """

    def __init__(self, run: RunContext, take_off: Callable[[], None]) -> None:
        self.is_open = False
        self.in_step = False
        self.failure: Failure | None = None
        self._run = run
        self._take_off = take_off

    def protect(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Run a part of the guard, and give what it returns; its failure must not bring the run down."""
        if self.failure is not None or not self.is_open:
            return None
        try:
            return action(*args, **kwargs)
        # meant for the user: strict mode, and warnings that were turned into errors
        except (GuardError, GuardWarning):
            raise
        except Exception as error:
            self.fail(error)
            # with others, the failure waits until they can hear of it
            if self._run.world_size == 1:
                self.give_up()
        return None

    def meet(self, action: Callable[[], None]) -> None:
        """Run a part where the ranks meet, and step aside where any of them has failed."""
        self.in_step = False
        self.protect(action)
        if self.failure is not None and self.is_open:
            self.give_up()

    def fail(self, error: Exception) -> None:
        """Note a failure; the other ranks hear of one here where they meet."""
        # the first failure explains those that follow from it
        self.failure = self.failure or self._failure_of(error)

    def _failure_of(self, error: Exception) -> Failure:
        exchange = self._run.exchange
        if isinstance(error, RanksFailedError):
            # all ranks know of this one already
            return Failure(str(error), error.ranks, exchange.rank == 0)
        if isinstance(error, ExchangeError):
            return Failure(_why_missed(error), [exchange.rank], say=True, of_guard=False)
        reason = failure_text(error)
        try:
            # the other ranks must not wait for this one
            exchange.leave(reason, failed=True)
        except Exception as another:  # this is where failures end
            reason = f"{reason}; {failure_text(another)}"
        return Failure(reason, [exchange.rank], exchange.rank == 0)

    def give_up(self) -> None:
        """Step aside for what has failed.

        Raises:
            GuardError: In strict mode.
        """
        assert self.failure is not None
        if self._run.settings.mode != "strict":
            self.step_aside(self.failure.say)
            return
        failure, self.failure = self.failure, None
        self._keep(failure, say=False)
        spec, ranks = GuardDisabled.spec, ", ".join(map(str, failure.ranks))
        raise GuardError(printable(f"{spec.code} {spec.slug}: the guard failed on rank(s) {ranks}: {failure.reason}"))

    def step_aside(self, say: bool) -> None:
        """Take everything off, and report what has failed."""
        failure = self.failure
        assert failure is not None
        if self.is_open:
            self._take_off()
        self.failure = None
        self._keep(failure, say)

    def _keep(self, failure: Failure, say: bool) -> None:
        """Add a failure to what was found, and write all of that, because no later moment may."""
        try:
            finding = failure.finding(self._run.trainer, self._run.module)
            if self._run.settings.allows(finding.code):
                self._run.reporter.log.add([finding], say=say)
        except GuardWarning:
            raise
        except Exception as error:  # it may be why the guard steps aside
            print(f"RetrievalGuard stepped aside: {failure.reason}; {failure_text(error)}", file=sys.stderr)
        finally:
            self._save_what_is_known()

    def _save_what_is_known(self) -> None:
        try:
            self._run.save()
        except Exception as error:  # it may be why the guard steps aside
            print(f"RetrievalGuard: the report could not be written: {failure_text(error)}", file=sys.stderr)


@contextlib.contextmanager
def refusing(settings: Settings) -> Iterator[None]:
    """Raise for the user where ranks do not meet, unless the mode is to warn.

    Raises:
        GuardError: In place of ``ExchangeError``.
    """
    try:
        yield
    except ExchangeError as error:
        if settings.mode == "warn":
            raise
        raise GuardError(printable(_why_missed(error))) from error


def _why_missed(error: ExchangeError) -> str:
    """The error in words; a metric that some ranks compute alone is a fault with a code of its own."""
    alone = {rank: point.partition("/compute/")[2] for rank, point in error.elsewhere.items() if "/compute/" in point}
    if alone:
        return f"{describe_lone_compute(alone)} ({error})"
    return (
        f"RetrievalGuard: {error}. All ranks must come to this point; a rank that skips the epoch, or code that runs"
        " on rank zero alone, keeps the others waiting."
    )
