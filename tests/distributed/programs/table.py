"""Every program of the matrix: its name, what it is, what is to be found, and on which world sizes."""

from __future__ import annotations

from . import averages, calls, gathered, ids, metric_collections, padded, right, shards, uneven, weights
from .base import ComputedAtEnd, Entry, ObjectLogged, wrong

WRONG: dict[str, Entry] = {
    "gathered-times-world-size": wrong(gathered.TimesWorldSize, "LRG201", advice=frozenset({"LRG101"})),
    "gathered-per-device": wrong(gathered.PerDevice, "LRG201"),
    "gathered-no-batch-size": wrong(gathered.NoBatchSize, "LRG201"),
    "gathered-object": wrong(gathered.GatheredObject, "LRG201", right=ObjectLogged),
    "gathered-compute": wrong(gathered.GatheredCompute, "LRG201", right=ComputedAtEnd),
    "sampler-off": wrong(gathered.SamplerOff, "LRG201", right=ObjectLogged),
    "forward": wrong(shards.Forward, "LRG203"),
    "sync-off": wrong(shards.SyncOff, "LRG203", right=ObjectLogged),
    "sync-off-every": wrong(shards.SyncOffEvery, "LRG203", right=right.EveryObject, worlds=(2,)),
    "fed-at-end": wrong(shards.FedAtEnd, "LRG203", right=ObjectLogged),
    "plain-tensor": wrong(shards.PlainTensor, "LRG203", right=weights.TrueSize),
    "plain-number": wrong(shards.PlainNumber, "LRG203", right=weights.TrueSize),
    "plain-at-end": wrong(shards.PlainAtEnd, "LRG203", right=weights.TrueSize, ambiguous=True),
    "uneven-object": wrong(uneven.UnevenObject, "LRG205", fails=True),
    "uneven-compute": wrong(uneven.UnevenCompute, "LRG205", fails=True),
    "conditional-object": wrong(uneven.ConditionalObject, "LRG205", fails=True),
    "none-object": wrong(uneven.NoneObject, "LRG205", fails=True),
    "none-compute": wrong(uneven.NoneCompute, "LRG205", fails=True),
    "arange-object": wrong(ids.ArangeObject, "LRG301", on=(1, 2, 3), right=ids.DatasetIdsObject),
    "arange-compute": wrong(ids.ArangeCompute, "LRG301", on=(1, 2, 3), right=ids.DatasetIdsObject),
    "arange-in-step": wrong(ids.ArangeInStep, "LRG301", right=ids.DatasetIdsMeans),
    "counted-on-rank": wrong(ids.CountedOnRank, "LRG301", right=ids.DatasetIdsObject),
    "spanning-forward": wrong(averages.SpanningForward, "LRG302", on=(1, 2, 3), right=averages.SpanningObject),
    "no-mean-forward": wrong(averages.NoMeanForward, "LRG302", on=(1, 2, 3), right=averages.NoMeanObject),
    "class-forward": wrong(averages.ClassForward, "LRG302", on=(1, 2, 3), right=averages.ClassObject, asks=True),
    "class-running": wrong(averages.ClassRunning, "LRG402", on=(1, 2, 3), right=averages.ClassRunningObject, asks=True),
    "running-value": wrong(calls.RunningValue, "LRG402", on=(1, 2, 3), right=ObjectLogged),
    "collection-sync-off": wrong(metric_collections.SyncOffCollection, "LRG203", right=metric_collections.Collection),
    "collection-gathered": wrong(metric_collections.GatheredCollection, "LRG201", right=metric_collections.Collection),
    "collection-arange": wrong(
        metric_collections.ArangeCollection, "LRG301", on=(1, 2, 3), right=metric_collections.Collection
    ),
    "arange-ignored": wrong(ids.ArangeIgnored, "LRG301", on=(1, 2, 3), right=ids.DatasetIdsObject),
    "padded-object": wrong(padded.PaddedObject, "LRG403"),
    "padded-compute": wrong(padded.PaddedCompute, "LRG403"),
    "padded-rows": wrong(padded.PaddedRows, "LRG403"),
    "padded-rows-compute": wrong(padded.PaddedRowsCompute, "LRG403"),
    "nominal-times-world-size": wrong(
        weights.NominalTimesWorldSize, "LRG101", right=weights.TrueSize, also={1: frozenset({"LRG102"})}
    ),
    "nominal-times-world-size-inline": wrong(
        weights.NominalTimesWorldSizeInline, "LRG101", right=weights.TrueSize, also={1: frozenset({"LRG102"})}
    ),
    "global-constant": wrong(weights.GlobalConstant, "LRG101", right=weights.TrueSize, also={1: frozenset({"LRG102"})}),
    "nominal": wrong(weights.Nominal, "LRG102", on=(1, 2, 3), right=weights.TrueSize),
    "guessed": wrong(weights.Guessed, "LRG103", on=(1, 2, 3), right=weights.Told),
    "floored": wrong(weights.Floored, "LRG104"),
    "floored-inferred": wrong(weights.FlooredInferred, "LRG104"),
    "synced-twice": wrong(calls.SyncedTwice, "LRG202", right=ComputedAtEnd),
    "rank-zero-sync": wrong(calls.RankZeroSync, "LRG204", right=weights.TrueSize),
    "opposite-order": wrong(calls.OppositeOrder, "LRG206"),
}

NOTE_IN_STEP = frozenset({"LRG207"})
RIGHT: dict[str, Entry] = {
    "object": Entry(ObjectLogged),
    "object-every": Entry(right.EveryObject, worlds=(2,)),
    "object-error": Entry(right.ErrorObject),
    "compute": Entry(ComputedAtEnd, right=ObjectLogged),
    "split-rows": Entry(right.SplitRows),
    "split-rows-compute": Entry(right.SplitRowsCompute),
    "corpus": Entry(right.CorpusObject),
    "corpus-compute": Entry(right.CorpusCompute),
    "corpus-square": Entry(right.SquareCorpus),
    "token-weights": Entry(weights.TokenWeights),
    "two-views": Entry(right.TwoViews),
    "stacked-views": Entry(right.StackedViews),
    "synced-compute": Entry(right.SyncedCompute, right=ComputedAtEnd, notes=frozenset({"LRG202"})),
    "gathered-at-end": Entry(right.GatheredAtEnd, right=ObjectLogged),
    "reset-at-start": Entry(right.ResetAtStart, right=ObjectLogged),
    "on-step": Entry(right.OnStep),
    "forward-synced": Entry(right.ForwardSynced),
    "made-in-step": Entry(right.MadeInStep),
    "made-in-step-synced": Entry(right.MadeInStepSynced, notes=NOTE_IN_STEP),
    "sync-off-averaged": Entry(right.SyncOffAveraged),
    "functional": Entry(right.Functional),
    "collection": Entry(metric_collections.Collection),
    "collection-compute": Entry(metric_collections.CollectionCompute),
    "repeated-queries": Entry(right.RepeatedQueries),
    "ignored-rows": Entry(right.Ignored, right=ObjectLogged),
    "graded": Entry(right.Graded),
    "sum-states": Entry(right.SumStates),
    "sum-states-compute": Entry(right.SumStatesCompute),
    "sum-states-forward": Entry(right.SumStatesForward, right=right.SumStates),
    "loss": Entry(right.SyncedLoss, right=weights.TrueSize),
    "same-on-every-rank": Entry(right.SameOnEveryRank),
    "gathered-in-step": Entry(right.GatheredInStep, right=weights.TrueSize),
    "reductions": Entry(right.Reductions),
    "float-weights": Entry(right.FloatWeights),
    "uneven-sum-states": Entry(right.UnevenSumStates),
    "computed-in-step": Entry(calls.ComputedInStep, notes=NOTE_IN_STEP),
    "sync-on-step": Entry(calls.SyncOnStep, notes=NOTE_IN_STEP),
    "true-times-world-size": Entry(weights.TrueTimesWorldSize, right=weights.TrueSize, advice=frozenset({"LRG101"})),
}

# With tests of their own.
OTHERS: dict[str, Entry] = {
    "missing-key": Entry(calls.MissingKey),
    "empty-queries": Entry(calls.EmptyQueries),
}

PROGRAMS: dict[str, Entry] = WRONG | RIGHT
EVERY: dict[str, Entry] = PROGRAMS | OTHERS
