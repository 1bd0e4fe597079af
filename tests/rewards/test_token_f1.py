"""TokenF1 against the rule of the SQuAD 2.0 script, written out."""

import random
import re
import string
from collections import Counter

import pytest

from flux_rewards import ConfigError, InputError
from flux_rewards.rewards.text.token_f1 import TokenF1


def squad_f1(response: str, reference: str) -> float:
    """The definition: lower case, no punctuation, no articles, then the words in common."""

    def words(text: str) -> list[str]:
        letters = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        return [word for word in re.split(r"\s+", re.sub(r"\b(a|an|the)\b", " ", letters)) if word]

    given, wanted = words(response), words(reference)
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    if not common:
        return 0.0
    precision, recall = common / len(given), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def test_equals_the_published_rule() -> None:
    """On random answers, against one and against several references."""
    generator = random.Random(0)
    words = ["the", "The", "a", "an", "cat", "cat.", "cat's", "Dog", "dog", "3.5", "35", "été", "-", "theatre"]
    texts = [" ".join(generator.choices(words, k=generator.randrange(7))) for _ in range(400)]
    references = [generator.choices(texts, k=generator.randrange(1, 4)) for _ in texts]
    expected = [
        max(squad_f1(text, reference) for reference in several) for text, several in zip(texts, references, strict=True)
    ]
    assert TokenF1()(response=texts, reference=references).rewards.tolist() == pytest.approx(expected, abs=1e-12)


def test_what_is_behind_the_score() -> None:
    """Precision and recall against the best reference."""
    batch = TokenF1()(response=["cat dog"], reference=[["bird", "cat"]])
    assert batch.metadata == [{"precision": 0.5, "recall": 1.0}]


def test_impossible_parameters_and_references() -> None:
    """Named when the reward is built, and by the sample."""
    with pytest.raises(ConfigError, match="unit must be one of words, characters, found 'tokens'"):
        TokenF1(unit="tokens")
    with pytest.raises(ConfigError, match=r"part must be one of .*answer"):
        TokenF1(part="answers")
    with pytest.raises(InputError, match="'TokenF1', sample 1, field 'reference'"):
        TokenF1()(response=["a", "a"], reference=["a", {}])
