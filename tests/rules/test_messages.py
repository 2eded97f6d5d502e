"""Every rule's message is tested whole, from its code to its fix."""

import re
from pathlib import Path

import pytest

from lightning_retrieval_guard.rules import REGISTRY, Rule

# LRG9xx are about the guard itself; test_messages.py and test_suppression.py of tests/lifecycle have them whole.
AT_LOG_CALLS = [rule for code, rule in REGISTRY.items() if not code.startswith("LRG9")]


@pytest.mark.parametrize("rule", AT_LOG_CALLS, ids=lambda rule: rule.code)
def test_a_test_holds_the_whole_message(rule: Rule) -> None:
    tests = Path(__file__).with_name(f"test_{rule.code.lower()}.py").read_text(encoding="utf-8")
    assert re.search(rf'==\s+\(?\s*f?"{rule.code} {rule.slug}: ', tests)
