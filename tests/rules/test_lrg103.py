"""Lightning took a leading size that is not the number of samples."""

import pytest

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity

from .factories import findings_of, stage, steps, the_finding

TOKENS = ((137, 4), (8,))


def test_a_wrong_guess_names_both_numbers() -> None:
    key_facts = steps((1.0, 8, 24), (2.0, 8, 8), given=False, shapes=TOKENS)
    finding = the_finding("LRG103", stage(KeyView((key_facts,))))
    assert finding.severity is Severity.WARNING
    assert (finding.effect.logged, finding.effect.reference) == (1.25, 1.5)
    assert finding.text() == (
        "LRG103 guessed-batch-size: 'val_loss' is logged without batch_size; Lightning took a leading size from the"
        " batch, which is not the number of samples. Logged 1.2500, reference 1.5000."
        " Pass batch_size, or give the guard a batch_size_fn."
    )


def test_a_wrong_guess_without_effect_is_a_note() -> None:
    key_facts = steps((1.0, 8, 24), (1.0, 8, 8), given=False, shapes=TOKENS)
    assert the_finding("LRG103", stage(KeyView((key_facts,)))).severity is Severity.NOTE


def test_an_unknown_size_is_a_note_without_numbers() -> None:
    key_facts = steps((1.0, None, 137), (2.0, None, 41), given=False, shapes=TOKENS)
    finding = the_finding("LRG103", stage(KeyView((key_facts, key_facts))))
    assert finding.severity is Severity.NOTE
    assert finding.effect is None
    assert finding.ranks == (0, 1)
    assert finding.text() == (
        "LRG103 guessed-batch-size: 'val_loss' is logged without batch_size; the tensors in the batch disagree in"
        " their leading sizes, and Lightning took the first. Nothing tells whether that is the number of samples."
        " Pass batch_size, or give the guard a batch_size_fn."
    )


@pytest.mark.parametrize(
    "key_facts",
    [
        steps((1.0, 8, 8), (2.0, 3, 3), given=False, shapes=TOKENS),  # the first leading size is right
        steps((1.0, None, 137), (2.0, None, 41), given=True, shapes=TOKENS),  # the user's own number
        steps((1.0, 8, 24), (2.0, 8, 8), given=True, shapes=TOKENS),
        steps((1.0, None, 8), given=False, shapes=((8, 3), (8,))),  # the tensors agree
        steps((1.0, 8, 24), given=False, shapes=TOKENS, reduction="sum"),
        steps((1.0, None, 137), given=False, shapes=TOKENS, rank_zero_only=True),
    ],
    ids=["right-guess", "own-unknown", "own", "agree", "sum", "rank-zero-only"],
)
def test_right_programs_are_silent(key_facts) -> None:
    assert not findings_of("LRG103", stage(KeyView((key_facts,))))
