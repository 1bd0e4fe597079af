"""Regex and repetition by token, step rewards, and the converters: worked by hand, with sums that must agree."""

import math
from typing import Any

import numpy as np
import pytest

from flux_rewards import (
    CompositeReward,
    ConfigError,
    ContractError,
    ExactMatch,
    FunctionReward,
    GroupRank,
    InputError,
    LengthReward,
    MaskErrors,
    RepetitionPenalty,
    RewardOutput,
    Sample,
    TokenKeywordReward,
)
from flux_rewards.errors import ComputeError
from flux_rewards.rewards.tokens.converters import Discounted, LastToken, PotentialShaping, Spread
from flux_rewards.rewards.tokens.regex import TokenRegexReward
from flux_rewards.rewards.tokens.repetition import TokenRepetitionPenalty
from flux_rewards.rewards.tokens.steps import StepRewards, steps_of
from flux_rewards.testing import reward_checks


def letters(text: str, **fields: Any) -> Sample:
    """One token a character."""
    spans = [(place, place + 1) for place in range(len(text))]
    return Sample(**{"response": text, "token_ids": [*map(ord, text)], "token_offsets": spans, **fields})


def dense(batch: Any, row: int = 0) -> list[float]:
    """The token rewards of a row."""
    values = batch.token_rewards[row]
    assert values is not None
    return [float(value) for value in values]


@pytest.mark.parametrize(
    ("parameters", "text", "expected"),
    [
        ({"pattern": "[0-9]+"}, "a12b", [0, 1, 1, 0]),
        ({"pattern": "[0-9]+", "value": -0.5}, "a12b", [0, -0.5, -0.5, 0]),
        ({"pattern": "=([0-9])", "group": 1}, "=1=a", [0, 1, 0, 0]),
        ({"pattern": "=(?P<n>[0-9])?", "group": "n"}, "=1=a", [0, 1, 0, 0]),
        ({"pattern": "x*"}, "axxb", [0, 1, 1, 0]),
        ({"pattern": "A", "ignore_case": True}, "aAb", [1, 1, 0]),
        ({"pattern": "(?m)^b"}, "b\nb", [1, 0, 1]),
        ({"pattern": "猫"}, "小猫🙂", [0, 1, 0]),
        ({"pattern": "z"}, "ab", [0, 0]),
        ({"pattern": "[0-9]+", "occurrences": "first"}, "a12b34", [0, 1, 1, 0, 0, 0]),
        ({"pattern": "x*", "occurrences": "first"}, "axxbx", [0, 1, 1, 0, 0]),  # the empty one before a is none
        ({"pattern": "=(?P<n>[0-9])?", "group": "n", "occurrences": "first"}, "=a=1=2", [0, 0, 0, 1, 0, 0]),
    ],
)
def test_regex(parameters: dict[str, Any], text: str, expected: list[float]) -> None:
    """The value at every token of a match, and the mean."""
    batch = TokenRegexReward(**parameters)([letters(text)])
    assert dense(batch) == expected
    assert batch.rewards[0] == pytest.approx(sum(expected) / len(expected))
    assert all(math.copysign(1.0, value) == 1.0 for value in dense(batch) if value == 0)


def test_regex_bounds_and_no_tokens() -> None:
    """From 0 to the value; nothing to say about nothing."""
    assert TokenRegexReward("a", -2.0).bounds == (-2.0, 0.0)
    assert TokenRegexReward("a")([letters("")]).not_applicable.tolist() == [True]


@pytest.mark.parametrize(
    ("n", "ids", "expected"),
    [
        (2, [1, 2, 3, 1, 2, 3], [0, 0, 0, 0, 1, 1]),
        (1, [7, 7, 8, 7], [0, 1, 0, 1]),
        (3, [7] * 6, [0, 0, 0, 1, 1, 1]),
        (3, [1, 2], [0, 0]),
        (4, [150_000, 1, 2, 3, 150_000, 1, 2, 3], [0] * 7 + [1]),
    ],
)
def test_repetition(n: int, ids: list[int], expected: list[int]) -> None:
    """The penalty where an n-gram is complete that was there before; as many as RepetitionPenalty counts."""
    sample = Sample(response="x", token_ids=ids)
    batch = TokenRepetitionPenalty(n)([sample])
    assert dense(batch) == [-value if value else 0.0 for value in expected]
    assert batch.rewards[0] == pytest.approx(-sum(expected) / len(ids))
    grams = max(len(ids) - n + 1, 1)
    assert RepetitionPenalty(n)([sample]).rewards[0] * grams == pytest.approx(-sum(expected))


@pytest.mark.parametrize(
    ("text", "separator", "expected"),
    [
        ("a\n\nb", "\n\n", ["a", "b"]),
        ("a\n\n\n\n b c \n\n", "\n\n", ["a", "b c"]),
        ("one", "\n\n", ["one"]),
        ("", "\n\n", []),
        (" \n\n ", "\n\n", []),
        ("一。二。", "。", ["一", "二"]),
    ],
)
def test_steps(text: str, separator: str, expected: list[str]) -> None:
    """What the separator separates, without the whitespace around it."""
    assert [text[start:end] for start, end in steps_of(text, separator)] == expected


@pytest.mark.parametrize(
    ("aggregate", "expected"), [("mean", 0.5), ("sum", 1.5), ("min", 0.25), ("product", 0.09375), ("last", 0.5)]
)
def test_step_values_from_the_metadata(aggregate: str, expected: float) -> None:
    """At the last token of each step."""
    sample = letters("ab;c;de", metadata={"step_rewards": [0.75, 0.25, 0.5]})
    batch = StepRewards(separator=";", aggregate=aggregate)([sample])
    assert dense(batch) == [0, 0.75, 0, 0.25, 0, 0, 0.5]
    assert batch.rewards[0] == pytest.approx(expected)
    assert batch.metadata[0]["step_ends"] == [1, 3, 6]


def test_a_step_without_a_value_takes_no_part() -> None:
    """None is not 0."""
    batch = StepRewards(separator=";")([letters("a;b", metadata={"step_rewards": [None, 0.5]})])
    assert batch.rewards[0] == 0.5
    assert dense(batch) == [0, 0, 0.5]
    none = StepRewards(separator=";")([letters("a;b", metadata={"step_rewards": [None, None]})])
    assert none.not_applicable.tolist() == [True]


def test_steps_that_end_at_one_token_add_up() -> None:
    """A token that holds two short steps."""
    sample = Sample(
        response="a;b", token_ids=[5], token_offsets=[(0, 3)], metadata={"step_rewards": np.array([0.5, 0.25])}
    )
    assert dense(StepRewards(separator=";")([sample])) == [0.75]


def test_a_reward_scores_each_step() -> None:
    """As a response of its own, of all samples in one call; tokens and offsets are those of the step."""
    seen: list[tuple[Any, Any, Any, Any]] = []

    def look(step: Sample) -> float:
        seen.append((step.response, step.token_ids, step.token_offsets, step.reference))
        return float(len(step.response_text))

    samples = [letters("ab c\n\nd", reference="r"), letters("", reference="s"), letters("efg", reference="t")]
    batch = StepRewards(FunctionReward(look))(samples)
    np.testing.assert_array_equal(batch.rewards, [2.5, np.nan, 3.0])
    assert dense(batch) == [0, 0, 0, 4, 0, 0, 1]
    assert seen[1] == ("d", [ord("d")], [[0, 1]], "r")
    assert [step[0] for step in seen] == ["ab c", "d", "efg"]


def test_a_token_reward_scores_each_step() -> None:
    """Offsets are moved, so that they are those of the step."""
    batch = StepRewards(TokenKeywordReward(["yes"]))([letters("no yes\n\nyes\n\nno")])
    assert batch.metadata[0]["step_rewards"] == [0.5, 1.0, 0.0]


def test_a_step_that_fails_fails_its_sample() -> None:
    """Named with the step; the neighbours are scored."""

    def picky(step: Sample) -> float:
        if step.response == "bad":
            raise ValueError("no")
        return 1.0

    reward = StepRewards(FunctionReward(picky, name="picky"), separator=";")
    batch = MaskErrors(reward, 0.5)([letters("a;bad"), letters("a;b")])
    np.testing.assert_array_equal(batch.rewards, [np.nan, 1.0])
    assert "step 2 of 2 failed in picky: ValueError: no" in batch.errors[0]
    with pytest.raises(ComputeError, match="sample 1: step 2 of 2 failed"):
        reward([letters("a;b"), letters("a;bad")])


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (letters("a;b"), "field 'metadata': expected 2 numbers in metadata['step_rewards'], one a step, found None"),
        (letters("a;b", metadata={"step_rewards": [1.0]}), "one a step, found 1"),
        (letters("a;b", metadata={"step_rewards": [1.0, "x"]}), "found 'x' among them"),
        (letters("a;b", metadata={"step_rewards": [1.0, math.nan]}), "found nan among them"),
        (
            Sample(response="a;bcd", token_ids=[1], token_offsets=[(0, 2)], metadata={"step_rewards": [1, 1]}),
            "field 'token_offsets': step 2 of 2, characters 2 to 5, has no token",
        ),
        (
            Sample(response="a", token_ids=[1], token_offsets=[(0, 2)], metadata={"step_rewards": [1]}),
            "expected 0 <= start <= end <= 1",
        ),
    ],
)
def test_steps_that_cannot_be_placed(sample: Sample, message: str) -> None:
    """An error, never a value somewhere else."""
    good = letters("a;b", metadata={"step_rewards": [1.0, 0.0]})
    with pytest.raises(InputError) as caught:
        StepRewards(separator=";")([good, sample])
    assert message in str(caught.value)
    assert caught.value.index == 1


def test_step_bounds_and_fields() -> None:
    """Those of the reward inside, where the aggregate keeps them."""
    inner = LengthReward(4)
    assert StepRewards(inner).bounds == (0.0, 1.0)
    assert StepRewards(inner, aggregate="sum").bounds is None
    assert StepRewards().bounds is None
    assert StepRewards(inner, scale=2.0).bounds == (0.0, 2.0)
    assert StepRewards(ExactMatch()).required_fields == ("response", "token_ids", "token_offsets", "reference")


HALF = FunctionReward(lambda s: s.metadata.get("score", 0.5), name="half")


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (LastToken(HALF), [0, 0, 0, 0.5]),
        (Spread(HALF), [0.125] * 4),
        (Discounted(HALF, 0.5), [0.0625, 0.125, 0.25, 0.5]),
        (Discounted(HALF, 1.0), [0.5] * 4),
        (Discounted(HALF, 0.0), [0, 0, 0, 0.5]),
    ],
)
def test_converters(reward: Any, expected: list[float]) -> None:
    """The scalar stays; its dense view is as the formula says."""
    batch = reward([letters("abcd")])
    assert dense(batch) == pytest.approx(expected)
    assert batch.rewards[0] == 0.5


@pytest.mark.parametrize("count", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("score", [0.1, -2.5, 0.0])
def test_sums_are_kept(count: int, score: float) -> None:
    """At the last token and spread, the values add up to the reward."""
    sample = Sample(token_ids=[1] * count, metadata={"score": score})
    for reward in (LastToken(HALF), Spread(HALF)):
        assert sum(dense(reward([sample]))) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("convert", [LastToken, Spread, lambda reward: Discounted(reward, 0.9)])
def test_what_has_no_reward_has_no_token_rewards(convert: Any) -> None:
    """Not applicable stays so; failures are carried; a reward without a token to hold it is a failure."""
    samples = [letters("ab", metadata={"score": score}) for score in (None, math.nan, 1.0)] + [letters("")]
    batch = MaskErrors(convert(HALF), 0.5)(samples)
    np.testing.assert_array_equal(batch.rewards, [np.nan, np.nan, 1.0, np.nan])
    assert batch.not_applicable.tolist() == [True, False, False, False]
    assert [row is None for row in batch.token_rewards or ()] == [True, True, False, True]
    assert "has no tokens" in batch.errors[3]
    with pytest.raises(ComputeError, match=r"sample 0: .*has no tokens"):
        convert(HALF)([letters("")])


def test_converters_need_token_ids() -> None:
    """Named with the field."""
    with pytest.raises(InputError, match="sample 0, field 'token_ids'"):
        LastToken(HALF)([Sample(response="x")])


def test_converters_stand_around_any_reward() -> None:
    """A composite, a rank within the group; and inside a composite with other token rewards."""
    samples = [letters("yes", group_id=0), letters("no", group_id=0)]
    rank = GroupRank(FunctionReward(lambda s: len(s.response_text)))
    assert dense(LastToken(rank)(samples)) == [0, 0, 1.0]
    assert LastToken(rank).scope == "group"
    both = CompositeReward([(TokenKeywordReward(["yes"]), 0.5), (Spread(HALF), 1.0)])
    assert dense(both(samples)) == pytest.approx([0.5 + 1 / 6] * 3)


PHI = FunctionReward(lambda s: RewardOutput(0.75, token_rewards=s.metadata["phi"]), name="phi")


@pytest.mark.parametrize("discount", [1.0, 0.9, 0.0])
@pytest.mark.parametrize(("initial", "terminal"), [(0.0, None), (0.25, None), (0.25, 0.0), (0.0, 1.0)])
def test_potentials_telescope(discount: float, initial: float, terminal: float | None) -> None:
    """Each is gamma * phi(s') - phi(s) at each token; discounted, they add up to gamma^T phi(s_T) - phi(s_0)."""
    phi = [0.2, 0.5, 0.1, 0.75]
    batch = PotentialShaping(PHI, discount, initial=initial, terminal=terminal)(
        [Sample(token_ids=[1] * 4, metadata={"phi": phi})]
    )
    states = [initial, *phi[:-1], phi[-1] if terminal is None else terminal]
    values = [discount * states[step + 1] - states[step] for step in range(4)]
    assert dense(batch) == pytest.approx(values)
    assert sum(discount**step * value for step, value in enumerate(values)) == pytest.approx(batch.rewards[0])
    assert batch.rewards[0] == pytest.approx(discount**4 * states[-1] - initial)


def test_a_scalar_is_no_potential() -> None:
    """An error that says what to take instead."""
    with pytest.raises(ContractError, match=r"half gave a score without token rewards.*LastToken"):
        PotentialShaping(HALF)([Sample(token_ids=[1])])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Discounted(HALF, 1.5), "discount must be a finite number >= 0 and <= 1"),
        (lambda: PotentialShaping(HALF, -0.1), "discount must be a finite number >= 0 and <= 1"),
        (lambda: LastToken("length"), "reward must be a reward, found 'length'"),  # type: ignore[arg-type]
        (lambda: StepRewards("length"), "reward must be a reward or None"),  # type: ignore[arg-type]
        (lambda: StepRewards(separator=""), "separator must be a text"),
        (lambda: StepRewards(aggregate="avg"), "aggregate must be one of mean, sum, min, product, last"),
        (lambda: StepRewards(GroupRank(HALF)), r"GroupRank\(half\) compares the samples of a group"),
        (lambda: TokenRegexReward("("), "is no regular expression"),
        (lambda: TokenRegexReward("(a)", group=2), "group must be one of the pattern's groups, 0, 1, found 2"),
        (lambda: TokenRepetitionPenalty(0), "n must be a whole number >= 1"),
        (lambda: TokenRepetitionPenalty(penalty=1.0), "penalty must be a finite number <= 0"),
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
            TokenRegexReward("[0-9]+"),
            TokenRepetitionPenalty(2),
            StepRewards(LengthReward(2, unit="words"), " "),
            LastToken(LengthReward(20)),
            Spread(LengthReward(20)),
            Discounted(LengthReward(20), 0.9),
            PotentialShaping(TokenKeywordReward(["because"]), 0.9),
        )
        for check in reward_checks(reward)
    ],
    ids=str,
)
def test_contract(check: Any) -> None:
    """What holds for every reward."""
    check()
