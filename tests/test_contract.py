"""The contract: every registered reward keeps it, and the checks catch those that don't."""

import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from impartial_judge import JUDGES
from rewards_of_our_own import Aspects, Characters, GroupMean, QualityReward, Told, told
from tiny_rewards import CONFIGS

from flux_rewards import ComputeError, Retry, RewardFunction, RewardOutput, Sample
from flux_rewards.registry import _BUILTIN
from flux_rewards.testing import Check, example_reward, example_samples, reward_checks

# test_contract_of_models.py, rewards/judges/test_contract_of_judges.py, remote/
ELSEWHERE = {_BUILTIN[name] for name in (*CONFIGS, *JUDGES, "remote")}
EXAMPLES = {name: example_reward(name) for name, path in sorted(_BUILTIN.items()) if path not in ELSEWHERE}


@pytest.mark.parametrize(
    ("name", "check"),
    [(name, check) for name, reward in EXAMPLES.items() for check in reward_checks(reward)],
    ids=str,
)
def test_every_registered_reward_keeps_the_contract(name: str, check: Check) -> None:
    """A new reward is tested by existing."""
    check()


@pytest.mark.parametrize("reward", EXAMPLES.values(), ids=list(EXAMPLES))
def test_every_example_has_something_to_say(reward: RewardFunction) -> None:
    """A contract over rewards that never apply would show nothing."""
    assert np.isfinite(reward(example_samples()).rewards).any()


@pytest.mark.parametrize("reward", [QualityReward(), Characters(), GroupMean()], ids=repr)
def test_rewards_of_users_keep_it_too(reward: RewardFunction) -> None:
    """Written in the styles that the documentation shows."""
    for check in reward_checks(reward):
        check()


class Drifting(RewardFunction):
    """Another score at every call."""

    calls = 0

    def compute_reward(self, sample: Sample) -> float:
        type(self).calls += 1
        return float(self.calls)


class Ranked(RewardFunction):
    """Ranks within the batch that it happens to get."""

    required_fields = ("response",)

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        return np.argsort(np.argsort([len(str(sample.response)) for sample in samples])).astype(float)


class Vandal(RewardFunction):
    """Writes into the sample's metadata."""

    def compute_reward(self, sample: Sample) -> float:
        sample.metadata["seen"] = True  # type: ignore[index]
        return 1.0


class Unbound(RewardFunction):
    """Leaves its bounds."""

    bounds = (0.0, 1.0)

    def compute_reward(self, sample: Sample) -> float:
        return 2.0


class Seeder(RewardFunction):
    """Seeds the global generator."""

    def compute_reward(self, sample: Sample) -> float:
        random.seed(random.random())
        return 1.0


class Mover(RewardFunction):
    """Writes into the environment, the same at every call."""

    def compute_reward(self, sample: Sample) -> float:
        os.environ["TEST_CONTRACT_MOVER"] = "here"
        return 1.0


class Resetter(RewardFunction):
    """Seeds with a constant, which finds its own seed there the second time."""

    def compute_reward(self, sample: Sample) -> float:
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        return 1.0


class Forgetful(RewardFunction):
    """Changes what it was given."""

    def __init__(self, words: list[str] | None = None) -> None:
        self.words = words

    def compute_reward(self, sample: Sample) -> float:
        if self.words is not None:
            self.words.append("x")
        return 1.0


class Closed(RewardFunction):
    """Holds what no pickle takes."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def compute_reward(self, sample: Sample) -> float:
        return float(self.function(1.0))


class Undeclared(RewardFunction):
    """Requires a field only in secret."""

    required_fields = ("reference",)

    def check_samples(self, samples: Sequence[Sample]) -> None:
        return

    def compute_reward(self, sample: Sample) -> RewardOutput:
        return RewardOutput(float(sample.reference is not None))


def test_checks_do_not_hide_one_another() -> None:
    """Each has fresh samples: one that mutates them is caught after others have run."""
    failed = []
    for check in reward_checks(Vandal()):
        try:
            check()
        except AssertionError:
            failed.append(str(check))
    assert "inputs_untouched" in failed


@pytest.mark.parametrize(
    ("reward", "broken"),
    [
        (Drifting(), "repeatable"),
        (Ranked(), "neighbours_do_not_matter"),
        (Vandal(), "inputs_untouched"),
        (Unbound(), "bounds_hold"),
        (Seeder(), "global_state_kept"),
        (Mover(), "global_state_kept"),
        (Resetter(), "global_state_kept"),
        (Forgetful(["a"]), "parameters_kept"),
        (Closed(lambda x: x), "pickles"),
        (Closed(lambda x: x), "config_round_trip"),
        (Undeclared(), "missing_field_is_named"),
        (Aspects(), "neighbours_do_not_matter"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_checks_catch_what_breaks_the_contract(reward: RewardFunction, broken: str) -> None:
    """Each rule fails for a reward that breaks it."""
    (check,) = [check for check in reward_checks(reward) if str(check) == broken]
    with pytest.raises(Exception, match=r"."):
        check()


class OwnError(ComputeError):
    """An author's error with a constructor of its own."""

    retryable = True

    def __init__(self, code: int, *, place: str) -> None:
        super().__init__(f"code {code} at {place}")
        self.code = code


@pytest.mark.parametrize("wrap", [lambda r: r, lambda r: Retry(r, 2, sleep=lambda s: None)], ids=["plain", "retry"])
def test_an_authors_error_keeps_its_class_and_content(wrap: Any) -> None:
    """Its constructor is not called again."""
    with pytest.raises(OwnError, match="sample 1: code 7 at home") as caught:
        wrap(Told())(told(1.0, OwnError(7, place="home")))
    assert (caught.value.code, caught.value.index, caught.value.reward) == (7, 1, "Told")
