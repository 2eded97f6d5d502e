"""What the ranks report of log calls and metrics: what rules look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from typing_extensions import Self

from lightning_retrieval_guard._compat import LogArguments


def to_payload(facts: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not what they are by default."""
    payload = {}
    # most fields are as by default, and a message that fits into one frame takes one collective
    for field in fields(facts):
        value = getattr(facts, field.name)
        if field.default is MISSING or value != field.default:
            payload[field.name] = value
    return payload


MergedHow = Literal["", "rows", "update", "setting"]
Kind = Literal["metric", "compute", "forward", "plain"]


@dataclass(frozen=True)
class LogCall(LogArguments):
    """The first log call of a key in an epoch.

    Attributes:
        storage: Lightning's key for it.
        name: What loggers and callbacks see.
        hook: The Lightning hook that logged.
        path: The user's file.
        line: The line in it, from 1.
        kind: What was logged.
        in_step: Whether it was logged while batches are being processed.
    """

    storage: str
    name: str
    hook: str
    path: str
    line: int
    kind: Kind
    in_step: bool = True


@dataclass(frozen=True)
class WeightCounts:
    """How the batch sizes of a key's log calls compare with the samples of this rank.

    Attributes:
        equal: Calls whose weight is the number of samples.
        times_world: Calls whose weight is the world size times the number of samples.
        times_world_nominal: Calls whose weight is the world size times the nominal size of a fuller batch.
        nominal: Calls whose explicit weight is the nominal size while the batch is shorter.
        either: Calls that are both the world size times the samples and the nominal size of a shorter batch.
        guessed: Calls without a weight where Lightning took a leading size that is not the number of samples.
        unsure: Calls where Lightning took the first of several leading sizes and the truth is not known.
        explained: Whether the batch itself explains every weight that is not the number of samples.
        integral: Whether all weights are integers, of which Lightning floors the mean over ranks.
    """

    equal: int = 0
    times_world: int = 0
    times_world_nominal: int = 0
    nominal: int = 0
    either: int = 0
    guessed: int = 0
    unsure: int = 0
    explained: bool = True
    integral: bool = True


@dataclass(frozen=True, kw_only=True)
class ForeignState:
    """What a metric holds that is not of the epoch, stage and dataloader at hand, or not its own.

    Counted in rows where the metric keeps rows, else in updates.

    Attributes:
        stale: Of earlier epochs: still held, or held when the epoch began.
        sanity: Whether all of these came from the sanity check.
        dropped: Whether the guard has dropped them.
        shared: Of another stage or dataloader.
        elsewhere: Whether nothing that it holds is of the stage at hand, so that nothing is shared.
        lost: Updates of the epoch that another stage made it forget, also where it keeps rows.
        merged: Why it would hold another state than that of its compute group, in words; empty where nothing shows it.
        merged_how: Whether rows have come that one of the two leaves out, or they have different ``update()`` methods,
            or nothing but different settings.
    """

    stale: int = 0
    sanity: bool = False
    dropped: bool = False
    shared: int = 0
    elsewhere: bool = False
    lost: int = 0
    merged: str = ""
    merged_how: MergedHow = ""


@dataclass(frozen=True)
class SourceMetricFacts(ForeignState):
    """What a rank reports of a key's metric that keeps no rows; all defaults where there is nothing to report.

    Attributes:
        metric: Its class.
        mean: Whether nothing shows that its value is another number than the mean of its values over batches.
        running: Whether ``compute()`` of one growing metric was logged several times.
        whole: Whether the metric holds just what was fed to it in this epoch, so that its value is that of the epoch.
    """

    metric: str = ""
    mean: bool = True
    running: bool = False
    whole: bool = False


@dataclass(frozen=True)
class KeyFacts(SourceMetricFacts, WeightCounts, LogCall):
    """One logged key on one rank. Numbers are those of the epoch so far, before any reduction over ranks.

    Attributes:
        calls: How often it was logged.
        mixed: Whether it shows values of different kinds, or of metrics with different settings.
        synced: Whether its metric combined all ranks.
        is_written: Whether the program wrote to a value between the metric and a log call, such as ``value *= 100``.
        source: The name of its source, the rows that its metric holds.
        holds_unseen_rows: Whether its metric feeds retrieval metrics that it holds, whose rows are not checked.
        shows: The names of its metrics, several for a composition, where ``source`` does not name them.
        is_composed: Whether it shows a composition of metrics.
        of_shard: What the logged Metric object comes to on this rank, where it combines no ranks and keeps no rows.
        lacks_states: Whether its metric holds nothing that torchmetrics could combine.
        value: The running value: the weighted sum for a mean; ``None`` for a Metric object.
        weight: The running sum of batch sizes, for a mean.
        fed_in: The dataloader in the steps of which it was logged, or its metric fed, where there are several
            and that is known.
        first_batch: The sum of the logged means over the first batch, where the sampler repeats its first sample.
        first_sample: What that sample adds to it, where the value is a mean over samples.
        last_batch: The sum over the last batch, where it ends on a repeated sample.
        last_sample: What that sample adds to it.
        last_of: The rank that has this sample first.
        names_devices: Whether the source of the ``batch_size`` argument names the number of devices.
        lacks_value: What ``value`` lacks to be weighted by samples.
        lacks_weight: What ``weight`` lacks to be the number of samples.
        suppressed: Codes and prefixes of rules that stay silent at its log calls.
    """

    calls: int = 0
    mixed: bool = False
    synced: bool = False
    is_written: bool = False
    source: str | None = None
    holds_unseen_rows: bool = False
    shows: Sequence[str] = ()
    is_composed: bool = False
    of_shard: float | None = None
    lacks_states: bool = False
    value: float | None = None
    weight: float | None = None
    fed_in: int | None = None
    first_batch: float | None = None
    first_sample: float | None = None
    last_batch: float | None = None
    last_sample: float | None = None
    last_of: int | None = None
    names_devices: bool = False
    lacks_value: float = 0.0
    lacks_weight: float = 0.0
    suppressed: Sequence[str] = ()

    def to_payload(self) -> dict[str, Any]:
        """A form that JSON can hold, without what follows from the rest."""
        payload = to_payload(self)
        # without several dataloaders Lightning makes its key of these two
        if self.storage == f"{self.hook}.{self.name}":
            del payload["storage"]
        return payload

    @classmethod
    def from_payload(cls, message: dict[str, Any]) -> KeyFacts:
        """Read what ``to_payload`` wrote."""
        return cls(**{"storage": f"{message['hook']}.{message['name']}", **message})

    @property
    def shows_object(self) -> bool:
        """Whether it shows what a metric comes to at the end of the epoch."""
        return self.kind == "metric" or (self.kind == "compute" and not self.in_step)

    @property
    def rank_value(self) -> float | None:
        """The epoch value of this rank alone."""
        if self.value is None or self.reduction != "mean":
            return self.value
        return self.value / self.weight if self.weight else math.nan


@dataclass(frozen=True, kw_only=True)
class GroupFacts:
    """What a rank reports of any metric that was fed.

    Attributes:
        group: The ranks that it combines, where these are not all.
        suppressed: Codes and prefixes of rules that are ignored at its first update.
    """

    group: tuple[int, ...] | None = None
    suppressed: Sequence[str] = ()

    def to_payload(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return to_payload(self)

    @classmethod
    def from_payload(cls, message: dict[str, Any]) -> Self:
        """Read what ``to_payload`` wrote."""
        group = message.get("group")
        return cls(**{**message, "group": None if group is None else tuple(group)})


@dataclass(frozen=True)
class SourceFacts(GroupFacts, ForeignState):
    """What a rank reports of one metric besides its rows.

    Attributes:
        rows: The index of its rows among those that the rank reports.
        metric: Its class.
        path: The user's file of the first update.
        line: The line in it.
        synced_in_steps: How often ``compute()`` or ``forward()`` combined ranks within steps.
        synchronises: Whether the program lets it combine ranks.
        shown_by_forward: Whether values of its ``forward()`` are logged, so that it may never combine ranks.
        syncs_itself: Whether the program gave it a ``dist_sync_fn``, which may combine ranks or not.
        mean: Whether its value is a mean over queries.
        columns: The numbers in the value of one query; zero for a curve that is as long as the longest query.
    """

    rows: int
    metric: str
    path: str
    line: int
    synced_in_steps: int = 0
    synchronises: bool = True
    shown_by_forward: bool = False
    syncs_itself: bool = False
    mean: bool = True
    columns: int = 1


@dataclass(frozen=True)
class FlattenedCall:
    """A call of a functional retrieval metric with a batch of queries, which it scored as one.

    Attributes:
        function: Its name.
        shape: Of the scores, both sizes above one.
        hook: The Lightning hook that ran.
        path: The user's file.
        line: The line in it.
        suppressed: Codes and prefixes of rules that are ignored there.
        ranks: The ranks that report it; each rank leaves it empty.
    """

    function: str
    shape: tuple[int, int]
    hook: str
    path: str
    line: int
    suppressed: Sequence[str] = ()
    ranks: tuple[int, ...] = ()

    @property
    def target(self) -> str:
        """Its identity."""
        return f"{self.function}@{self.path}:{self.line}"


@dataclass(frozen=True)
class ComputeCall:
    """The first ``compute()`` of a metric outside of steps, in place of which the guard computed.

    Attributes:
        name: The metric, under the name that all ranks know.
        hook: The Lightning hook that ran.
        path: The user's file.
        line: The line in it.
        syncs: Whether it combines ranks.
        suppressed: Codes and prefixes of rules that are ignored there.
        ranks: The ranks that came; each rank leaves it empty.
    """

    name: str
    hook: str
    path: str
    line: int
    syncs: bool = False
    suppressed: Sequence[str] = ()
    ranks: tuple[int, ...] = ()

    @property
    def target(self) -> str:
        """Its identity."""
        return f"compute/{self.name}"


@dataclass(frozen=True)
class Unregistered:
    """What a rank reports of a metric outside of the module, or of those that one wrapper or collection holds.

    Attributes:
        name: Where it is held, such as ``metrics['mrr']``; its class where that is not known.
        metric: Its class.
        path: The user's file of the first update.
        line: The line in it.
        device: Where it is, if that is not where the module is; empty if it is.
        module_device: Where the module is, if that differs.
        moved: Whether the guard has brought it from ``device`` to where the module is.
        of_callback: Whether a callback holds it.
        storage: Lightning's key for a value of it.
        ranks: The ranks that report it; each rank leaves it empty.
    """

    name: str
    metric: str
    path: str
    line: int
    device: str = ""
    module_device: str = ""
    moved: bool = False
    of_callback: bool = False
    storage: str | None = None
    ranks: tuple[int, ...] = ()
