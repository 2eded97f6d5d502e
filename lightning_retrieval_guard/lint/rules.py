"""Every rule, on all that was seen of a class."""

from __future__ import annotations

from lightning_retrieval_guard.lint import log_rules, metric_rules
from lightning_retrieval_guard.lint.events import Story
from lightning_retrieval_guard.lint.finding import Found, rows_of
from lightning_retrieval_guard.lint.values import Origin, origin_of
from lightning_retrieval_guard.rules import static as advice


def judge(story: Story) -> list[Found]:
    """All findings of one class."""
    found = [own for rule in (*log_rules.RULES, *metric_rules.RULES) for own in rule(story)]
    codes = {own.advice.code for own in found}
    gathers = any(Origin.GATHERED in origin_of(value) for event in story.of("feed") for value in rows_of(event))
    if gathers and "LRG201" not in codes:
        found = [own for own in found if own.advice is not advice.LRG101]
    return [own for own in found if not any(own.module.asks_for_devices(one) for one in own.functions)]
