"""Group advantages: tables worked by hand, what takes no part, how groups are given, and invariants."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_rewards import Sample
from flux_rewards.advantages import (
    batch,
    best_worst,
    compute_advantages,
    dr_grpo,
    grpo,
    max_rl,
    opo,
    pass_at_k,
    rank,
    rloo,
)
from flux_rewards.errors import FluxRewardsError, InputError

NAN = math.nan
GROUP_METHODS: dict[str, Callable[..., Any]] = {
    "grpo": grpo,
    "grpo, others": lambda rewards, groups, **options: grpo(rewards, groups, leave_one_out=True, **options),
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "batch": batch,
    "rank": rank,
    "pass_at_k": pass_at_k,
    "best_worst": best_worst,
    "max_rl": max_rl,
    "opo": lambda rewards, groups, **options: opo(rewards, groups, np.arange(1, len(rewards) + 1), **options),
}

# Groups a, b, c lie mixed; c is alone. Rewards of a: 1, 2, 3; of b: 0, 4.
GROUPS = ["a", "b", "a", "c", "b", "a"]
REWARDS = [1.0, 0.0, 2.0, 7.0, 4.0, 3.0]
HALF = math.sqrt(0.5)
# All six: mean 17 / 6, sum of squares 79, so that the sum of squared deviations is 79 - 17² / 6 = 185 / 6.
BATCH_STD = math.sqrt(185 / 30)

BY_HAND: list[tuple[str, Callable[..., Any], dict[str, Any], list[float]]] = [
    ("z-score", grpo, {"eps": 0.0}, [-1, -HALF, 0, 0, HALF, 1]),
    ("z-score, n", grpo, {"eps": 0.0, "ddof": 0}, [-math.sqrt(1.5), -1, 0, 0, 1, math.sqrt(1.5)]),
    ("eps added", grpo, {"eps": 1.0}, [-0.5, -2 / (math.sqrt(8) + 1), 0, 0, 2 / (math.sqrt(8) + 1), 0.5]),
    ("eps as floor", grpo, {"eps": 2.0, "eps_rule": "max"}, [-0.5, -HALF, 0, 0, HALF, 0.5]),
    ("eps in the variance", grpo, {"eps": 8.0, "eps_rule": "variance"}, [-1 / 3, -0.5, 0, 0, 0.5, 1 / 3]),
    ("singleton keeps its reward", grpo, {"eps": 1.0, "singleton": "reward"}, [-0.5, -0.522408, 0, 3.5, 0.522408, 0.5]),
    # of a: against (2, 3): mean 2.5, std HALF; against (1, 3): 2, sqrt 2; against (1, 2). Of b one is left: undivided.
    ("others", grpo, {"eps": 0.0, "leave_one_out": True}, [-1.5 / HALF, -4, 0, 0, 4, 1.5 / HALF]),
    ("centred", dr_grpo, {}, [-1, -2, 0, 0, 2, 1]),
    ("centred, singleton", dr_grpo, {"singleton": "reward"}, [-1, -2, 0, 7, 2, 1]),
    ("leave one out", rloo, {}, [-1.5, -4, 0, 0, 4, 1.5]),
    ("rank", rank, {}, [-0.5, -0.5, 0, 0, 0.5, 0.5]),
    ("batch", batch, {"eps": 0.0}, [value / BATCH_STD for value in (-1, -2, 0, 0, 2, 1)]),
    ("batch mean", batch, {"eps": 0.0, "center": "batch"}, [(value - 17 / 6) / BATCH_STD for value in REWARDS]),
    ("best of k", pass_at_k, {"normalize": False}, [0, 0, 0, 0, 4, 1]),
    ("best of k, over std", pass_at_k, {"eps": 0.0}, [0, 0, 0, 0, math.sqrt(2), 1]),
    ("best and worst", best_worst, {"value": 2.0}, [-2, -2, 0, 0, 2, 2]),
    ("over the mean", max_rl, {"eps": 0.0}, [-0.5, -1, 0, 0, 1, 0.5]),
    # baselines: a (1·1 + 2·1 + 3·2) / 4 = 2.25; b 4·1 / 4 = 1
    ("by length", opo, {"lengths": [1, 3, 1, 5, 1, 2]}, [-1.25, -1, -0.25, 0, 3, 0.75]),
]


@pytest.mark.parametrize(("function", "options", "expected"), [row[1:] for row in BY_HAND], ids=[r[0] for r in BY_HAND])
def test_by_hand(function: Callable[..., Any], options: dict[str, Any], expected: list[float]) -> None:
    """Two groups that lie mixed, and one sample alone."""
    np.testing.assert_allclose(function(REWARDS, GROUPS, **options), expected, atol=1e-6)


TIES: list[tuple[str, Callable[..., Any], dict[str, Any], list[float], list[float]]] = [
    ("rank, two share", rank, {}, [1, 2, 2, 3], [-0.5, 0, 0, 0.5]),
    ("rank, best share", rank, {}, [5, 5, 1], [0.25, 0.25, -0.5]),
    ("rank, all share", rank, {}, [4, 4, 4, 4], [0, 0, 0, 0]),
    ("two best, none ahead", pass_at_k, {}, [3, 3, 1], [0, 0, 0]),
    ("best share", best_worst, {}, [3, 3, 1], [0.5, 0.5, -1]),
    ("worst each", best_worst, {"ties": "all"}, [3, 1, 1, 2], [1, -1, -1, 0]),
    ("the odd one against equals", grpo, {"leave_one_out": True}, [1, 0, 0], [1, *[-0.5 / (HALF + 1e-4)] * 2]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "options", "rewards", "expected"), [row[1:] for row in TIES], ids=[row[0] for row in TIES]
)
def test_ties(
    function: Callable[..., Any], options: dict[str, Any], rewards: list[float], expected: list[float]
) -> None:
    """Equal rewards get equal advantages."""
    np.testing.assert_allclose(function(rewards, len(rewards), **options), expected, atol=1e-12)


@pytest.mark.parametrize("name", GROUP_METHODS)
def test_equal_rewards_get_exactly_zero(name: str) -> None:
    """No trace of rounding, at any offset; a mean of equal floats is not always that float."""
    rewards = [0.1] * 7 + [1e16] * 3 + [1 / 3] * 11 + [0.7]
    groups = [0] * 7 + [1] * 3 + [2] * 11 + [3]
    assert (GROUP_METHODS[name](rewards, groups) == 0.0).all()


@pytest.mark.parametrize("name", GROUP_METHODS)
def test_no_score_takes_no_part(name: str) -> None:
    """The others are compared as if it were not there; it stays NaN, or gets what was asked for by name."""
    function: Callable[..., Any] = GROUP_METHODS[name]
    if name == "opo":

        def function(rewards: Any, groups: Any, **options: Any) -> Any:
            return opo(rewards, groups, np.ones(len(rewards)), **options)

    rewards = [1.0, NAN, 2.0, NAN, 4.0, NAN]
    groups = ["a", "a", "a", "b", "a", "c"]
    found = function(rewards, groups)
    assert np.isnan(found).tolist() == [False, True, False, True, False, True]
    np.testing.assert_allclose(found[[0, 2, 4]], function([1.0, 2.0, 4.0], 3))
    assert function(rewards, groups, missing=0.0)[[1, 3, 5]].tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(function([NAN, NAN], 2)).all()
    assert function([], []).shape == (0,)


def test_a_group_with_one_score_is_a_singleton() -> None:
    """What counts is how many were scored, not how many were sampled."""
    assert grpo([3.0, NAN, NAN], 3, missing=0.0).tolist() == [0.0, 0.0, 0.0]
    assert dr_grpo([3.0, NAN, NAN], 3, singleton="reward", missing=0.0).tolist() == [3.0, 0.0, 0.0]


SAMPLES = [Sample("a"), Sample("b", group_id=1), Sample("a"), Sample("c"), Sample("other", group_id=1), Sample("a")]


@pytest.mark.parametrize(
    "groups",
    [
        GROUPS,
        tuple(GROUPS),
        np.array(GROUPS),
        np.array(GROUPS, dtype=object),
        [0, 1, 0, 9, 1, 0],
        [(0, "x"), (1, "x"), (0, "x"), (9, "x"), (1, "x"), (0, "x")],
        np.array([5, -2, 5, 2**62, -2, 5]),
        np.array([1, 0, 1, 3, 0, 1], dtype=np.uint8),
        torch.tensor([5, -2, 5, 2**62, -2, 5]),
        list(torch.tensor([5, -2, 5, 2**62, -2, 5])),
        SAMPLES,
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', type(value[0]).__name__)}",
)
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_ways_to_say_groups(groups: Any, kind: Callable[..., Any]) -> None:
    """Ids of any kind, beside arrays and beside tensors."""
    assert [float(value) for value in dr_grpo(kind(REWARDS), groups)] == [-1, -2, 0, 0, 2, 1]


def test_narrow_integers() -> None:
    """Ids as far apart as their type allows."""
    ids = np.repeat(np.array([-128, 127, 0], dtype=np.int8), 100)
    np.testing.assert_array_equal(dr_grpo(np.arange(300.0), ids), dr_grpo(np.arange(300.0), 100))
    np.testing.assert_array_equal(dr_grpo([1.0, 3.0], np.array([2**64 - 1] * 2, dtype=np.uint64)), [-1.0, 1.0])


def test_a_number_is_a_group_size() -> None:
    """Consecutive runs, as trainers lay them out."""
    assert dr_grpo([1.0, 3.0, 10.0, 30.0], 2).tolist() == [-1, 1, -10, 10]
    assert dr_grpo(torch.tensor([1.0, 3.0, 10.0, 30.0]), np.int64(2)).tolist() == [-1, 1, -10, 10]


@pytest.mark.parametrize(
    ("rewards", "groups", "message"),
    [
        ([1.0, 2.0, 3.0], 2, "3 rewards do not divide into consecutive groups of 2"),
        ([1.0, 2.0], 0, "groups of 0"),
        ([1.0, 2.0, 3.0], ["a", "b"], "3 rewards, but 2 groups"),
        ([1.0, 2.0], np.zeros((2, 1), dtype=int), "shape"),
        ([1.0, 2.0], np.array([0.0, 1.0]), "whole numbers"),
        ([1.0, 2.0], [NAN, NAN], "sample 0.*nan"),
        ([1.0, 2.0], [1, None], "sample 1.*None"),
        ([1.0, 2.0], [[1], [2]], "hashable"),
        ([1.0, 2.0], "ab", "cannot be 'ab'"),
        ([1.0, 2.0], True, "cannot be True"),
        ([1.0, 2.0], None, "cannot be None"),
        ([1.0, 2.0], [Sample(response="x"), Sample(response="y")], "neither a group_id nor a prompt"),
        ([1.0, math.inf], 2, "sample 1.*infinity"),
        (torch.tensor([-math.inf, 1.0]), 2, "sample 0.*infinity"),
        ([1.0, "two"], 2, "must be numbers"),
        ([[[1.0], [2.0]]], 2, r"shape \(N,\)"),
    ],
)
def test_what_cannot_be_used(rewards: Any, groups: Any, message: str) -> None:
    """Errors say what was found and what to pass."""
    with pytest.raises(InputError, match=message):
        grpo(rewards, groups)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grpo([1.0], 1, ddof=2), "ddof must be 0"),
        (lambda: grpo([1.0], 1, eps=-1.0), "eps must be"),
        (lambda: grpo([1.0], 1, eps_rule="maximum"), "eps_rule must be one of add, max, variance"),
        (lambda: dr_grpo([1.0], 1, singleton="raw"), "singleton must be one of zero, reward"),
        (lambda: rank([1.0], 1, missing=math.inf), "missing must be"),
        (lambda: best_worst([1.0], 1, ties="none"), "ties must be one of share, all"),
        (lambda: opo([1.0], 1), "give lengths"),
        (lambda: max_rl([1.0, -1.0], 2), "found -1.0"),
        (lambda: opo([1.0, 2.0], 2, [1, 2, 3]), r"shape \(3,\) for 2 rewards"),
        (lambda: opo([1.0, 2.0], 2, [1, -1]), "sample 1.*found -1"),
        (lambda: opo([1.0, 2.0], 2, [0, 0]), "length 0"),
        (lambda: compute_advantages([1.0], 1, "gpro"), "did you mean 'grpo'"),
        (lambda: compute_advantages([1.0], 1, "grpo", epsilon=1.0), "no option 'epsilon'.*it takes ddof, eps"),
        (lambda: compute_advantages([1.0], 1, like="verll"), "did you mean 'verl'"),
        (lambda: compute_advantages([1.0], 1, "rank", like="verl"), "verl has no method 'rank'"),
        (lambda: compute_advantages([1.0], 1, weights={"a": 1.0}), "rewards by part"),
    ],
)
def test_wrong_options(call: Callable[[], Any], message: str) -> None:
    """Each names what is known."""
    with pytest.raises(FluxRewardsError, match=message):
        call()


def test_lengths_may_be_a_mask() -> None:
    """Its tokens are counted."""
    mask = np.array([[1, 0, 0], [1, 1, 1]])
    assert opo([1.0, 0.0], 2, mask).tolist() == opo([1.0, 0.0], 2, [1, 3]).tolist() == [0.75, -0.25]


@pytest.mark.parametrize("name", GROUP_METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_tensors_give_tensors(name: str, dtype: torch.dtype) -> None:
    """The same numbers as NumPy, in the type that came in, without a gradient."""
    generator = np.random.default_rng(3)
    rewards = torch.tensor(generator.integers(0, 9, 64) / 4, dtype=dtype)
    rewards[5] = NAN
    groups = generator.integers(0, 9, 64)
    found = GROUP_METHODS[name](rewards.clone().requires_grad_(), torch.tensor(groups))
    assert found.dtype == dtype
    assert not found.requires_grad
    expected = torch.tensor(GROUP_METHODS[name](rewards.double().numpy(), groups)).to(dtype)
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_whole_numbers_are_rewards_too() -> None:
    """Tensors of them give floats, and so do lists of booleans."""
    assert dr_grpo(torch.tensor([1, 3]), 2).tolist() == [-1.0, 1.0]
    assert dr_grpo([True, False], 2).tolist() == [0.5, -0.5]
    assert dr_grpo([1.0, None, 3.0], 3, missing=0.0).tolist() == [-1.0, 0.0, 1.0]


def test_inputs_are_left_alone() -> None:
    """Neither arrays nor tensors are written to."""
    array, tensor = np.array(REWARDS), torch.tensor(REWARDS)
    for function in GROUP_METHODS.values():
        function(array, GROUPS)
        function(tensor, GROUPS)
    assert array.tolist() == tensor.tolist() == REWARDS


GROUPED = st.lists(st.tuples(st.integers(-8, 8), st.integers(0, 5)), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(rows=GROUPED, seed=st.integers(0, 99), name=st.sampled_from([n for n in GROUP_METHODS if n != "opo"]))
def test_order_does_not_matter(rows: list[tuple[int, int]], seed: int, name: str) -> None:
    """Permuting the samples permutes the advantages."""
    rewards, groups = np.array([abs(value) / 3 for value, _ in rows]), np.array([group for _, group in rows])
    order = np.random.default_rng(seed).permutation(len(rows))
    found = GROUP_METHODS[name](rewards, groups)
    np.testing.assert_allclose(GROUP_METHODS[name](rewards[order], groups[order]), found[order], atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(rows=GROUPED, shift=st.integers(-100, 100), factor=st.sampled_from([0.5, 4.0]))
def test_shift_and_scale(rows: list[tuple[int, int]], shift: int, factor: float) -> None:
    """Every group method forgets a shift; z-scores and ranks a factor too; centred ones keep it."""
    rewards, groups = np.array([float(value) for value, _ in rows]), np.array([group for _, group in rows])
    other = rewards * factor + shift
    np.testing.assert_allclose(grpo(other, groups, eps=0.0), grpo(rewards, groups, eps=0.0), atol=1e-9)
    np.testing.assert_allclose(rank(other, groups), rank(rewards, groups), atol=1e-9)
    np.testing.assert_allclose(best_worst(other, groups), best_worst(rewards, groups), atol=1e-9)
    for name in ("dr_grpo", "rloo"):
        np.testing.assert_allclose(
            GROUP_METHODS[name](other, groups), factor * GROUP_METHODS[name](rewards, groups), atol=1e-9
        )


@settings(max_examples=40, deadline=None)
@given(rows=GROUPED)
def test_a_group_sums_to_zero(rows: list[tuple[int, int]]) -> None:
    """For every method whose baseline is the mean of the group."""
    rewards, groups = np.array([abs(float(value)) for value, _ in rows]), np.array([group for _, group in rows])
    for name in ("grpo", "dr_grpo", "rloo", "batch", "rank", "best_worst", "max_rl"):
        sums = np.bincount(groups, weights=GROUP_METHODS[name](rewards, groups))
        np.testing.assert_allclose(sums, 0.0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(rows=GROUPED)
def test_ranks_are_win_rates(rows: list[tuple[int, int]]) -> None:
    """The share of the others that a sample beats, ties counted half, less a half; counted pair by pair."""
    expected = []
    for position, (value, group) in enumerate(rows):
        others = [other for index, (other, its) in enumerate(rows) if its == group and index != position]
        wins = sum(1.0 if value > other else 0.5 if value == other else 0.0 for other in others)
        expected.append(wins / len(others) - 0.5 if others else 0.0)
    found = rank([float(value) for value, _ in rows], [group for _, group in rows])
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_large_offsets_cost_no_digits() -> None:
    """Deviations are formed before they are squared."""
    np.testing.assert_allclose(grpo([1e9 + 1, 1e9 + 2, 1e9 + 3], 3, eps=0.0), [-1, 0, 1], atol=1e-12)
