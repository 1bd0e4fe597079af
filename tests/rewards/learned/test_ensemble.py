"""EnsembleReward against numbers worked by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from flux_rewards import ConfigError, FunctionReward, GroupNormalize, InputError, MaskErrors, Sample
from flux_rewards.rewards.learned.ensemble import EnsembleReward
from flux_rewards.testing import Check, characters, reward_checks


def noted(key: str) -> FunctionReward:
    """Says what the metadata say; "down" fails."""

    def score(sample: Sample) -> float | None:
        value: Any = sample.metadata[key]
        if value == "down":
            raise RuntimeError("no answer")
        return None if value is None else float(value)

    return FunctionReward(score, name=key)


def ensemble(aggregate: str = "mean", **options: Any) -> EnsembleReward:
    return EnsembleReward([noted("a"), noted("b"), noted("c")], aggregate, **options)


def samples(*rows: tuple[Any, Any, Any]) -> list[Sample]:
    return [Sample(metadata=dict(zip("abc", row, strict=True))) for row in rows]


ROWS = samples((1, 2, 6), (4, 4, 4), (0, None, 3), (None, 5, None), (None, None, None))
NAN = math.nan


@pytest.mark.parametrize(
    ("aggregate", "options", "expected"),
    [
        ("mean", {}, [3, 4, 1.5, 5, NAN]),
        ("median", {}, [2, 4, 1.5, 5, NAN]),
        ("min", {}, [1, 4, 0, 5, NAN]),
        ("mean_minus_variance", {}, [3 - 14 / 3, 4, 1.5 - 2.25, 5, NAN]),
        ("mean_minus_variance", {"penalty": 0.5, "ddof": 1}, [3 - 3.5, 4, 1.5 - 2.25, NAN, NAN]),
        ("mean", {"scales": [(1, 1), (0, 2), (0, 3)]}, [1, (3 + 2 + 4 / 3) / 3, 0, 2.5, NAN]),
        ("min", {"scales": {"c": (0, 3), "a": (1, 1), "b": (0, 2)}}, [0, 4 / 3, -1, 2.5, NAN]),
    ],
)
def test_folds(aggregate: str, options: dict[str, Any], expected: list[float]) -> None:
    """Members that don't apply are left out; on the gradient path, too."""
    reward = ensemble(aggregate, **options)
    batch = reward(ROWS)
    np.testing.assert_allclose(batch.rewards, expected)
    assert batch.parts["b"].rewards[0] == 2
    scores = [torch.tensor(part.rewards) for part in batch.parts.values()]
    np.testing.assert_allclose(reward.fold(scores), expected)


@pytest.mark.parametrize(
    ("aggregate", "options", "expected"),
    [
        ("mean", {}, [3, 4, 1.5, 5, NAN]),
        ("median", {}, [2, 4, 1.5, 5, NAN]),
        ("min", {}, [6, 4, 3, 5, NAN]),
        ("min", {"scales": [(1, 1), (0, 2), (0, 3)]}, [2, 3, 1, 2.5, NAN]),
        ("mean_minus_variance", {}, [3 + 14 / 3, 4, 1.5 + 2.25, 5, NAN]),
        ("mean_minus_variance", {"penalty": 0.5, "ddof": 1}, [3 + 3.5, 4, 1.5 + 2.25, NAN, NAN]),
    ],
)
def test_folds_are_careful_where_less_is_better(aggregate: str, options: dict[str, Any], expected: list[float]) -> None:
    """The most critical member says the most, and disagreement costs; on the gradient path, too."""
    members = [noted(key) for key in "abc"]
    for member in members:
        member.higher_is_better = False
    reward = EnsembleReward(members, aggregate, **options)
    batch = reward(ROWS)
    assert not reward.higher_is_better
    np.testing.assert_allclose(batch.rewards, expected)
    np.testing.assert_allclose(reward.fold([torch.tensor(part.rewards) for part in batch.parts.values()]), expected)


def test_disagreement_is_told() -> None:
    """The standard deviation of those that apply, and how many they are."""
    found = ensemble()(ROWS).metadata
    assert [row["members"] for row in found] == [3, 3, 2, 1, 0]
    assert [row["disagreement"] for row in found] == [pytest.approx(math.sqrt(14 / 3)), 0, 1.5, 0, None]
    assert ensemble(ddof=1)(ROWS).metadata[3]["disagreement"] is None


def test_a_failed_member_fails_the_sample() -> None:
    """An outage of one must not bias a group."""
    members = [MaskErrors(noted(key), max_failure_rate=1.0, name=key) for key in "ab"]
    batch = EnsembleReward(members, "min")(samples((1, 2, 0), (1, "down", 0)))
    assert batch.rewards[0] == 1
    assert batch.errors == {1: batch.errors[1]}
    assert "b: " in batch.errors[1]
    assert "no answer" in batch.errors[1]


def test_scales_are_measured_and_stay() -> None:
    """With them, each member has mean 0 and deviation 1 on those samples; a sample's reward has no neighbours."""
    rows = samples((1, 10, 5), (3, 30, 5.5), (5, 20, 7))
    reward = EnsembleReward.measured([noted("a"), noted("b"), noted("c")], rows, "mean")
    assert isinstance(reward.scales, dict)
    assert reward.scales["a"] == pytest.approx((3, math.sqrt(8 / 3)))
    assert reward.scales["b"] == pytest.approx((20, math.sqrt(200 / 3)))
    assert reward.scales["c"] == pytest.approx((35 / 6, np.std([5, 5.5, 7])))
    np.testing.assert_allclose(reward(rows).rewards.mean(), 0, atol=1e-12)
    assert reward(rows[:1]).rewards[0] == reward(rows).rewards[0]
    with pytest.raises(InputError, match="cannot be measured"):
        EnsembleReward.measured([noted("a")], samples((1, 0, 0), (1, 0, 0)))


def test_members_may_compare_groups() -> None:
    """Then so does the ensemble."""
    reward = EnsembleReward([GroupNormalize(noted("a")), noted("b")])
    assert reward.scope == "group"
    assert reward.bounds is None


def test_bounds_are_those_of_the_scaled_members() -> None:
    """But for the variance, which has none."""
    low = FunctionReward(characters, name="low", clip=(0, 1))
    high = FunctionReward(characters, name="high", clip=(0, 10))
    assert EnsembleReward([low, high], scales=[(0, 1), (5, 5)]).bounds == (-1, 1)
    assert EnsembleReward([low, high], "mean_minus_variance").bounds is None


@pytest.mark.parametrize(
    "parameters",
    [
        {"rewards": []},
        {"rewards": [3]},
        {"rewards": "length"},
        {"aggregate": "max"},
        {"penalty": -1},
        {"ddof": 2},
        {"scales": [(0, 1)]},
        {"scales": [(0, 1), (0, 0), (0, 1)]},
        {"scales": {"a": (0, 1)}},
        {"scales": [1, 2, 3]},
        {"rewards": [noted("a"), FunctionReward(characters, scale=-1.0)]},
    ],
)
def test_bad_arguments_are_refused(parameters: dict[str, Any]) -> None:
    """When it is made."""
    with pytest.raises(ConfigError):
        EnsembleReward(**{"rewards": [noted("a"), noted("b"), noted("c")], **parameters})


MEMBERS = [
    FunctionReward("flux_rewards.testing.characters", name="one"),
    FunctionReward("flux_rewards.testing.characters", name="two", scale=0.5),
]


@pytest.mark.parametrize("check", reward_checks(EnsembleReward(MEMBERS, "mean_minus_variance")), ids=str)
def test_the_contract_is_kept(check: Check) -> None:
    """As by every reward."""
    check()
