"""Weighted sums, products and gates."""

from typing import Any

import numpy as np
import pytest
from rewards_of_our_own import Characters, Told, Watched, told

from flux_rewards import (
    Clip,
    CompositeReward,
    ComputeError,
    ConfigError,
    ContractError,
    FunctionReward,
    Gate,
    MaskErrors,
    Product,
    RewardBatch,
    RewardOutput,
    Sample,
    Scale,
)

NAN = float("nan")


def a_and_b(*rows: tuple[Any, Any]) -> list[Sample]:
    """Samples that tell two rewards what to say."""
    return [Sample("q", metadata={"a": a, "b": b}) for a, b in rows]


def parts(weight_a: float = 1.0, weight_b: float = -1.0, **options: Any) -> CompositeReward:
    """A composite of two told rewards."""
    return CompositeReward({"a": (Told("a"), weight_a), "b": (Told("b"), weight_b)}, **options)


def test_weights_are_as_given_signs_and_all() -> None:
    """The seed turned (+1, -1) into (0.5, 0.5)."""
    assert parts(1.0, -1.0)(a_and_b((3.0, 1.0))).rewards.tolist() == [2.0]
    assert parts(0.7, 0.3)(a_and_b((1.0, 0.5))).rewards.tolist() == [pytest.approx(0.85)]
    assert parts(2.0, 0.0)(a_and_b((1.0, 5.0))).rewards.tolist() == [2.0]


def test_weights_are_normalized_on_request() -> None:
    """By the sum of their absolute values, so that signs stay."""
    composite = parts(3.0, -1.0, normalize_weights=True)
    assert composite.weights == {"a": 0.75, "b": -0.25}
    assert composite(a_and_b((1.0, 1.0))).rewards.tolist() == [0.5]
    with pytest.raises(ConfigError, match="all zero"):
        parts(0.0, 0.0, normalize_weights=True)


def test_a_part_that_does_not_apply_is_left_out() -> None:
    """It is no zero in an average, and all of them not applicable is NaN."""
    batch = parts(1.0, -2.0)(a_and_b((3.0, 1.0), (None, 1.0), (3.0, None), (None, None)))
    np.testing.assert_array_equal(batch.rewards, [1.0, -2.0, 3.0, NAN])
    assert batch.errors == {}
    assert batch.not_applicable.tolist() == [False, False, False, True]


def test_a_part_that_failed_makes_the_total_nan_with_its_reason() -> None:
    """A partial outage must not bias a group."""
    composite = CompositeReward({"a": (Told("a"), 1.0), "b": (MaskErrors(Told("b"), 1.0), 1.0)})
    batch = composite(a_and_b((3.0, 1.0), (3.0, TimeoutError("30 s")), (3.0, None)))
    np.testing.assert_array_equal(batch.rewards, [4.0, NAN, 3.0])
    assert batch.errors == {1: "b: TimeoutError: 30 s"}
    assert batch.parts["b"].errors == {1: "TimeoutError: 30 s"}
    with pytest.raises(ComputeError, match="30 s"):
        parts()(a_and_b((3.0, TimeoutError("30 s"))))


def test_a_sum_too_large_for_a_number_is_a_failure() -> None:
    """Not infinity, and not a warning of NumPy."""
    with pytest.raises(ComputeError, match="too large") as caught:
        parts(1e300, 1.0)(a_and_b((1.0, 1.0), (1e300, 1.0)))
    assert caught.value.index == 1


def test_parts_hold_the_raw_values() -> None:
    """Before their weights."""
    batch = parts(10.0, 20.0)(a_and_b((1.0, 2.0)))
    assert {name: part.rewards.tolist() for name, part in batch.parts.items()} == {"a": [1.0], "b": [2.0]}


def test_parts_of_one_class_get_distinct_names() -> None:
    """None is lost."""
    composite = CompositeReward([(Told("a"), 1.0), (Told("b"), 2.0), (Told("a", name="Told_2"), 4.0), (Told("b"), 8.0)])
    assert list(composite.weights) == ["Told", "Told_3", "Told_2", "Told_4"]
    batch = composite(a_and_b((1.0, 10.0)))
    assert batch.rewards.tolist() == [1.0 + 20.0 + 4.0 + 80.0]


def test_scale_and_clip_of_a_part_hold() -> None:
    """As transforms, and as the reward's own."""
    composite = CompositeReward([(Clip(Scale(Told("a"), 0.1), -0.5, 0.5), 1.0), (Told("b", scale=0.1, clip=0.5), 1.0)])
    assert composite(a_and_b((10.0, 10.0))).rewards.tolist() == [1.0]


def test_composites_nest() -> None:
    """A part may be a composite."""
    outer = CompositeReward([(parts(1.0, 1.0, name="inner"), 0.5), (Told("a"), 1.0)])
    batch = outer(a_and_b((2.0, 4.0)))
    assert batch.rewards.tolist() == [5.0]
    assert batch.parts["inner"].parts["b"].rewards.tolist() == [4.0]


def tokens(*values: float) -> RewardOutput:
    """An output whose token rewards are given."""
    return RewardOutput(sum(values), token_rewards=values)


def test_token_rewards_combine_by_the_same_weights() -> None:
    """And parts without any add nothing."""
    batch = parts(1.0, -2.0)(
        a_and_b((tokens(1, 2), tokens(3, 4)), (tokens(1, 2), 5.0), (1.0, 1.0), (tokens(1.0), None))
    )
    assert batch.rewards.tolist() == [-11.0, -7.0, -1.0, 1.0]
    assert batch.token_rewards is not None
    assert [None if row is None else row.tolist() for row in batch.token_rewards] == [[-5, -6], [1, 2], None, [1]]


def test_token_rewards_that_do_not_line_up_are_refused() -> None:
    """With the parts, the lengths and the sample."""
    with pytest.raises(ContractError, match=r"'a': 2, 'b': 3") as caught:
        parts()(a_and_b((1.0, 1.0), (tokens(1, 2), tokens(1, 2, 3))))
    assert caught.value.index == 1


def test_a_part_that_does_not_apply_adds_no_token_rewards() -> None:
    """They are the dense view of a reward that is not there."""
    batch = parts(1.0, 2.0)(a_and_b((tokens(1, 2), RewardOutput(None, token_rewards=[5, 5])), (None, None)))  # type: ignore[arg-type]
    assert batch.token_rewards is not None
    assert [None if row is None else row.tolist() for row in batch.token_rewards] == [[1, 2], None]


def test_token_rewards_too_large_for_a_number_are_a_failure() -> None:
    """As for the sum."""
    with pytest.raises(ComputeError, match="token reward is too large"):
        parts(1e300, 1.0)(a_and_b((RewardOutput(0.0, token_rewards=[1e300]), 1.0)))


def test_a_failed_sample_has_no_token_rewards() -> None:
    """The dense view of NaN is nothing."""
    composite = CompositeReward({"a": (Told("a"), 1.0), "b": (MaskErrors(Told("b"), 1.0), 1.0)})
    batch = composite(a_and_b((tokens(1, 2), ValueError("bad")), (tokens(1, 2), 1.0)))
    assert batch.token_rewards is not None
    assert batch.token_rewards[0] is None


def test_bounds_follow_from_the_parts() -> None:
    """0 belongs to each part's range, since it may not apply."""
    low = FunctionReward(lambda s: 0.0, clip=(-1.0, 0.5))
    high = FunctionReward(lambda s: 0.0, clip=(2.0, 3.0))
    assert CompositeReward([(low, 2.0), (high, -1.0)]).bounds == (-5.0, 1.0)
    assert CompositeReward([(low, 2.0), (Characters(), 1.0)]).bounds is None


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([], "at least one part"),
        ({}, "at least one part"),
        (Characters(), "at least one part"),
        ([Characters()], "part 0 must be"),
        ([(Characters(), 1.0), (len, 1.0)], "part 1 must be"),
        ([(Characters(), "1")], "weight of part 0"),
        ([(Characters(), NAN)], "finite"),
        ([(Characters(), True)], "weight of part 0"),
        ([(Characters, 1.0)], "part 0 must be"),
    ],
)
def test_bad_parts_are_refused(rewards: Any, message: str) -> None:
    """When the composite is made."""
    with pytest.raises(ConfigError, match=message):
        CompositeReward(rewards)


def test_a_product_multiplies_what_applies() -> None:
    """Left out where not applicable, NaN where failed."""
    product = Product({"a": Told("a"), "b": MaskErrors(Told("b"), 1.0)})
    batch = product(a_and_b((2.0, 3.0), (2.0, None), (None, None), (2.0, ValueError("bad"))))
    np.testing.assert_array_equal(batch.rewards, [6.0, 2.0, NAN, NAN])
    assert batch.errors == {3: "b: ValueError: bad"}
    assert list(Product([Told("a"), Told("b")])(a_and_b((1.0, 1.0))).parts) == ["Told", "Told_2"]
    with pytest.raises(ConfigError, match="at least one"):
        Product([])
    with pytest.raises(ConfigError, match="factor 0"):
        Product([3])  # type: ignore[list-item]


def test_a_gate_opens_at_its_threshold() -> None:
    """And follows `when` where that does not apply."""
    gate = Gate(Told("a"), when=Told("b"), at_least=0.5)
    batch = gate(a_and_b((7.0, 1.0), (7.0, 0.5), (7.0, 0.4), (7.0, None), (None, 1.0)))
    np.testing.assert_array_equal(batch.rewards, [7.0, 7.0, 0.0, NAN, NAN])
    assert Gate(Told("a"), Told("b"), 0.5, otherwise=-1.0)(a_and_b((7.0, 0.0))).rewards.tolist() == [-1.0]
    assert np.isnan(Gate(Told("a"), Told("b"), 0.5, otherwise=None)(a_and_b((7.0, 0.0))).rewards[0])


def test_failures_at_a_gate() -> None:
    """A failure of `when` is one of the gate; one of the gated reward counts only where the gate is open."""
    gate = MaskErrors(Gate(Told("a"), when=Told("b"), at_least=0.5), 1.0)
    batch = gate(a_and_b((ValueError("a"), 1.0), (ValueError("a"), 0.0), (1.0, ValueError("b"))))
    np.testing.assert_array_equal(batch.rewards, [NAN, 0.0, NAN])
    assert set(batch.errors) == {0, 2}


def test_a_gate_shares_the_result_of_when() -> None:
    """The composite that already has it computes it once."""
    when = Watched()
    composite = CompositeReward([(when, 1.0), (Gate(Characters(), when, at_least=2.0), 1.0)])
    assert composite([Sample(response="ab"), Sample(response="a")]).rewards.tolist() == [4.0, 1.0]
    assert when.calls == [2]


def test_results_are_rows_too() -> None:
    """A composite is a reward: it may be called by whoever expects rows."""
    batch = parts().compute_rewards(a_and_b((1.0, 2.0)))
    assert isinstance(batch, RewardBatch)
    row = parts().compute_reward(a_and_b((1.0, 2.0))[0])
    assert isinstance(row, RewardOutput)
    assert row.reward == -1.0
    assert told(1.0)[0].prompt == "q"
