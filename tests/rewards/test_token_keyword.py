"""TokenKeywordReward: characters of a response, and the tokens that cover them."""

import re
from typing import Any

import numpy as np
import pytest

from flux_rewards import ConfigError, InputError, Sample, TokenKeywordReward

TEXT = "maybe because concatenate"


def sample(text: Any, offsets: Any) -> Sample:
    """A sample with one id for each offset."""
    return Sample(response=text, token_ids=list(range(len(offsets))), token_offsets=offsets)


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        # maybe | _bec | ause | _concatenate
        ([(0, 5), (5, 9), (9, 13), (13, 25)], [-1, 1, 1, 0]),
        # spaces of their own: touching is not overlapping
        ([(0, 5), (5, 6), (6, 13), (13, 14), (14, 25)], [-1, 0, 1, 0, 0]),
        # special tokens, and a token of both
        ([(0, 0), (0, 7), (7, 13), (13, 25), (0, 0)], [0, 0, 1, 0, 0]),
        # several tokens on one character, as bytes of it
        ([(0, 1), (0, 1), (8, 9), (8, 9)], [-1, -1, 1, 1]),
        # an empty span inside a keyword
        ([(8, 8), (25, 25)], [0, 0]),
    ],
)
def test_tokens_that_overlap(offsets: list[tuple[int, int]], expected: list[float]) -> None:
    """+1 where a token shares a character with a good keyword, -1 with a bad one; the reward is the mean."""
    row = TokenKeywordReward(["because", "cat"], ["maybe"])([sample(TEXT, offsets)])[0]
    assert row.token_rewards is not None
    assert list(row.token_rewards) == expected
    assert row.reward == pytest.approx(sum(expected) / len(expected))


def test_weights_and_counts() -> None:
    """Values are the weights; the metadata count tokens."""
    reward = TokenKeywordReward(["because"], ["maybe"], good_weight=0.5, bad_weight=-2.0)
    row = reward([sample(TEXT, [(0, 7), (7, 13), (13, 25)])])[0]
    assert row.token_rewards is not None
    assert list(row.token_rewards) == [-1.5, 0.5, 0.0]
    assert row.metadata == {"good": 2, "bad": 1}


def test_each_occurrence_counts() -> None:
    """Unlike the keyword reward of a whole response."""
    row = TokenKeywordReward(["ja"])([sample("ja nein ja", [(0, 2), (2, 7), (7, 10)])])[0]
    assert row.token_rewards is not None
    assert list(row.token_rewards) == [1.0, 0.0, 1.0]


def test_a_repetition_earns_nothing_where_asked() -> None:
    """The first of each good keyword is paid; bad ones count each time."""
    reward = TokenKeywordReward(["ja", "doch"], ["hm"], occurrences="first")
    row = reward([sample("ja ja hm doch hm ja", [(0, 2), (2, 5), (5, 8), (8, 13), (13, 16), (16, 19)])])[0]
    assert row.token_rewards is not None
    assert list(row.token_rewards) == [1.0, 0.0, -1.0, 1.0, -1.0, 0.0]
    assert row.reward == 0.0


def test_offsets_count_characters() -> None:
    """Not bytes, also where a letter has no lower case of the same length."""
    row = TokenKeywordReward(["猫"])([sample("İ🙂小猫", [(0, 1), (1, 2), (2, 3), (3, 4)])])[0]
    assert row.token_rewards is not None
    assert list(row.token_rewards) == [0.0, 0.0, 0.0, 1.0]


def test_offsets_may_be_an_array() -> None:
    """As tokenizers return them for tensors."""
    offsets = np.array([[0, 5], [5, 13]])
    row = TokenKeywordReward(["because"])([sample(TEXT, offsets)])[0]
    assert row.reward == 0.5


def test_a_conversation_is_judged_by_its_last_answer() -> None:
    """Offsets are those of the text that is judged."""
    said = [{"role": "assistant", "content": "maybe"}, {"role": "assistant", "content": "because"}]
    assert TokenKeywordReward(["because"], ["maybe"])([sample(said, [(0, 7)])]).rewards[0] == 1.0


def test_no_tokens_no_reward() -> None:
    """It does not apply, which is not 0."""
    batch = TokenKeywordReward(["because"])([sample("", []), sample("because", [(0, 7)])])
    assert batch.not_applicable.tolist() == [True, False]


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([(0, 5), (5, 26)], "0 <= start <= end <= 25, the length of the response, found (5, 26) for token 1"),
        ([(0, 5), (-1, 6)], "found (-1, 6) for token 1"),
        ([(0, 5), (6, 5)], "found (6, 5) for token 1"),
        ([(0, 5)], "one (start, end) for each of the 2 token_ids, found 1"),
        ([(0, 5), (5,)], "a (start, end) pair of whole numbers"),
        ([(0, 5), (5, 6.5)], "a (start, end) pair of whole numbers"),
        ([0, 5], "a (start, end) pair of whole numbers"),
        ([(0, 5), None], "a (start, end) pair of whole numbers"),
    ],
)
def test_offsets_that_are_none(offsets: Any, message: str) -> None:
    """Named with the field, the sample and what was found."""
    bad = Sample(response=TEXT, token_ids=[1, 2], token_offsets=offsets)
    with pytest.raises(InputError, match="sample 1, field 'token_offsets'.*" + re.escape(message)):
        TokenKeywordReward(["because"])([sample(TEXT, [(0, 5)]), bad])


@pytest.mark.parametrize("missing", ["response", "token_ids", "token_offsets"])
def test_missing_field(missing: str) -> None:
    """All three are needed."""
    columns: dict[str, Any] = {"response": ["a"], "token_ids": [[1]], "token_offsets": [[(0, 1)]]}
    del columns[missing]
    with pytest.raises(InputError, match=f"sample 0, field '{missing}'"):
        TokenKeywordReward(["because"])(**columns)


@pytest.mark.parametrize(
    ("parameters", "bounds"),
    [
        ({"good": ["a"], "bad": ["b"]}, (-1.0, 1.0)),
        ({"good": ["a"]}, (0.0, 1.0)),
        ({"bad": ["a"], "bad_weight": -3.0}, (-3.0, 0.0)),
        ({"good": ["a"], "bad": ["b"], "bad_weight": 0.5}, (0.0, 1.5)),
        ({"good": ["a"], "bad": ["b"], "scale": 0.5}, (-0.5, 0.5)),
    ],
)
def test_bounds(parameters: dict[str, Any], bounds: tuple[float, float]) -> None:
    """What the weights can add up to, on one token and on average."""
    assert TokenKeywordReward(**parameters).bounds == bounds


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "at least one keyword"),
        ({"good": ["a"], "bad": ["a"]}, "'a' is in good and in bad"),
        ({"good": ["a"], "occurrences": "once"}, "occurrences must be one of all, first, found 'once'"),
        ({"good": ["a"], "good_weight": "1"}, "good_weight must be a finite number, found '1'"),
    ],
)
def test_impossible_parameters(parameters: dict[str, Any], message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        TokenKeywordReward(**parameters)
