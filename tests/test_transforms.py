"""Transforms, rewards relative to the group, and wrappers."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewards_of_our_own import Characters, Told, doubled, told

from flux_rewards import (
    Batched,
    BestOfGroup,
    Clip,
    CompositeReward,
    ComputeError,
    ConfigError,
    ContractError,
    FunctionReward,
    GroupCenter,
    GroupNormalize,
    GroupRank,
    LeaveOneOut,
    Map,
    MaskErrors,
    Normalize,
    RewardFunction,
    RewardOutput,
    Sample,
    Scale,
    Threshold,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("transform", "value", "expected"),
    [
        (Scale(Told(), 2.0, 1.0), 3.0, 7.0),
        (Scale(Told(), -1.0), 3.0, -3.0),
        (Clip(Told(), -1.0, 1.0), 3.0, 1.0),
        (Clip(Told(), low=0.0), -3.0, 0.0),
        (Clip(Told(), high=0.0), -3.0, -3.0),
        (Normalize(Told(), (1, 5)), 2.0, 0.25),
        (Normalize(Told(clip=(-1, 1))), 0.0, 0.5),
        (Threshold(Told(), 0.5), 0.5, 1.0),
        (Threshold(Told(), 0.5, above=3.0, below=-1.0), 0.49, -1.0),
        (Map(Told(), math.exp), 0.0, 1.0),
        (Map(Told(), "rewards_of_our_own.doubled"), 4.0, 8.0),
        (Map(Told(), doubled), 4.0, 8.0),
    ],
)
def test_transforms_of_one_value(transform: RewardFunction, value: float, expected: float) -> None:
    """Worked by hand; NaN and what the reward said are kept."""
    batch = transform(told(value, None, value))
    np.testing.assert_allclose(batch.rewards, [expected, NAN, expected])
    assert batch.errors == {}
    np.testing.assert_array_equal(batch.parts["Told"].rewards, [value, NAN, value])


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (Scale(Told(), 2.0, 1.0), [2.0, 8.0]),
        (Clip(Told(), 0.0, 2.0), [1.0, 2.0]),
        (Normalize(Told(), (1, 5)), [0.25, 1.0]),
        (Threshold(Told(), 0.5), None),
        (Map(Told(), math.exp), None),
        (GroupRank(Told()), None),
    ],
)
def test_token_rewards_of_transforms(transform: RewardFunction, expected: list[float] | None) -> None:
    """Linear maps scale them, clips cut each one, and the rest has no dense view."""
    tokens = transform(told(RewardOutput(5.0, token_rewards=[1.0, 4.0]))).token_rewards
    assert (None if tokens is None or tokens[0] is None else tokens[0].tolist()) == expected


def test_bounds_pass_through_transforms() -> None:
    """A monotonic map of the bounds."""
    reward = Told(clip=(0.0, 2.0))
    assert Scale(reward, -2.0, 1.0).bounds == (-3.0, 1.0)
    assert Clip(reward, low=1.0).bounds == (1.0, 2.0)
    assert Clip(Characters(), 0.0, 9.0).bounds == (0.0, 9.0)
    assert Clip(Characters(), low=0.0).bounds is None
    assert Normalize(reward).bounds == (0.0, 1.0)
    assert Threshold(Characters(), 1.0).bounds == (0.0, 1.0)
    assert Scale(Characters(), 2.0).bounds is None
    assert not Scale(reward, -2.0).higher_is_better


def test_a_function_that_fails_has_failed() -> None:
    """It raises with the sample, unless it is masked; None means does not apply."""
    inverse = Map(Told(), lambda value: 1 / value)
    with pytest.raises(ComputeError, match="ZeroDivisionError") as caught:
        inverse(told(1.0, 0.0))
    assert caught.value.index == 1
    batch = MaskErrors(inverse)(told(2.0, 0.0))
    np.testing.assert_array_equal(batch.rewards, [0.5, NAN])
    assert "division by zero" in batch.errors[1]
    with pytest.raises(ComputeError, match="returned inf"):
        Map(Told(), lambda value: value * 1e308)(told(1e10))
    assert np.isnan(Map(Told(), lambda value: None)(told(1.0)).rewards[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clip(Told()), "low < high"),
        (lambda: Clip(Told(), 1.0, 1.0), "low < high"),
        (lambda: Normalize(Told()), "states no bounds"),
        (lambda: Normalize(Told(), (1, 1)), "low < high"),
        (lambda: Scale(Told, 2.0), "must be a reward"),  # type: ignore[arg-type]
        (lambda: Scale(Told(), "2"), "factor"),  # type: ignore[arg-type]
        (lambda: Map(Told(), 3), "callable"),  # type: ignore[arg-type]
        (lambda: GroupRank(Told(), ties="average"), "ties must be one of"),
        (lambda: GroupNormalize(Told(), ddof=2), "ddof"),
        (lambda: MaskErrors(Told(), 1.5), "max_failure_rate"),
        (lambda: Batched(Told(), 0), "batch_size"),
    ],
)
def test_bad_arguments_are_refused(make: Any, message: str) -> None:
    """When the transform is made."""
    with pytest.raises(ConfigError, match=message):
        make()


VALUES = [3.0, 1.0, 3.0, 2.0]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        # ranks of 3, 1, 3, 2 are 3.5, 1, 3.5, 2; (rank - 1) / 3
        (GroupRank(Told()), [2.5 / 3, 0.0, 2.5 / 3, 1 / 3]),
        (GroupRank(Told(), "min"), [2 / 3, 0.0, 2 / 3, 1 / 3]),
        (GroupRank(Told(), "max"), [1.0, 0.0, 1.0, 1 / 3]),
        (GroupRank(Told(), centered=True), [1 / 3, -0.5, 1 / 3, -1 / 6]),
        # mean 2.25, deviations .75 -1.25 .75 -.25, sum of squares 2.75
        (GroupCenter(Told()), [0.75, -1.25, 0.75, -0.25]),
        (LeaveOneOut(Told()), [1.0, -5 / 3, 1.0, -1 / 3]),
        (GroupNormalize(Told(), epsilon=0.0), np.array([0.75, -1.25, 0.75, -0.25]) / math.sqrt(2.75 / 3)),
        (
            GroupNormalize(Told(), ddof=0, epsilon=0.1),
            np.array([0.75, -1.25, 0.75, -0.25]) / (math.sqrt(2.75 / 4) + 0.1),
        ),
        (BestOfGroup(Told()), [0.5, 0.0, 0.5, 0.0]),
        (BestOfGroup(Told(), "all"), [1.0, 0.0, 1.0, 0.0]),
    ],
)
def test_groups_worked_by_hand(group: RewardFunction, expected: Any) -> None:
    """Interleaved with another group, and with a sample to which the reward does not apply."""
    samples = told(*VALUES, None)
    other = told(100.0, 100.0, prompt="other")
    mixed = [samples[0], other[0], *samples[1:], other[1]]
    values = group(mixed).rewards
    np.testing.assert_allclose(values[[0, 2, 3, 4]], expected)
    assert np.isnan(values[5])
    assert group.scope == "group"


@pytest.mark.parametrize(
    ("group", "alone", "tied"),
    [
        (GroupRank(Told()), 0.5, 0.5),
        (GroupRank(Told(), centered=True), 0.0, 0.0),
        (GroupCenter(Told()), 0.0, 0.0),
        (LeaveOneOut(Told()), 0.0, 0.0),
        (GroupNormalize(Told()), 0.0, 0.0),
        (BestOfGroup(Told()), 1.0, 0.25),
    ],
)
def test_lone_and_tied_groups(group: RewardFunction, alone: float, tied: float) -> None:
    """Four identical scores must give no advantage: ranks by position gave -1.16 to 1.16."""
    assert group(told(0.1)).rewards.tolist() == [alone]
    assert group(told(0.1, 0.1, 0.1, 0.1)).rewards.tolist() == [tied] * 4


def test_a_failed_sample_takes_no_part_in_its_group() -> None:
    """The others are compared without it, and its reason stays."""
    batch = GroupRank(MaskErrors(Told(), 1.0))(told(1.0, ValueError("bad"), 3.0))
    np.testing.assert_array_equal(batch.rewards, [0.0, NAN, 1.0])
    assert batch.errors == {1: "ValueError: bad"}


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_ranks_agree_with_their_definition(values: list[int], seed: int) -> None:
    """The win rate against the rest, ties counted half; unchanged by an increasing map; equivariant."""
    floats = [float(value) for value in values]
    ranks = GroupRank(Told())(told(*floats)).rewards
    for index, value in enumerate(floats):
        rest = floats[:index] + floats[index + 1 :]
        wins = sum(value > other for other in rest) + 0.5 * sum(value == other for other in rest)
        assert ranks[index] == pytest.approx(wins / len(rest) if rest else 0.5)
    mapped = GroupRank(Map(Told(), lambda value: math.exp(value) + value))(told(*floats)).rewards
    np.testing.assert_allclose(mapped, ranks)
    order = np.random.default_rng(seed).permutation(len(floats))
    np.testing.assert_allclose(GroupRank(Told())(told(*(floats[i] for i in order))).rewards, ranks[order])


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=10), st.floats(0.1, 10), st.floats(-10, 10))
@settings(max_examples=60, deadline=None)
def test_group_statistics_have_their_invariants(values: list[float], factor: float, offset: float) -> None:
    """Mean 0, shift does nothing, scale scales; LeaveOneOut is n / (n - 1) times GroupCenter."""
    samples = told(*values)
    moved = told(*(value * factor + offset for value in values))
    center = GroupCenter(Told())(samples).rewards
    np.testing.assert_allclose(center.sum(), 0.0, atol=1e-8)
    np.testing.assert_allclose(GroupCenter(Told())(moved).rewards, factor * center, rtol=1e-7, atol=1e-9)
    count = len(values)
    np.testing.assert_allclose(LeaveOneOut(Told())(samples).rewards, count / (count - 1) * center, rtol=1e-7, atol=1e-7)


def test_a_mask_turns_few_failures_into_nan() -> None:
    """With the reason; more than allowed raises all the same."""
    values = [1.0, ValueError("bad"), 2.0, None]
    batch = MaskErrors(Told(), 0.25)(told(*values))
    np.testing.assert_array_equal(batch.rewards, [1.0, NAN, 2.0, NAN])
    assert batch.errors == {1: "ValueError: bad"}
    with pytest.raises(ComputeError, match="1 of 4 samples failed") as caught:
        MaskErrors(Told(), 0.2)(told(*values))
    assert caught.value.index == 1
    assert MaskErrors(Told(), 0.0)(told(1.0)).rewards.tolist() == [1.0]
    assert len(MaskErrors(Told(), 0.0)([])) == 0


def test_a_number_for_failures_must_be_asked_for() -> None:
    """By name; the reason moves to the metadata."""
    batch = MaskErrors(Told(), 1.0, on_error=-1.0)(told(1.0, ValueError("bad")))
    assert batch.rewards.tolist() == [1.0, -1.0]
    assert batch.errors == {}
    assert batch.metadata[1] == {"masked_error": "ValueError: bad"}
    assert MaskErrors(Told(clip=(0, 1)), on_error=-1.0).bounds == (-1.0, 1.0)


@pytest.mark.parametrize("cause", [ContractError("two rows"), ConfigError("no such option")])
def test_mistakes_of_the_set_up_are_never_masked(cause: Exception) -> None:
    """They would fail every sample."""
    with pytest.raises(type(cause)):
        MaskErrors(Told(), 1.0)(told(1.0, cause))


def test_a_mask_around_a_batch_author_loses_the_whole_call() -> None:
    """But not the other calls."""

    class Batch(Told):
        def compute_rewards(self, samples: Any) -> Any:
            return [sample.metadata["told"] + 0.0 for sample in samples]

    batch = MaskErrors(Batch(batch_size=2), 0.5)(told(1.0, 2.0, 3.0, "x"))
    np.testing.assert_array_equal(batch.rewards, [1.0, 2.0, NAN, NAN])
    assert set(batch.errors) == {2, 3}


def test_an_unreadable_image_fails_alone_under_a_mask() -> None:
    """Its neighbours in the same call are scored."""

    class Mean(RewardFunction):
        required_fields = ("image",)
        use_tensor_inputs = True

        def compute_rewards(self, samples: Any) -> Any:
            return [float(sample.image.mean()) for sample in samples]

    white = np.full((2, 2, 3), 255, np.uint8)
    batch = MaskErrors(Mean(), 0.5)(image=[white, "/nowhere.png", white])
    np.testing.assert_array_equal(batch.rewards, [1.0, NAN, 1.0])
    assert "/nowhere.png" in batch.errors[1]


def test_wrappers_keep_the_name_and_transforms_say_what_they_did() -> None:
    """So that parts are found, and different values have different names."""
    names = list(
        CompositeReward([(MaskErrors(Told()), 1.0), (Scale(Told(), 2.0), 1.0), (Batched(Told(), 3), 1.0)]).weights
    )
    assert names == ["Told", "Scale(Told)", "Told_2"]
    assert Scale(Told(), name="mine").name == "mine"


def finite(low: float = -1e3, high: float = 1e3) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


@given(
    st.lists(st.tuples(st.none() | finite(), st.none() | finite()), min_size=1, max_size=9),
    finite(),
    finite(),
    finite(-9, 9),
)
@settings(max_examples=60, deadline=None)
def test_a_composite_is_linear_in_its_weights(
    rows: list[tuple[float | None, float | None]], one: float, other: float, factor: float
) -> None:
    """total(factor * w + v) = factor * total(w) + total(v)."""
    samples = [Sample(metadata={"a": a, "b": b}) for a, b in rows]

    def total(weights: tuple[float, float]) -> Any:
        return CompositeReward([(Told("a"), weights[0]), (Told("b"), weights[1])])(samples).rewards

    combined = total((factor * one + other, factor * other + one))
    np.testing.assert_allclose(combined, factor * total((one, other)) + total((other, one)), rtol=1e-9, atol=1e-6)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_chunks_workers_and_order_do_not_matter(count: int, batch_size: int, workers: int, seed: int) -> None:
    """Permuting and splitting a batch permutes and splits the result, and nothing else."""
    leaf = Characters(batch_size=batch_size, num_workers=workers)
    reward = CompositeReward([(leaf, 0.5), (GroupRank(leaf), 1.0), (FunctionReward(lambda s: len(s.prompt)), 2.0)])
    samples = [Sample("p" * (index % 3 + 1), "r" * (index % 7)) for index in range(count)]
    expected = reward(samples).rewards
    order = np.random.default_rng(seed).permutation(count)
    np.testing.assert_allclose(reward([samples[i] for i in order]).rewards, expected[order])
    np.testing.assert_allclose(CompositeReward([(Characters(), 0.5)])(samples).rewards, leaf(samples).rewards / 2)
