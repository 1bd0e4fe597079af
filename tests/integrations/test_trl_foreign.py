"""Reward functions that were written for TRL, and TRL's own, as rewards of this library."""

import asyncio
import functools
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from flux_rewards import (
    Cached,
    CompositeReward,
    ComputeError,
    ConfigError,
    ContractError,
    InputError,
    LengthReward,
    MaskErrors,
    Sample,
)
from flux_rewards.integrations import trl
from flux_rewards.testing import reward_checks


def echo(**given: Any) -> list[float]:
    """Keeps what it is given."""
    GIVEN.append(given)
    return [1.0] * len(given["completions"])


GIVEN: list[dict[str, Any]] = []
TALK = [{"role": "system", "content": "Count."}, {"role": "user", "content": "6 * 7?"}]
SAID = [{"role": "assistant", "content": "42"}]
SAMPLES = [
    Sample(TALK, SAID, reference="42", token_ids=[4, 2], metadata={"level": 3}),
    Sample("7 * 7?", "49", reference="49", token_ids=[4, 9]),
]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"solution": ["42", "49"], "answer": ["42", "49"], "ground_truth": ["42", "49"], "level": [3, None]}),
        ({"columns": {"gold": "reference", "hard": "level"}}, {"gold": ["42", "49"], "hard": [3, None]}),
        ({"columns": {"answer": "level"}}, {"answer": [3, None], "solution": ["42", "49"]}),
        ({"conversational": True}, {"completions": [SAID, [{"role": "assistant", "content": "49"}]]}),
        ({"conversational": True}, {"prompts": [TALK, [{"role": "user", "content": "7 * 7?"}]]}),
        ({"conversational": False}, {"prompts": ["6 * 7?", "7 * 7?"], "completions": ["42", "49"]}),
        ({}, {"prompts": [TALK, "7 * 7?"], "completions": [SAID, "49"], "completion_ids": [[4, 2], [4, 9]]}),
    ],
)
def test_what_a_function_is_given(options: dict[str, Any], expected: dict[str, Any]) -> None:
    """TRL's names, the reference under the usual ones, metadata by their keys; texts and messages as wanted."""
    GIVEN.clear()
    assert trl.from_trl(echo, **options)(SAMPLES).rewards.tolist() == [1.0, 1.0]
    (given,) = GIVEN
    assert {name: given[name] for name in expected} == expected
    assert callable(given["log_extra"])
    assert callable(given["log_metric"])


def test_what_samples_lack_is_not_given() -> None:
    """So that a function's own defaults hold."""
    GIVEN.clear()
    trl.from_trl(echo)([Sample("p", "c", token_ids=[1]), Sample("p", "d")])
    assert GIVEN[0].keys() == {"prompts", "completions", "log_extra", "log_metric"}


def by_sign(completions: Sequence[str], **_: Any) -> list[float | None]:
    """None for zero, the number else."""
    numbers = [float(text) for text in completions]
    return [None if number == 0 else number for number in numbers]


async def awaited(completions: Sequence[str], **_: Any) -> list[float | None]:
    """The same, on an event loop."""
    await asyncio.sleep(0.001)
    LOOPS.append(threading.current_thread().name)
    return by_sign(completions)


class Awaited:
    """The same, as an object."""

    async def __call__(self, completions: Sequence[str], **_: Any) -> list[float | None]:
        return await awaited(completions)


LOOPS: list[str] = []


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (by_sign, "by_sign"),
        (awaited, "awaited"),
        (Awaited(), "Awaited"),
        (functools.partial(by_sign, level=2), "by_sign"),
    ],
)
def test_scores_of_functions_of_all_kinds(function: Callable[..., Any], name: str) -> None:
    """None does not apply; an exception is a failure; they pickle, and share the library's own loop."""
    LOOPS.clear()
    reward = pickle.loads(pickle.dumps(trl.from_trl(function)))
    assert reward.name == name
    batch = reward(response=["1", "0", "-2.5"])
    np.testing.assert_array_equal(batch.rewards, [1.0, np.nan, -2.5])
    assert not batch.errors
    assert set(LOOPS) <= {"flux-rewards-event-loop"}
    with pytest.raises(ComputeError, match=f"'{name}'.*ValueError: could not convert string to float: 'x'"):
        reward(response=["1", "x"])


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ([1.0, float("nan")], ComputeError, "sample 1: computed nan, not a finite score"),
        ([1.0], ContractError, "returned 1 scores for 2 completions"),
        (["good", "bad"], ContractError, "a number"),
        (1.0, ContractError, "expected a list of 2 scores"),
        ({"score": 1.0, "more": 2.0}, ContractError, "expected a list of 2 scores"),
    ],
)
def test_what_is_no_score_is_a_failure(returned: Any, error: type[Exception], message: str) -> None:
    """A NaN too: TRL's word for no score is None."""
    with pytest.raises(error, match=message):
        trl.from_trl(lambda completions, **_: returned, name="odd")(response=["a", "b"])


def test_arrays_and_tensors_are_scores() -> None:
    """As TRL takes them."""
    import torch

    for returned in (np.array([0.5, 1.5], dtype=np.float32), torch.tensor([0.5, 1.5])):
        reward = trl.from_trl(lambda completions, _returned=returned, **_: _returned)
        assert reward(response=["a", "b"]).rewards.tolist() == [0.5, 1.5]


def test_what_a_function_logs_is_metadata() -> None:
    """A column by sample, a metric for all."""

    def logs(completions: Sequence[str], log_extra: Any, log_metric: Any, **_: Any) -> list[float]:
        log_extra("parsed", [text.upper() for text in completions])
        log_metric("rate", 0.5)
        return [0.0] * len(completions)

    batch = trl.from_trl(logs)(response=["a", "b"])
    assert batch.metadata == [{"parsed": "A", "rate": 0.5}, {"parsed": "B", "rate": 0.5}]


def test_a_function_of_groups_is_given_one_at_a_time() -> None:
    """One that compares all that it sees."""

    def best(completions: Sequence[str], **_: Any) -> list[float]:
        return [float(len(text) == max(map(len, completions))) for text in completions]

    samples = [Sample(prompt, text) for prompt, text in [("p", "a"), ("q", "bb"), ("p", "ccc"), ("q", "b")]]
    assert trl.from_trl(best)(samples).rewards.tolist() == [0, 0, 1, 0]
    assert trl.from_trl(best, scope="group")(samples).rewards.tolist() == [0, 1, 1, 0]


def test_it_composes() -> None:
    """With rewards of this library, masks and caches; and goes back into TRL."""
    reward = MaskErrors(
        CompositeReward([(Cached(trl.from_trl(by_sign)), 0.5), (LengthReward(target=1), 2.0)]), max_failure_rate=1.0
    )
    assert reward(response=["2", "x", "0"]).failed.all()  # they were one call
    hits = []
    for _ in range(2):
        batch = reward(response=["2", "0"])
        np.testing.assert_array_equal(batch.rewards, [3.0, 2.0])
        hits.append(batch.stats["by_sign"].cache_hits)
    assert hits == [0, 2]
    funcs, _ = trl.reward_funcs(reward)
    assert [func.__name__ for func in funcs] == ["by_sign", "LengthReward"]
    assert [func(prompts=["p"] * 2, completions=["2", "0"]) for func in funcs] == [[2, None], [1, 1]]


@pytest.mark.parametrize("function", ["org/reward-model", "gpt2", "Qwen2.5", 3])
def test_models_are_refused(function: Any) -> None:
    """By name, and as modules: they are no functions."""
    with pytest.raises(ConfigError, match="a model is no function; give it to the trainer"):
        trl.from_trl(function)


def test_a_module_is_refused() -> None:
    """TRL would take it for a sequence classifier."""
    import torch

    with pytest.raises(ConfigError, match="a model is no function"):
        trl.from_trl(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("columns", [{"prompts": "prompt"}, {"log_extra": "level"}, {"gold": 3}])
def test_columns_that_cannot_be(columns: Any) -> None:
    """What TRL gives in any case, and what is no name."""
    with pytest.raises(ConfigError, match="are given anyway"):
        trl.from_trl(echo, columns)


def test_missing_columns_are_named() -> None:
    """A field by the sample that lacks it; a key that no sample has."""
    with pytest.raises(InputError, match=r"sample 1, field 'reference'"):
        trl.from_trl(echo, {"gold": "reference"})([Sample("p", "c", reference="r"), Sample("p", "c")])
    with pytest.raises(ConfigError, match=r"'gold' from 'refrence', no field of Sample.*reference"):
        trl.from_trl(echo, {"gold": "refrence"})(SAMPLES)


@pytest.mark.slow
def test_rewards_of_trl() -> None:
    """Its own functions, which want messages; values by hand."""
    from importlib import import_module

    rewards: Any = import_module("trl.rewards")

    half, third = Sample("q", r"\boxed{\frac{1}{2}}", reference=r"\frac{1}{2}"), r"So \boxed{\frac{1}{3}}"
    samples = [half, Sample("q", third, reference=r"\frac{1}{2}"), Sample("q", "x", reference="no formula")]
    accuracy = trl.from_trl(rewards.accuracy_reward)
    batch = accuracy(samples)
    np.testing.assert_array_equal(batch.rewards, [1.0, 0.0, np.nan])
    assert batch.metadata[2]["gold_parsed"] == "[unparseable]"
    spoken = [
        Sample("q", [{"role": "assistant", "content": str(sample.response)}], reference=sample.reference)
        for sample in samples
    ]
    np.testing.assert_array_equal(accuracy(spoken).rewards, batch.rewards)

    formatted = trl.from_trl(rewards.think_format_reward)
    assert formatted(response=["<think>so</think> 4", "4"]).rewards.tolist() == [1.0, 0.0]

    # DAPO, eq. 13, with L_max = 10 and a cache of 4: none up to 6, then linear to -1.
    overlong = trl.from_trl(rewards.get_soft_overlong_punishment(max_completion_len=10, soft_punish_cache=4))
    tokens = [[0] * count for count in (6, 8, 10, 11)]
    assert overlong(response=["x"] * 4, token_ids=tokens).rewards.tolist() == [0.0, -0.5, -1.0, -1.0]

    # One of three bigrams repeats: 1 - 2/3 of the greatest punishment.
    repeated = trl.from_trl(rewards.get_repetition_penalty_reward(ngram_size=2, max_penalty=-1.0))
    assert repeated(response=["x"], token_ids=[[1, 2, 1, 2]]).rewards.tolist() == pytest.approx([-1 / 3])

    # The whole contract, with the function by itself and by its path.
    for function in (rewards.think_format_reward, "trl.rewards.think_format_reward"):
        for check in reward_checks(trl.from_trl(function)):
            check()
