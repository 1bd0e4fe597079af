"""KeywordReward, and what an occurrence of a keyword is."""

from typing import Any

import pytest

from flux_rewards import ConfigError, KeywordReward
from flux_rewards.rewards.text.words import Keywords


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("cat", "a cat.", True),
        ("cat", "CAT", True),
        ("cat", "concatenate", False),
        ("cat", "cats", False),
        ("cat", "bobcat", False),
        ("cat", "cat_5 cat5", False),
        ("cat", "the cat's, cat-like", True),
        ("cat", "(cat)", True),
        ("C++", "I like C++.", True),
        ("C++", "in C++11", True),
        ("C++", "objC++", False),
        ("C", "I like C++.", True),
        (".NET", "ASP.NET", True),
        (".NET", ".NETs", False),
        ("!", "Hello!", True),
        ("as an AI", "As  an\nAI model", True),
        ("as an AI", "as an AIR", False),
        ("5", "15", False),
        ("5", "1.5", True),
        ("猫", "小猫在睡觉", True),
        ("ねこ", "かわいいねこです", True),
        ("cat", "我的cat很可爱", True),
        ("แมว", "ฉันรักแมวมาก", True),
        ("고양이", "고양이 밥", True),
        ("고양이", "고양이가", False),
        ("straße", "DIE STRAßE", True),
        ("é", "café", False),
        ("cafe", "cafe\u0301", False),  # é in two code points
        ("s", "cafe\u0301s", False),  # nor does a word begin behind it
        ("cafe\u0301", "ein cafe\u0301.", True),
        ("cafe\u0301", "cafe\u0301s", False),
        ("क", "की", False),  # a letter and its vowel sign
        ("की", "राम की किताब", True),
        ("की", "कीमत", False),
        ("cat", "\u2764\ufe0fcat", True),  # the selector belongs to the heart
        ("cat", "ที่cat", True),
        ("🙂", "ok🙂ok", True),
        ("cat", "", False),
    ],
)
def test_whole_words_and_phrases(keyword: str, text: str, found: bool) -> None:
    """A keyword's letters must not continue a word; what is no letter may touch anything."""
    assert Keywords([keyword], ignore_case=True).present(text) == [keyword] * found


def test_every_occurrence_has_a_span() -> None:
    """Overlapping ones too, in characters of the text as it is."""
    text = "İ Ha ha HA cat"  # lower-casing its first letter would make two of it
    assert list(Keywords(["ha ha", "cat"], ignore_case=True).spans(text)) == [(2, 7), (5, 10), (11, 14)]


def test_the_first_occurrence_of_each() -> None:
    """The first whole one: not that within a word."""
    found = Keywords(["cat", "ha"], ignore_case=True).spans("cats cat ha cat ha", first_only=True)
    assert list(found) == [(5, 8), (9, 11)]


@pytest.mark.parametrize(
    ("good", "bad", "response", "expected"),
    [
        (["because", "therefore"], [], "because", 0.5),
        (["because", "therefore"], [], "because because because", 0.5),
        (["because", "therefore"], ["maybe"], "therefore, because", 1.0),
        (["because", "therefore"], ["maybe"], "maybe because", -0.5),
        ([], ["maybe", "perhaps", "idk", "hm"], "perhaps", -0.25),
        (["cat"], [], "concatenate", 0.0),
        (["because"], ["maybe"], "", 0.0),
    ],
)
def test_formula(good: list[str], bad: list[str], response: str, expected: float) -> None:
    """The part of the good ones that is there, less the part of the bad ones."""
    assert KeywordReward(good, bad)(response=[response]).rewards[0] == expected


def test_says_what_it_found() -> None:
    """As the caller wrote them."""
    row = KeywordReward(["Because"], ["maybe"])(response=["because"])[0]
    assert row.metadata == {"good": ["Because"], "bad": []}


def test_capitals_matter_where_asked() -> None:
    """Then two spellings are two keywords."""
    assert KeywordReward(["AI", "ai"], ignore_case=False)(response=["AI"]).rewards[0] == 0.5


def test_a_conversation_is_judged_by_its_last_answer() -> None:
    """Messages are as good as text."""
    said = [{"role": "user", "content": "because?"}, {"role": "assistant", "content": "No."}]
    assert KeywordReward(["because"])(response=[said]).rewards[0] == 0.0


@pytest.mark.parametrize(
    ("parameters", "bounds"),
    [
        ({"good": ["a"]}, (0.0, 1.0)),
        ({"bad": ["a"]}, (-1.0, 0.0)),
        ({"good": ["a"], "bad": ["b"]}, (-1.0, 1.0)),
        ({"good": ["a"], "bad": ["b"], "scale": 3.0, "clip": (-1.0, 2.0)}, (-1.0, 2.0)),
    ],
)
def test_bounds(parameters: dict[str, Any], bounds: tuple[float, float]) -> None:
    """What the lists can add up to."""
    assert KeywordReward(**parameters).bounds == bounds


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "at least one keyword"),
        ({"good": "because"}, "good must be a list of non-empty texts, found 'because'"),
        ({"good": ["a"], "bad": ["A"]}, "'A' is in good and in bad"),
        ({"good": ["a b", "a  b"]}, "good lists 'a  b' twice"),
        ({"good": [" "]}, "good must hold words, found the blank ' '"),
        ({"bad": [""]}, "bad must be a list of non-empty texts"),
    ],
)
def test_impossible_parameters(parameters: dict[str, Any], message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        KeywordReward(**parameters)
