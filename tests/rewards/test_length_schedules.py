"""CosineLength, GroupLength and SoftOverlongPunishment: published formulas worked by hand, and TRL's own numbers."""

import math
from typing import Any

import numpy as np
import pytest

from flux_rewards import ConfigError, FunctionReward, InputError, LengthReward, MaskErrors, Sample
from flux_rewards.rewards.text.length import LengthRange, ResponseLength
from flux_rewards.rewards.text.length_schedules import CosineLength, GroupLength
from flux_rewards.rewards.text.overlong import SoftOverlongPunishment
from flux_rewards.testing import reward_checks


def noted(sample: Sample) -> Any:
    """Right or wrong, as the metadata say."""
    verdict = sample.metadata["right"]
    if verdict == "broken":
        raise ValueError("broken")
    return verdict


CORRECT = FunctionReward(noted, name="correct")


def samples(*lengths_and_verdicts: tuple[int, Any], group: Any = 0) -> list[Sample]:
    """Responses of some lengths."""
    return [
        Sample(response="word " * length, token_ids=[7] * length, group_id=group, metadata={"right": right})
        for length, right in lengths_and_verdicts
    ]


@pytest.mark.parametrize(
    ("length", "right", "expected"),
    [
        (0, 1.0, 1.0),
        (50, 1.0, 0.75),  # halfway
        (100, 1.0, 0.5),
        (150, 1.0, 0.5),  # clamped, where open-r1 gives 0.75
        (200, 1.0, 0.5),
        (0, 0.0, -1.0),
        (50, 0.0, -0.75),
        (100, 0.0, -0.5),
        (300, 0.0, -0.5),
        (25, 1.0, 0.5 + 0.25 * (1 + math.sqrt(0.5))),
        (25, 0.0, -0.5 - 0.25 * (1 + math.sqrt(0.5))),
        (25, 0.99, -0.5 - 0.25 * (1 + math.sqrt(0.5))),  # not quite right is wrong
    ],
)
def test_cosine(length: int, right: float, expected: float) -> None:
    """Right: 1 to 0.5. Wrong: -1 to -0.5. Along half a cosine, and no further."""
    assert CosineLength(CORRECT, 100)(samples((length, right))).rewards[0] == pytest.approx(expected)


def test_cosine_equals_trl() -> None:
    """The numbers of TRL's own function, for right and wrong answers of many lengths."""
    pytest.importorskip("math_verify")
    rewards = pytest.importorskip("trl.rewards")
    if not hasattr(rewards, "get_cosine_scaled_reward"):
        pytest.skip("this TRL has no cosine reward")
    lengths = [0, 1, 10, 37, 64, 65, 500]
    ids = [[1] * length for length in lengths] * 2
    said = [[{"role": "assistant", "content": rf"\boxed{{{answer}}}"}] for answer in (4, 5) for _ in lengths]
    theirs = rewards.get_cosine_scaled_reward(max_len=64)(
        completions=said, completion_ids=ids, solution=["$4$"] * len(said)
    )
    ours = CosineLength(FunctionReward(lambda s: float("4" in s.response_text)), 64)(response=said, token_ids=ids)
    np.testing.assert_allclose(ours.rewards, theirs, atol=1e-12)


def test_cosine_keeps_what_does_not_apply_and_what_failed() -> None:
    """No verdict is neither right nor wrong."""
    batch = MaskErrors(CosineLength(CORRECT, 100), 0.5)(samples((10, None), (10, "broken"), (0, 1.0)))
    assert np.isnan(batch.rewards[:2]).all()
    assert batch.rewards[2] == 1.0
    assert list(batch.errors) == [1]
    assert "broken" in batch.errors[1]


def test_cosine_shows_its_parts() -> None:
    """What was right, and how long it was."""
    batch = CosineLength(CORRECT, 100, unit="characters")(samples((2, 1.0)))
    assert batch.parts["correct"].rewards.tolist() == [1.0]
    assert batch.parts["ResponseLength"].rewards.tolist() == [10.0]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ([(10, 1.0), (15, 1.0), (30, 1.0)], [0.5, 0.25, -0.5]),
        ([(10, 0.0), (15, 0.0), (30, 0.0)], [0.0, 0.0, -0.5]),
        ([(10, 0.0), (15, 1.0), (30, 0.0)], [0.0, 0.25, -0.5]),
        ([(10, 1.0), (10, 0.0)], [0.0, 0.0]),  # all equally long
        ([(10, 1.0)], [0.0]),
        ([(0, 1.0), (1, 1.0)], [0.5, -0.5]),
        # without a verdict it takes no part: the range is 10 to 20
        ([(10, 1.0), (20, 1.0), (90, None)], [0.5, -0.5, math.nan]),
    ],
)
def test_group_length(group: list[tuple[int, Any]], expected: list[float]) -> None:
    """0.5 - (length - shortest) / (longest - shortest), for a wrong one at most 0."""
    np.testing.assert_allclose(GroupLength(CORRECT)(samples(*group)).rewards, expected)


def test_group_length_goes_by_groups() -> None:
    """Not by the batch: the lengths of another prompt's responses don't matter, wherever they stand."""
    one, other = samples((10, 1.0), (20, 1.0), group="a"), samples((500, 1.0), (900, 0.0), group="b")
    mixed = [one[0], other[0], one[1], other[1]]
    assert GroupLength(CORRECT)(mixed).rewards.tolist() == [0.5, 0.5, -0.5, -0.5]
    assert GroupLength(CORRECT).scope == "group"


# Eleven words in forty tokens, and twenty-one words without tokens: in one unit the first is the shorter.
MIXED = [
    Sample("q", "word " * 11, token_ids=[7] * 40, metadata={"right": 1.0}),
    Sample("q", "word " * 21, metadata={"right": 1.0}),
]


def test_a_group_is_counted_in_one_unit() -> None:
    """Words, where any of its samples has no tokens; another group, with tokens, is not concerned."""
    other = [Sample("r", "word", token_ids=[7] * length, metadata={"right": 1.0}) for length in (5, 3)]
    assert GroupLength(CORRECT)([*MIXED, *other]).rewards.tolist() == [0.5, -0.5, -0.5, 0.5]


def test_the_cosine_refuses_a_group_in_two_units() -> None:
    """By name, and only the sample that lacks its tokens; samples of other prompts may be in words."""
    other = Sample("r", "word " * 50, metadata={"right": 1.0})
    with pytest.raises(InputError, match=r"sample 1, field 'token_ids'.*as other samples of the group have them"):
        CosineLength(CORRECT, 100)(MIXED)
    batch = MaskErrors(CosineLength(CORRECT, 100), max_failure_rate=1.0)([*MIXED, other])
    assert list(batch.errors) == [1]
    assert batch.rewards[2] == pytest.approx(0.75)
    assert CosineLength(CORRECT, 100, unit="words")(MIXED).errors == {}


@pytest.mark.parametrize(
    ("parameters", "length", "expected"),
    [
        ({}, 0, 0.0),
        ({}, 80, 0.0),
        ({}, 81, -0.05),
        ({}, 90, -0.5),
        ({}, 100, -1.0),
        ({}, 101, -1.0),
        ({}, 400, -1.0),
        ({"lowest": None}, 120, -2.0),
        ({"lowest": None}, 180, -5.0),
        ({"lowest": -1.5}, 110, -1.5),
        ({"lowest": -0.25}, 90, -0.25),
        ({"lowest": 0}, 400, 0.0),
        ({"soft_punish_cache": 0}, 100, 0.0),
        ({"soft_punish_cache": 0}, 101, -1.0),
        ({"soft_punish_cache": 100}, 50, -0.5),
        ({"scale": 0.5}, 400, -0.5),
        ({"unit": "characters"}, 18, -0.5),  # 90 characters
    ],
)
def test_soft_overlong(parameters: dict[str, Any], length: int, expected: float) -> None:
    """Equation 13 of DAPO, also with another least value."""
    reward = SoftOverlongPunishment(100, **{"soft_punish_cache": 20, **parameters})
    assert reward(samples((length, None))).rewards[0] == pytest.approx(expected)


def test_soft_overlong_equals_trl() -> None:
    """TRL's own function."""
    rewards = pytest.importorskip("trl.rewards")
    ids = [[1] * length for length in range(0, 130, 3)]
    theirs = rewards.get_soft_overlong_punishment(100, 20)(ids)
    ours = SoftOverlongPunishment(100, 20)(response=["x"] * len(ids), token_ids=ids).rewards
    np.testing.assert_allclose(ours, theirs, atol=1e-15)


@pytest.mark.parametrize("lowest", [-1.0, None])
def test_soft_overlong_bounds(lowest: float | None) -> None:
    """None where it falls for ever."""
    assert SoftOverlongPunishment(100, 20, lowest).bounds == (None if lowest is None else (-1.0, 0.0))


@pytest.mark.parametrize(
    ("parameters", "words", "expected"),
    [
        ({"min_length": 10, "max_length": 20}, 10, 1.0),
        ({"min_length": 10, "max_length": 20}, 20, 1.0),
        ({"min_length": 10, "max_length": 20}, 5, 0.5),
        ({"min_length": 10, "max_length": 20}, 0, 0.0),
        ({"min_length": 10, "max_length": 20}, 30, 0.5),
        ({"min_length": 10, "max_length": 20}, 40, 0.0),
        ({"min_length": 10, "max_length": 20, "tolerance": 4}, 7, 0.25),
        ({"min_length": 10, "max_length": 20, "tolerance": 4}, 30, 0.0),
        ({"min_length": 10}, 1000, 1.0),
        ({"max_length": 10}, 0, 1.0),
        ({"min_length": 0, "max_length": 0, "tolerance": 2}, 1, 0.5),
        ({"max_length": 10, "tolerance": 5, "shape": "gaussian"}, 15, math.exp(-0.5)),
    ],
)
def test_length_range(parameters: dict[str, Any], words: int, expected: float) -> None:
    """1 within, falling outside."""
    assert LengthRange(**parameters)(response=["word " * words]).rewards[0] == pytest.approx(expected)


@pytest.mark.parametrize("shape", ["linear", "gaussian"])
def test_a_range_of_one_length_is_a_target(shape: str) -> None:
    """LengthReward is the special case."""
    responses = ["word " * words for words in range(0, 30, 3)]
    ranged = LengthRange(12, 12, shape=shape)(response=responses).rewards
    assert ranged.tolist() == LengthReward(12, shape=shape)(response=responses).rewards.tolist()


@pytest.mark.parametrize(("unit", "expected"), [("auto", 3.0), ("tokens", 3.0), ("words", 2.0), ("characters", 9.0)])
def test_response_length(unit: str, expected: float) -> None:
    """The length as it is."""
    assert ResponseLength(unit)([Sample(response="two words", token_ids=[1, 2, 3])]).rewards[0] == expected


def test_tokens_need_token_ids() -> None:
    """Named by the length that needs them; words are never counted in their place."""
    with pytest.raises(InputError, match="sample 0, field 'token_ids'"):
        CosineLength(CORRECT, 100, unit="tokens")(response=["x"], metadata=[{"right": 1.0}])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CosineLength(CORRECT, 0), "max_length must be a finite number > 0"),
        (lambda: CosineLength("exact_match", 10), "correct must be a reward, found 'exact_match'"),  # type: ignore[arg-type]
        (lambda: CosineLength(CORRECT, 10, min_value_wrong=0.0), "min_value_wrong must be a finite number <= -0.5"),
        (lambda: CosineLength(CORRECT, 10, unit="token"), "unit must be one of .*did you mean 'tokens'"),
        (lambda: GroupLength(CORRECT, at_least=math.nan), "at_least must be a finite number"),
        (lambda: SoftOverlongPunishment(100, 120), "soft_punish_cache must be a finite number >= 0 and <= 100"),
        (lambda: SoftOverlongPunishment(100, 20, 0.5), "lowest must be a finite number <= 0"),
        (lambda: SoftOverlongPunishment(100, 0, None), "lowest=None needs a soft_punish_cache above 0"),
        (LengthRange, "needs min_length or max_length"),
        (lambda: LengthRange(20, 10), "min_length must not be above max_length, found 20 and 10"),
        (lambda: LengthRange(max_length=0), "max_length must be a finite number > 0"),
    ],
)
def test_impossible_parameters(build: Any, message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize(
    "check",
    [
        check
        for reward in (
            CosineLength(LengthReward(20), 20, at_least=0.5),
            GroupLength(LengthReward(20), at_least=0.5, unit="characters"),
            SoftOverlongPunishment(16, 8),
            LengthRange(5, 10),
            ResponseLength("tokens"),
        )
        for check in reward_checks(reward)
    ],
    ids=str,
)
def test_contract(check: Any) -> None:
    """What holds for every reward."""
    check()
