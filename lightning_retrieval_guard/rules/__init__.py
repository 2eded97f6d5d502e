"""Judging: one file a rule, the registry of all rules, and the verdict on a document."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_retrieval_guard.rules.base import Correction, Rule
from lightning_retrieval_guard.rules.lrg101_batch_size_times_world_size import BatchSizeTimesWorldSize
from lightning_retrieval_guard.rules.lrg102_constant_batch_size import ConstantBatchSize
from lightning_retrieval_guard.rules.lrg103_guessed_batch_size import GuessedBatchSize
from lightning_retrieval_guard.rules.lrg104_floored_batch_size import FlooredBatchSize
from lightning_retrieval_guard.rules.lrg201_gathered_before_sync import GatheredBeforeSync
from lightning_retrieval_guard.rules.lrg202_synced_twice import SyncedTwice
from lightning_retrieval_guard.rules.lrg203_never_synced import NeverSynced
from lightning_retrieval_guard.rules.lrg204_rank_zero_sync import RankZeroSync
from lightning_retrieval_guard.rules.lrg205_uneven_updates import UnevenUpdates
from lightning_retrieval_guard.rules.lrg206_keys_differ import KeysDiffer
from lightning_retrieval_guard.rules.lrg207_sync_in_step import SyncInStep
from lightning_retrieval_guard.rules.lrg301_restarting_query_ids import RestartingQueryIds
from lightning_retrieval_guard.rules.lrg302_mean_of_batches import MeanOfBatches
from lightning_retrieval_guard.rules.lrg303_non_positive_scores import NonPositiveScores
from lightning_retrieval_guard.rules.lrg304_tied_scores import TiedScores
from lightning_retrieval_guard.rules.lrg305_candidates_of_one_shard import CandidatesOfOneShard
from lightning_retrieval_guard.rules.lrg306_batch_as_one_query import BatchAsOneQuery
from lightning_retrieval_guard.rules.lrg401_stale_state import StaleState
from lightning_retrieval_guard.rules.lrg402_running_value import RunningValue
from lightning_retrieval_guard.rules.lrg403_padded_samples import PaddedSamples
from lightning_retrieval_guard.rules.lrg404_shared_metric import SharedMetric
from lightning_retrieval_guard.rules.lrg405_unregistered_metric import UnregisteredMetric
from lightning_retrieval_guard.rules.lrg406_merged_compute_group import MergedComputeGroup
from lightning_retrieval_guard.rules.lrg501_implausible_value import ImplausibleValue
from lightning_retrieval_guard.rules.lrg901_guard_disabled import GuardDisabled
from lightning_retrieval_guard.rules.lrg902_unused_suppression import UnusedSuppression

__all__ = ["REGISTRY", "Rule", "codes_of", "judge"]

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView
    from lightning_retrieval_guard.findings import Finding

REGISTRY: dict[str, Rule] = {
    rule.code: rule
    for rule in (
        BatchSizeTimesWorldSize(),
        ConstantBatchSize(),
        GuessedBatchSize(),
        FlooredBatchSize(),
        GatheredBeforeSync(),
        SyncedTwice(),
        NeverSynced(),
        RankZeroSync(),
        UnevenUpdates(),
        KeysDiffer(),
        SyncInStep(),
        RestartingQueryIds(),
        MeanOfBatches(),
        NonPositiveScores(),
        TiedScores(),
        CandidatesOfOneShard(),
        BatchAsOneQuery(),
        StaleState(),
        RunningValue(),
        PaddedSamples(),
        SharedMetric(),
        UnregisteredMetric(),
        MergedComputeGroup(),
        ImplausibleValue(),
        GuardDisabled(),
        UnusedSuppression(),
    )
}


def judge(epoch: EpochView) -> list[Finding]:
    """What all rules find in a document, ignored or not."""
    findings = [finding for rule in REGISTRY.values() if not rule.spec.follows_others for finding in rule.check(epoch)]
    explained = frozenset(text for finding in findings if finding.is_serious for text in (finding.target, finding.key))
    # a rule that looks for the rest must know what the others have explained
    rest = replace(epoch, explained=explained)
    findings += [finding for rule in REGISTRY.values() if rule.spec.follows_others for finding in rule.check(rest)]
    return findings


def codes_of(correction: Correction) -> list[str]:
    """The rules that declare a correction."""
    return [code for code, rule in REGISTRY.items() if rule.spec.corrects == correction]
