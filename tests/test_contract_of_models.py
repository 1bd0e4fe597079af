"""The contract, kept by every registered reward with weights, on tiny ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from impartial_judge import JUDGES
from tiny_rewards import CONFIGS

from flux_rewards import RewardFunction, load_rewards
from flux_rewards.registry import _BUILTIN
from flux_rewards.testing import Check, example_reward, example_samples, reward_checks

CHECKS = [check.name for check in reward_checks(example_reward("length"))]
Maker = Callable[[str], RewardFunction]


@pytest.fixture(scope="module")
def reward_of(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """A reward by its registered name, made once."""
    made: dict[str, RewardFunction] = {}

    def make(name: str) -> RewardFunction:
        if name not in made:
            config = CONFIGS[name](tmp_path_factory.mktemp("weights"))
            made[name] = load_rewards([{"reward_model": name, **config}]).train.children[0]
        return made[name]

    return make


def named(reward: RewardFunction, name: str) -> Check:
    return next(check for check in reward_checks(reward) if check.name == name)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_reward_with_weights_keeps_the_contract(name: str, check: str, reward_of: Maker) -> None:
    """A new reward is tested by existing."""
    named(reward_of(name), check)()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_reward_with_weights_has_something_to_say(name: str, reward_of: Maker) -> None:
    """A contract over rewards that never apply, or say of all the same, would show nothing."""
    rewards = reward_of(name)(example_samples()).rewards
    assert np.isfinite(rewards).any()
    assert len(set(rewards[np.isfinite(rewards)].round(6))) > 1


def test_no_registered_reward_is_left_out() -> None:
    """Those that cannot be made from their own example stand in the table, or are another name of one that does."""
    by_path = {_BUILTIN[name]: name for name in (*CONFIGS, *JUDGES, "remote")}
    for name, path in _BUILTIN.items():
        if path not in by_path:
            assert example_reward(name)(example_samples()) is not None


def test_a_reward_folder_is_not_needed_to_make_it(tmp_path: Path) -> None:
    """The constructor stores its arguments and does nothing else."""
    for name in CONFIGS:
        if name != "ocr":
            labels = {"labels": "toxic"} if name == "classifier" else {}
            load_rewards([{"reward_model": name, "model_name_or_path": str(tmp_path / "nowhere"), **labels}])
