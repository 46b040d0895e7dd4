from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests.campaigns import maxtext_logits

_REFERENCE = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32))
_OTHER = np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.1, 0.8]], np.float32))


def test_the_divergence_is_that_of_the_distributions_and_no_constant_changes_it() -> None:
    expected = 0.5 * np.log(2) - 0.25 * np.log(2)
    assert maxtext_logits.kl_divergence(_REFERENCE, _OTHER + 7) == pytest.approx([expected, 0.0], abs=1e-6)


def test_a_flip_is_counted_with_how_far_it_lies_from_a_tie() -> None:
    row = maxtext_logits.compare(_REFERENCE, _OTHER)
    assert row["argmax_agreement"] == 0.5
    assert row["max_flipped_margin"] == pytest.approx(np.log(2), abs=1e-6)
    assert row["max_abs_diff"] == pytest.approx(np.log(2), abs=1e-6)


def test_rows_that_one_side_adds_to_the_vocabulary_are_left_out() -> None:
    padded = np.concatenate([_REFERENCE, np.full((2, 4), 9, np.float32)], axis=1)
    row = maxtext_logits.compare(_REFERENCE, padded)
    assert (row["vocab_compared"], row["max_kl"], row["argmax_agreement"]) == (3, 0.0, 1.0)


@pytest.mark.parametrize("values", [_OTHER, np.where(_REFERENCE > -1, np.nan, _REFERENCE).astype(np.float32)])
def test_one_flip_or_one_nan_is_a_failure(values: maxtext_logits.Logits) -> None:
    good, bad = maxtext_logits.compare(_REFERENCE, _REFERENCE), maxtext_logits.compare(_REFERENCE, values)
    assert maxtext_logits.summarise({"training": [good]}, max_kl=1e-5)["passed"] is True
    assert maxtext_logits.summarise({"training": [good, bad]}, max_kl=10.0)["passed"] is False


def test_logits_of_other_tokens_are_refused(tmp_path: pathlib.Path) -> None:
    tokens = maxtext_logits.make_tokens(96, [4, 7], seed=1)
    logits = [np.zeros((len(ids), 96), np.float32) for ids in tokens]
    maxtext_logits.save_logits(tmp_path / "hf.npz", tokens, logits, folded_query=False)
    assert len(maxtext_logits.load_logits(tmp_path / "hf.npz", tokens, folded_query=False)) == 2
    for other, folded in ((maxtext_logits.make_tokens(96, [4, 7], seed=2), False), (tokens, True)):
        with pytest.raises(ValueError, match="was written with another"):
            maxtext_logits.load_logits(tmp_path / "hf.npz", other, folded)
