"""The contract, kept by every registered judge, against a server that decides by the content of a request."""

from collections.abc import Iterator

import numpy as np
import pytest
from chat_server import ChatServer
from impartial_judge import JUDGES, config, decides

from flux_rewards import RewardFunction, load_rewards
from flux_rewards.testing import example_reward, example_samples, reward_checks

CHECKS = [check.name for check in reward_checks(example_reward("length"))]


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(decides) as entered:
        yield entered


def judge(name: str, server: ChatServer) -> RewardFunction:
    return load_rewards([config(name, server.url)]).train.children[0]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", JUDGES)
def test_every_judge_keeps_the_contract(name: str, check: str, server: ChatServer) -> None:
    """A new judge is tested by existing."""
    next(entry for entry in reward_checks(judge(name, server)) if entry.name == check)()


@pytest.mark.parametrize("name", JUDGES)
def test_every_judge_has_something_to_say(name: str, server: ChatServer) -> None:
    """A contract over judges that say of all the same would show nothing."""
    assert len(set(judge(name, server)(example_samples()).rewards.round(6))) > 1


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_goes_by_its_name_whatever_the_case(name: str, server: ChatServer) -> None:
    """As the trainers' configurations write it."""
    (entry,) = load_rewards([{**config(name, server.url), "reward_model": name.upper()}]).train.children
    assert np.isfinite(entry(example_samples()).rewards).all()
