"""A table of responses with scores worked by hand, kept as data: tests/data/text_cases/*.jsonl.

A line is an object: ``reward`` (a registered name) and its ``params``; the sample's fields (``response``,
``reference``, ``prompt``, ``token_ids``, ``token_offsets``, ``metadata``); ``expected``: a number, null where the
reward does not apply, or ``"error:InputError"``; and ``why``, in a few words. A group is written with lists
``responses`` and ``expected``, the other fields being those of all its samples. A long response is an object that says
what is repeated: ``{"text": ..., "times": ..., "before": ..., "after": ...}``.
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flux_rewards import FluxRewardsError, RewardFunction, Sample, load_rewards
from flux_rewards.data import FIELDS

FOLDER = Path(__file__).parents[1] / "data" / "text_cases"
CASES = [
    pytest.param(json.loads(line), id=f"{path.stem}:{number}")
    for path in sorted(FOLDER.glob("*.jsonl"))
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
]


def written_out(response: Any) -> Any:
    """Long responses are stored as what they repeat."""
    if not isinstance(response, dict):
        return response
    repeated: str = response["text"] * response["times"]
    return response.get("before", "") + repeated + response.get("after", "")


@functools.cache
def reward_of(config: str) -> RewardFunction:
    """One reward for all cases that share it: some load a model or start processes."""
    return load_rewards([json.loads(config)]).train.children[0]


def named(error: BaseException | None) -> set[str]:
    """The classes of an error and of those behind it."""
    names: set[str] = set()
    while error is not None:
        names.update(kind.__name__ for kind in type(error).__mro__)
        error = error.__cause__
    return names


@pytest.mark.parametrize("case", CASES)
def test_scores_worked_by_hand(case: dict[str, Any]) -> None:
    """Each as its definition has it, up to a millionth."""
    responses = case.get("responses", [case.get("response")])
    expected = case["expected"] if "responses" in case else [case["expected"]]
    assert case["why"].strip()
    assert set(case) <= {"reward", "params", "responses", "expected", "why", *FIELDS}
    shared = {field: case[field] for field in FIELDS if field in case and field != "response"}
    samples = [Sample(response=written_out(response), **shared) for response in responses]
    reward = reward_of(json.dumps({"reward_model": case["reward"], **case["params"]}))
    if isinstance(expected[0], str):
        with pytest.raises(FluxRewardsError) as raised:
            reward(samples)
        assert expected[0].removeprefix("error:") in named(raised.value)
        return
    np.testing.assert_allclose(
        reward(samples).rewards,
        [np.nan if score is None else score for score in expected],
        rtol=0,
        atol=1e-6,
        err_msg=case["why"],
    )


def test_there_are_enough_cases() -> None:
    """All families, and no case twice."""
    written = [json.dumps(case.values[0], sort_keys=True) for case in CASES]
    assert len(written) >= 150
    assert len(set(written)) == len(written)
