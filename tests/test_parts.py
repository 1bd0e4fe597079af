"""What a score is made of: parts that a reward's author gives, row by row, and what becomes of them."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from flux_rewards import (
    Cached,
    Clip,
    CompositeReward,
    ComputeError,
    ContractError,
    GroupRank,
    MaskErrors,
    RewardBuffer,
    RewardFunction,
    RewardOutput,
    Sample,
    Scale,
)


class Essay(RewardFunction):
    """Parts as a sample's metadata tell; the score is their sum."""

    required_fields = ("metadata",)

    def compute_reward(self, sample: Sample) -> Any:
        parts = sample.metadata.get("parts")
        if parts is None:
            return sample.metadata.get("reward")
        reward = sample.metadata.get("reward")
        if reward is None:
            reward = sum(float(part) for part in parts.values() if part is not None)
        return RewardOutput(reward, parts=parts)


def samples(*parts: Any, **common: Any) -> list[Sample]:
    """One for each mapping of parts; None for a row without any."""
    return [
        Sample("q", str(number), metadata={"reward": 7.0} if each is None else {"parts": each}, **common)
        for number, each in enumerate(parts)
    ]


MIXED = samples({"a": 1.0, "b": 0.5}, {"a": 2.0, "b": None}, None, {"c": 3.0}, {"a": 1 / 3, "b": 0.0})


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"batch_size": 2, "num_workers": 3}])
def test_rows_become_columns(options: Any) -> None:
    """A part that a row has not, or that does not apply to it, is NaN there, and no failure."""
    batch = Essay(**options)(MIXED)
    assert batch.rewards.tolist() == pytest.approx([1.5, 2.0, 7.0, 3.0, 1 / 3])
    assert sorted(batch.parts) == ["a", "b", "c"]
    np.testing.assert_array_equal(batch.parts["a"].rewards, [1.0, 2.0, np.nan, np.nan, 1 / 3])
    np.testing.assert_array_equal(batch.parts["b"].rewards, [0.5, np.nan, np.nan, np.nan, 0.0])
    np.testing.assert_array_equal(batch.parts["c"].rewards, [np.nan, np.nan, np.nan, 3.0, np.nan])
    assert [part.errors for part in batch.parts.values()] == [{}] * 3


def test_rows_give_their_parts_back() -> None:
    """To the last bit, by position, in slices, and in a pickle."""
    batch = Essay()(MIXED)
    assert batch[0].parts == {"a": 1.0, "b": 0.5, "c": None}
    assert batch[-1].parts == {"a": 1 / 3, "b": 0.0, "c": None}
    assert [row.parts["a"] for row in batch[1:4]] == [2.0, None, None]
    assert batch.select([4, 0])[0].parts == batch[4].parts
    assert [row.parts for row in pickle.loads(pickle.dumps(batch))] == [row.parts for row in batch]


def test_without_parts_there_are_none() -> None:
    """As it was."""
    batch = Essay()(samples(None, None))
    assert batch.parts == {}
    assert batch[0].parts == {}
    assert RewardOutput(1.0).parts == {}


@pytest.mark.parametrize(
    "value", [1, np.float32(1), np.int64(1), torch.tensor(1.0), torch.tensor([1.0]).requires_grad_()]
)
def test_a_part_is_any_number(value: Any) -> None:
    """A float once it is there."""
    part = RewardOutput(0.0, parts={"a": value}).parts["a"]
    assert (type(part), part) == (float, 1.0)


@pytest.mark.parametrize("value", ["1", b"1", [1.0], {}, object()])
def test_a_part_that_is_no_number_is_refused(value: Any) -> None:
    """By its name."""
    with pytest.raises(ContractError, match="the part 'a'"):
        RewardOutput(0.0, parts={"a": value})
    with pytest.raises(ContractError, match="the part 'a'"):
        Essay()([Sample("q", "r", metadata={"parts": {"a": value}, "reward": 1.0})])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, torch.tensor(math.nan)])
def test_a_part_that_is_not_finite_is_a_failure(value: Any) -> None:
    """Of the whole row: a score that is made of it would be wrong; its neighbours keep theirs."""
    rows = samples({"a": 1.0}, {"a": value, "b": 1.0}, {"a": 2.0})
    with pytest.raises(ComputeError) as caught:
        Essay()(rows)
    assert caught.value.index == 1
    rows[1] = Sample("q", "1", metadata={"parts": {"a": value, "b": 1.0}, "reward": 0.5})  # though the score is finite
    batch = MaskErrors(Essay(), 1.0)(rows)
    np.testing.assert_array_equal(batch.rewards, [1.0, np.nan, 2.0])
    assert list(batch.errors) == [1]
    np.testing.assert_array_equal(batch.parts["a"].rewards, [1.0, np.nan, 2.0])
    np.testing.assert_array_equal(batch.parts["b"].rewards, [np.nan] * 3)


def test_parts_of_a_row_that_failed_failed() -> None:
    """What was found before is no score."""

    class Half(RewardFunction):
        def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
            return [RewardOutput(error="late", parts={"a": 1.0}), RewardOutput(2.0, parts={"a": 2.0})]

    batch = MaskErrors(Half(), 1.0)([Sample("q"), Sample("r")])
    np.testing.assert_array_equal(batch.parts["a"].rewards, [np.nan, 2.0])
    assert list(batch.parts["a"].errors) == [0]


def test_parts_of_a_row_to_which_the_reward_does_not_apply() -> None:
    """Stay: some aspects may apply that weigh nothing."""

    class Unweighed(RewardFunction):
        def compute_reward(self, sample: Sample) -> RewardOutput:
            return RewardOutput(None, parts={"a": 1.0})  # type: ignore[arg-type]

    batch = Unweighed()([Sample("q")])
    assert (batch.errors, batch.not_applicable.tolist()) == ({}, [True])
    assert batch.parts["a"].rewards.tolist() == [1.0]


def inner(batch: Any) -> Any:
    """The batch of the reward itself, however deep it lies."""
    while "a" not in batch.parts:
        [batch] = batch.parts.values()
    return batch


TREES: dict[str, Any] = {
    "a composite": lambda: CompositeReward([(Essay(), 0.5)]),
    "a scale": lambda: Scale(Essay(), 2.0),
    "a clip": lambda: Clip(Essay(), 0.0, 1.0),
    "a rank": lambda: GroupRank(Essay()),
    "a cache": lambda: Cached(Essay()),
    "a mask": lambda: MaskErrors(Essay()),
    "all of them": lambda: CompositeReward([(Scale(GroupRank(MaskErrors(Cached(Essay()))), 3.0), 0.5)]),
}


@pytest.mark.parametrize("tree", TREES)
def test_parts_go_through(tree: str) -> None:
    """Whatever is around the reward: unweighted, unscaled, to the last bit; the first time and the second."""
    reward = TREES[tree]()
    for _ in range(2):
        found = inner(reward(MIXED))
        np.testing.assert_array_equal(found.parts["a"].rewards, [1.0, 2.0, np.nan, np.nan, 1 / 3])
        np.testing.assert_array_equal(found.parts["c"].rewards, [np.nan, np.nan, np.nan, 3.0, np.nan])


def test_parts_go_through_a_buffer() -> None:
    """In the order in which samples were added."""
    with RewardBuffer(Essay()) as buffer:
        for sample in MIXED:
            buffer.add([sample])
        batch = buffer.finalize(timeout=20)
    np.testing.assert_array_equal(batch.parts["a"].rewards, [1.0, 2.0, np.nan, np.nan, 1 / 3])


def test_parts_do_not_mix_with_components_of_their_name() -> None:
    """A component has its parts below itself."""
    batch = CompositeReward([(Essay(name="a"), 1.0), (Essay(name="b"), 1.0)])(MIXED[:1])
    assert sorted(batch.parts) == ["a", "b"]
    assert batch.parts["a"].parts["b"].rewards.tolist() == [0.5]


class Together(RewardFunction):
    """Scores a group at a time."""

    scope = "group"

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        return [RewardOutput(1.0, parts={"size": len(samples), sample.prompt: 1.0}) for sample in samples]  # type: ignore[dict-item]


def test_parts_of_groups() -> None:
    """Groups may have parts of their own."""
    batch = Together()([Sample("x"), Sample("y"), Sample("x")])
    assert batch.parts["size"].rewards.tolist() == [2.0, 1.0, 2.0]
    np.testing.assert_array_equal(batch.parts["x"].rewards, [1.0, np.nan, 1.0])
