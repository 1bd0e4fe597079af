"""GDPO: by hand, what does not apply, conditions, batches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from flux_rewards import CompositeReward, FunctionReward, MaskErrors, RewardBatch, Sample
from flux_rewards.advantages import GDPO_VARIANTS, GdpoVariant, compute_advantages, gdpo
from flux_rewards.errors import ConfigError, InputError

NAN = math.nan
PLAIN = GdpoVariant(eps=0.0, batch_eps=0.0)


def test_by_hand() -> None:
    """Two groups of two: each z-score is ±√½, whatever the part's range."""
    parts = {"correct": [1.0, 0.0, 1.0, 0.0], "length": [500.0, 100.0, 0.0, 1.0]}
    half = math.sqrt(0.5)
    total = np.array([2.0, -2.0, 0.0, 0.0]) * half  # weights 1 and 1
    np.testing.assert_allclose(gdpo(parts, 2, variant=PLAIN), total / math.sqrt(4 / 3), atol=1e-12)
    weighted = np.array([1.5, -1.5, 0.5, -0.5]) * half
    expected = weighted / math.sqrt((2.25 + 2.25 + 0.25 + 0.25) * 0.5 / 3)
    np.testing.assert_allclose(gdpo(parts, 2, [1.0, 0.5], variant=PLAIN), expected, atol=1e-12)


def test_equal_sums_of_unlike_parts_stay_unlike() -> None:
    """The case that the paper opens with: after a sum, one of two rewards would look like the other."""
    parts = {"rare": [1.0, 0.0, 0.0, 0.0], "common": [1.0, 1.0, 1.0, 0.0]}
    summed = compute_advantages({name: column for name, column in parts.items()}, 4)  # noqa: C416
    apart = compute_advantages(parts, 4, "gdpo")
    assert summed[1] == summed[2] == pytest.approx(0.0)
    assert apart[0] > apart[1] == apart[2] > apart[3]


def test_only_ratios_of_weights_matter() -> None:
    """The sum is normalized again."""
    parts = np.random.default_rng(0).normal(size=(12, 3))
    found = gdpo(parts, 4, [1.0, 2.0, 3.0], variant=PLAIN)
    np.testing.assert_allclose(gdpo(parts, 4, [10.0, 20.0, 30.0], variant=PLAIN), found, atol=1e-12)


@pytest.mark.parametrize("variant", GDPO_VARIANTS)
def test_equal_rewards_get_exactly_zero(variant: str) -> None:
    """Nothing to learn from, and no rounding that the batch would blow up."""
    parts = {"a": [0.1] * 12, "b": [1 / 3] * 12}
    assert (gdpo(parts, 4, variant=variant, lengths=np.arange(1, 13)) == 0.0).all()


def test_what_does_not_apply_is_left_out() -> None:
    """Of the sum where another part applies; of everything where none does."""
    parts = {"a": [1.0, 0.0, NAN, NAN], "b": [NAN, 5.0, 3.0, NAN]}
    half = math.sqrt(0.5)
    expected = np.array([half, 0.0, -half])  # a: ½√2, -½√2; b: ½√2, -½√2
    found = gdpo(parts, 4, variant=PLAIN)
    np.testing.assert_allclose(found[:3], expected / expected.std(ddof=1), atol=1e-12)
    assert math.isnan(found[3])
    assert gdpo(parts, 4, missing=0.0)[3] == 0.0


@pytest.mark.parametrize("variant", GDPO_VARIANTS)
def test_what_failed_takes_no_part_in_any_variant(variant: str) -> None:
    """A partial outage must not bias a group, even where absent rewards count as 0."""
    columns = {"a": [1.0, 0.0, 2.0, NAN], "b": [1.0, 2.0, 0.5, 9.0]}
    batch = RewardBatch(
        np.array([2.0, 2.0, 2.5, NAN]),
        errors={3: "late"},
        parts={name: RewardBatch(np.array(column)) for name, column in columns.items()},
    )
    found = gdpo(batch, ["p", "p", "p", "p"], dict.fromkeys(columns, 1.0), variant=variant, lengths=[1, 2, 3, 4])
    without = gdpo({name: column[:3] for name, column in columns.items()}, 3, variant=variant, lengths=[1, 2, 3])
    assert math.isnan(found[3])
    np.testing.assert_allclose(found[:3], without, atol=1e-12)


def test_a_composite() -> None:
    """Parts, weights and failures as the library makes them."""

    def flaky(sample: Sample) -> float:
        if sample.response == "boom":
            raise ConnectionError("hung up")
        return 1.0 if "4" in sample.response_text else 0.0

    reward = CompositeReward(
        {
            "right": (MaskErrors(FunctionReward(flaky), max_failure_rate=1.0), 1.0),
            "length": (FunctionReward(lambda sample: float(len(sample.response_text))), -0.1),
        }
    )
    samples = [Sample("2 + 2?", answer) for answer in ("4", "it is 4", "five", "boom")]
    batch = reward(samples)
    found = compute_advantages(batch, samples, "gdpo", weights=reward.weights, like="trl")
    expected = gdpo({"right": [1, 1, 0], "length": [1, 7, 4]}, 3, {"right": 1.0, "length": -0.1})
    np.testing.assert_allclose(found, [*expected, 0.0], atol=1e-12)


def test_conditions() -> None:
    """Equation 8: a short answer is worth nothing unless it is right; what cannot be decided is left out."""
    parts = {"right": [1.0, 0.0, 1.0, NAN], "short": [0.2, 0.9, 0.8, 0.5]}
    found = gdpo(parts, 4, conditions={"short": ("right", 1.0)}, variant=PLAIN)
    expected = gdpo({"right": parts["right"], "short": [0.2, 0.0, 0.8, NAN]}, 4, variant=PLAIN)
    np.testing.assert_array_equal(found, expected)
    tensor = gdpo(torch.tensor(list(parts.values())).T, 4, [1.0, 1.0], conditions={1: (0, 1.0)}, variant=PLAIN)
    np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-6)


def test_by_tokens() -> None:
    """Each sample counts as often as it has tokens, as if it were repeated."""
    variant = replace(GDPO_VARIANTS["verl"], batch_eps=0.0)
    rewards, lengths = [0.0, 1.0, 5.0, 2.0], [3, 1, 2, 4]
    scores = (np.array(rewards) - 2.0) / (np.std(rewards, ddof=1) + 1e-6)
    repeated = np.repeat(scores, lengths)
    expected = (scores - repeated.mean()) / repeated.std(ddof=1)
    np.testing.assert_allclose(gdpo({"only": rewards}, 4, variant=variant, lengths=lengths), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([1.0, 2.0], 2), {}, ConfigError, "rewards by part"),
        ((RewardBatch(np.array([1.0])), 1), {}, ConfigError, "no parts.*CompositeReward"),
        (({}, 1), {}, ConfigError, "no parts"),
        (({"a": [1.0], "b": [1.0, 2.0]}, 1), {}, InputError, "differ in length.*'a': 1, 'b': 2"),
        (({"a": [1.0, math.inf]}, 2), {}, InputError, "sample 1.*rewards of 'a'.*infinity"),
        (({"a": [1.0, 2.0]}, 2), {"variant": "verl"}, ConfigError, "give lengths"),
        (({"a": [1.0, 2.0]}, 2), {"variant": "paper"}, ConfigError, "variant must be one of trl, nvlabs"),
        (({"a": [1.0, 2.0]}, 2), {"variant": "verl", "lengths": [0, 0]}, InputError, "every length is 0"),
        (({"a": [1.0, 2.0]}, 2), {"conditions": {"b": ("a", 1.0)}}, ConfigError, "conditions names 'b'"),
        (({"a": [1.0, 2.0]}, 2), {"conditions": {"a": 1.0}}, ConfigError, "other part, at_least"),
        (({"a": [1.0, 2.0]}, 3), {}, InputError, "2 rewards do not divide"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[Any, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Each says what is missing or does not fit."""
    with pytest.raises(error, match=message):
        gdpo(*arguments, **options)


def test_a_variant_is_checked_when_it_is_made() -> None:
    """Not at the first step of training."""
    with pytest.raises(ConfigError, match="absent must be one of"):
        GdpoVariant(absent="zero")
