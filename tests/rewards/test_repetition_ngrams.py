"""N-grams as numbers, distinct-n and the diversity of a group, against the definitions written naively."""

import random
from typing import Any

import numpy as np
import pytest
import torch

from flux_rewards import ConfigError, InputError, RepetitionPenalty, Sample
from flux_rewards.rewards.text.diversity import GroupDiversity
from flux_rewards.rewards.text.ngrams import distinct, ngrams, repeated
from flux_rewards.rewards.text.repetition import DistinctNGrams
from flux_rewards.rewards.text.units import sequences_of
from flux_rewards.testing import reward_checks


def tuples(sequence: list[int], n: int) -> list[tuple[int, ...]]:
    """Every n-gram."""
    return [tuple(sequence[start : start + n]) for start in range(len(sequence) - n + 1)]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 16, 40])
@pytest.mark.parametrize("span", [(0, 1), (0, 3), (0, 150_000), (0, 2**40), (-3, 3), (2**62, 2**62 + 3)])
def test_numbers_are_equal_where_ngrams_are(n: int, span: tuple[int, int]) -> None:
    """For ids of any size: packed where they fit, numbered by halves where not."""
    generator = random.Random(n)
    for length in (0, 1, n - 1, n, n + 1, 120):
        pool = [generator.randrange(*span) for _ in range(4)]
        sequence = [generator.choice(pool) for _ in range(length)]
        codes = ngrams(np.array(sequence, dtype=np.int64), n).tolist()
        grams = tuples(sequence, n)
        assert len(codes) == len(grams)
        assert len(set(zip(codes, grams, strict=True))) == len(set(codes)) == len(set(grams))


def test_counts() -> None:
    """Different ones, and those that stood before."""
    codes = np.array([5, 1, 5, 5, 2])
    assert distinct(codes) == 3
    assert repeated(codes).tolist() == [False, False, True, True, False]
    assert distinct(np.zeros(0, dtype=np.int64)) == 0


def test_equals_trl() -> None:
    """The published formula as TRL computes it, on low-entropy and on varied ids."""
    rewards = pytest.importorskip("trl.rewards")
    generator = random.Random(0)
    batch = [[generator.randrange(size) for _ in range(300)] for size in (2, 5, 20, 1000, 150_000)] + [
        [],
        [1],
        [1, 1, 1],
    ]
    for n in (1, 2, 3, 6):
        expected = rewards.get_repetition_penalty_reward(n, -0.5)(batch)
        found = RepetitionPenalty(n, max_penalty=-0.5)([Sample(response="x", token_ids=ids) for ids in batch])
        np.testing.assert_allclose(found.rewards, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("words", 0.0),  # one word
        ("characters", -5 / 11),  # 11 bigrams; the five inside the second sentence stood before
    ],
)
def test_text_without_spaces_repeats_by_characters(unit: str, expected: float) -> None:
    """A sentence twice, with no space anywhere."""
    assert RepetitionPenalty(2, unit=unit)(response=["今天天气很好今天天气很好"]).rewards[0] == pytest.approx(expected)


def test_ids_may_be_a_tensor() -> None:
    """Trainers hold ids in tensors."""
    ids: Any = torch.tensor([1, 2, 3, 1, 2, 3])
    assert RepetitionPenalty()([Sample(response="x", token_ids=ids)]).rewards[0] == -0.25


@pytest.mark.parametrize("ids", [[1.5, 2, 3, 4], ["a", "b", "c"], [None, 1], np.array([0.5, 1.0]), [2**70, 1, 2]])
def test_ids_are_whole_numbers(ids: Any) -> None:
    """Anything else is an error of that sample, and nothing is cut to fit."""
    with pytest.raises(InputError, match="sample 1, field 'token_ids': expected whole numbers"):
        RepetitionPenalty()([Sample(response="x", token_ids=[1]), Sample(response="x", token_ids=ids)])


def test_lone_surrogates_are_characters() -> None:
    """A broken emoji fails nothing."""
    assert sequences_of([Sample(response="a\ud83da")], "characters")[0].tolist() == [97, 0xD83D, 97]


@pytest.mark.parametrize(
    ("parameters", "response", "expected"),
    [
        ({"n": 1}, "a a b", 2 / 3),
        ({"n": 2}, "to be or not to be", 0.8),
        ({"n": 2}, "To be to BE", 2 / 3),  # to-be, be-to, to-be
        ({"n": 3}, "one two", None),
        ({"n": 1}, "", None),
        ({"n": 1}, " \n", None),
        ({"n": 1, "unit": "characters"}, "aab", 2 / 3),
    ],
)
def test_distinct_n(parameters: dict[str, Any], response: str, expected: float | None) -> None:
    """Distinct n-grams / n-grams; None where there is none."""
    (score,) = DistinctNGrams(**parameters)(response=[response]).rewards
    assert np.isnan(score) if expected is None else score == pytest.approx(expected)


def jaccard_diversity(rows: list[list[int]], n: int) -> list[float | None]:
    """The definition, pair by pair."""
    sets = [set(tuples(row, n)) or {tuple(row)} if row else set() for row in rows]
    scores: list[float | None] = []
    for own in range(len(rows)):
        others = [sets[other] for other in range(len(rows)) if other != own and rows[other]]
        alike = [len(sets[own] & other) / len(sets[own] | other) for other in others] if rows[own] else []
        scores.append(1 - sum(alike) / len(alike) if alike else None)
    return scores


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_group_diversity_is_the_mean_of_pairs(n: int) -> None:
    """1 - the mean Jaccard index with the others; short, empty and equal responses among them."""
    generator = random.Random(n)
    rows = [[generator.randrange(6) for _ in range(length)] for length in (0, 1, 1, 2, 8, 8, 30, 30, 200)]
    rows += [rows[-1], rows[4], [3]]
    samples = [Sample(response="x", token_ids=row, group_id=0) for row in rows]
    expected = np.array(jaccard_diversity(rows, n), dtype=np.float64)
    np.testing.assert_allclose(GroupDiversity(n)(samples).rewards, expected, atol=1e-12)


def test_group_diversity_of_a_large_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces the same as at once."""
    generator = random.Random(1)
    samples = [
        Sample(response="x", token_ids=[generator.randrange(300) for _ in range(500)], group_id=0) for _ in range(12)
    ]
    whole = GroupDiversity(1)(samples).rewards
    monkeypatch.setattr("flux_rewards.rewards.text.diversity._CELLS", 100)
    np.testing.assert_allclose(GroupDiversity(1)(samples).rewards, whole, rtol=1e-14)


def test_group_diversity_compares_within_the_group() -> None:
    """Groups by prompt; one alone has nothing to differ from."""
    prompts, responses = ["q", "r", "q", "s"], ["a b c", "a b c", "a b c", "d e f"]
    rewards = GroupDiversity()(prompt=prompts, response=responses).rewards
    assert rewards[[0, 2]].tolist() == [0.0, 0.0]
    assert np.isnan(rewards[[1, 3]]).all()


def test_group_diversity_counts_words_where_one_has_no_ids() -> None:
    """Ids of some are not compared with words of others."""
    samples = [Sample("q", "a b", token_ids=[0, 1]), Sample("q", "b c")]
    assert GroupDiversity(1)(samples).rewards == pytest.approx([2 / 3, 2 / 3])


@pytest.mark.parametrize("kind", [DistinctNGrams, GroupDiversity])
def test_impossible_parameters(kind: Any) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match="n must be a whole number >= 1, found 0"):
        kind(0)
    with pytest.raises(ConfigError, match="unit must be one of auto, tokens, words, characters, found 'word'"):
        kind(unit="word")


@pytest.mark.parametrize(
    "check",
    [
        check
        for reward in (DistinctNGrams(), GroupDiversity(unit="characters"), RepetitionPenalty(2, unit="words"))
        for check in reward_checks(reward)
    ],
    ids=str,
)
def test_contract(check: Any) -> None:
    """What holds for every reward."""
    check()
