"""What is found in preference pairs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from flux_rewards import Sample
from flux_rewards.errors import ConfigError
from flux_rewards.training.checks import check_preferences
from flux_rewards.training.preferences import PreferencePair

PAIRS = [
    PreferencePair("one", "aaaa", "bb", metadata={"set": "x"}),
    PreferencePair("one", "aaaa", "bb", metadata={"set": "y"}),
    PreferencePair("ONE ", "bb", "aaaa", metadata={"set": "x"}),
    PreferencePair("two", "same", "same", metadata={"set": "x"}),
    PreferencePair(None, "c" * 10, "d", metadata={"set": "x"}),
    PreferencePair("other prompt", "aaaa", "bb", metadata={"set": "x"}),
]


def test_what_is_found() -> None:
    """Positions of each kind, worked out by hand."""
    found = check_preferences(PAIRS, by="metadata.set", max_length=10)
    assert (found.pairs, found.prompts) == (6, 3)
    assert found.duplicates == (1,)
    assert found.contradictions == ((0, 2),)
    assert found.identical == (3,)
    assert found.without_prompt == (4,)
    assert found.too_long == (5,)
    assert found.classes == {"x": 5, "y": 1}
    assert found.problems == {
        "identical": 1,
        "duplicates": 1,
        "contradictions": 1,
        "too_long": 1,
        "without_prompt": 1,
    }


def test_the_bias_of_lengths() -> None:
    """Shares by counting; Cohen's d as Cohen (1988) has it, with the pooled standard deviation."""
    found = check_preferences(PAIRS).length
    assert found is not None
    assert (found.unit, found.pairs, found.longer, found.shorter) == ("characters", 6, 4, 1)
    assert found.share_longer == 0.8
    chosen, rejected = np.array([4, 4, 2, 4, 10, 4]), np.array([2, 2, 4, 4, 1, 2])
    pooled = np.sqrt((chosen.var(ddof=1) * 5 + rejected.var(ddof=1) * 5) / 10)
    assert found.cohens_d == pytest.approx((chosen.mean() - rejected.mean()) / pooled)
    assert [found.mean_chosen, found.mean_rejected] == pytest.approx([28 / 6, 15 / 6])


@pytest.mark.parametrize(
    "tokenizer", [lambda text: len(text.split()), lambda text: {"input_ids": text.split(), "attention_mask": []}]
)
def test_lengths_in_tokens(tokenizer: Any) -> None:
    """A tokenizer, or a function to a length; prompt and answer together are what is too long."""
    pairs = [
        PreferencePair("a b", [{"role": "assistant", "content": "c d e"}], [{"role": "assistant", "content": "f"}])
    ]
    assert check_preferences(pairs, max_length=5, tokenizer=tokenizer).too_long == ()
    found = check_preferences(pairs, max_length=4, tokenizer=tokenizer)
    assert found.too_long == (0,)
    assert found.length is not None
    assert (found.length.unit, found.length.mean_chosen, found.length.cohens_d) == ("tokens", 3.0, None)


@pytest.mark.slow
def test_a_real_tokenizer_is_one() -> None:
    """A fast tokenizer of transformers measures."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")  # noqa: S106
    found = check_preferences([PreferencePair("a b", "c d e", "f")], tokenizer=tokenizer)
    assert found.length is not None
    assert (found.length.mean_chosen, found.length.mean_rejected) == (3.0, 1.0)


def test_media_have_no_length() -> None:
    """Pairs of images are checked for all else."""
    same = Sample(image=np.zeros((2, 2, 3), dtype=np.uint8))
    found = check_preferences([PreferencePair("a cat", same, Sample(image=same.image.copy()))], max_length=3)
    assert (found.length, found.identical, found.too_long) == (None, (0,), ())
    assert "identical answers  1 (100.0%)" in str(found)


def test_the_report_is_text_and_json() -> None:
    """A table with a line a check, and plain data."""
    found = check_preferences(PAIRS, by="metadata.set", max_length=10)
    lines = str(found).splitlines()
    assert len({len(line) for line in lines[1:6]}) == 1
    assert lines[7].split() == ["longer", "than", "10", "characters", "1", "(16.7%)"]
    assert json.loads(json.dumps(found.to_dict()))["length"]["share_longer"] == 0.8


def test_no_pairs() -> None:
    """An empty set has nothing to find."""
    found = check_preferences([])
    assert (found.pairs, found.length, found.problems) == (0, None, {})
    assert str(found)


@pytest.mark.parametrize("options", [{"max_length": 0}, {"tokenizer": str.split}])
def test_bad_options(options: dict[str, Any]) -> None:
    """A limit is positive, and a tokenizer gives a length."""
    with pytest.raises(ConfigError):
        check_preferences(PAIRS, **options)
