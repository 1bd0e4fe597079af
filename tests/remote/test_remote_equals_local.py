"""A reward behind a server says what it says here, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from chat_server import ChatServer
from impartial_judge import JUDGES, config, decides
from rewards_of_our_own import GroupMean, QualityReward
from rewards_that_look import FAILURES, LOOKING, Fails, Upside, Whole
from same_batches import assert_same, compare
from served import served
from tiny_rewards import CONFIGS

from flux_rewards import (
    CompositeReward,
    GroupRank,
    LengthReward,
    MaskErrors,
    RewardFunction,
    Sample,
    TokenKeywordReward,
    load_rewards,
)
from flux_rewards.errors import FluxRewardsError
from flux_rewards.registry import _BUILTIN
from flux_rewards.remote.remote_reward import RemoteReward
from flux_rewards.testing import Check, example_reward, example_samples, reward_checks

_ELSEWHERE = {_BUILTIN[name] for name in (*CONFIGS, *JUDGES, "remote")}
EXAMPLES = [name for name, path in sorted(_BUILTIN.items()) if path not in _ELSEWHERE]
ATTRIBUTES = ("name", "scope", "required_fields", "bounds", "higher_is_better")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_registered_reward(name: str) -> None:
    """A new reward is tested by existing."""
    compare(example_reward(name), example_samples())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RewardFunction]:
    """A reward with tiny weights by its registered name."""

    def make(name: str) -> RewardFunction:
        given = CONFIGS[name](tmp_path_factory.mktemp("weights"))
        return load_rewards([{"reward_model": name, **given}]).train.children[0]

    return make


@pytest.mark.parametrize("name", CONFIGS)
def test_a_registered_reward_with_weights(name: str, weights: Callable[[str], RewardFunction]) -> None:
    """Their sums depend on what is in a batch, so that the batch must be the same, too."""
    compare(weights(name), example_samples())


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    with ChatServer(decides) as entered:
        yield entered


@pytest.mark.parametrize("name", JUDGES)
def test_a_registered_judge(name: str, chat: ChatServer) -> None:
    """The judge's key and address stay with the server."""
    compare(load_rewards([config(name, chat.url)]).train.children[0], example_samples())


COMPOSITE = CompositeReward(
    [
        (LengthReward(target=40), 0.7),
        (TokenKeywordReward(["because"], name="words"), 0.2),
        (CompositeReward([(QualityReward(), 1.5)], name="inner"), -1 / 3),
    ],
    name="all",
)


@pytest.mark.parametrize(
    "reward",
    [
        COMPOSITE,
        GroupRank(COMPOSITE),
        CompositeReward([(GroupMean(), 1.0), (LengthReward(target=40), 0.5)]),
        MaskErrors(Fails(), max_failure_rate=1.0),
        LengthReward(target=40, scale=-1 / 3, clip=(-0.9, -0.1), name="mine"),
    ],
    ids=str,
)
def test_a_tree(reward: RewardFunction) -> None:
    """Parts within parts, groups, weights, masks and a scale of one's own."""
    compare(reward, example_samples())


@pytest.mark.parametrize(
    "reward", [LengthReward(target=40), GroupRank(LengthReward(target=40)), COMPOSITE, GroupMean(), Upside()], ids=str
)
def test_what_is_known_of_a_reward(reward: RewardFunction) -> None:
    """What a combinator above it or a report goes by."""
    with served(reward) as url:
        remote = RemoteReward(url)
        remote.load()
        told = {name: getattr(remote, name) for name in ATTRIBUTES}
    assert told == {name: getattr(reward, name) for name in ATTRIBUTES}


@pytest.mark.parametrize(
    "reward",
    [LengthReward(target=40), GroupRank(LengthReward(target=40)), COMPOSITE, TokenKeywordReward(["because"]), Upside()],
    ids=["sample", "group", "composite", "tokens", "less is better"],
)
@pytest.mark.parametrize("check", [check.name for check in reward_checks(LengthReward(target=40))])
def test_the_contract(reward: RewardFunction, check: str, servers: Callable[[RewardFunction], str]) -> None:
    """A remote reward is a reward: every rule of the contract holds for it."""
    bound: Check = next(entry for entry in reward_checks(RemoteReward(servers(reward))) if entry.name == check)
    bound()


OUTCOMES = [*FAILURES, "none", "infinite", "nan", "error", "parts", "tokens", "fine", "fine"]


def test_failures_and_what_does_not_apply() -> None:
    """Each sample its own: the same positions, the same reasons, and the rest is scored."""
    compare(Fails(), [Sample(prompt) for prompt in OUTCOMES])


@pytest.mark.parametrize("outcome", [*FAILURES, "infinite", "nan", "error"])
def test_a_failure_that_is_not_masked(outcome: str, servers: Callable[[RewardFunction], str]) -> None:
    """The same exception: type, field, whether it may pass, and the sample by its place in the caller's batch."""
    samples = [Sample(prompt) for prompt in ("fine", "none", "fine", "fine", outcome, "fine")]
    found: list[FluxRewardsError] = []
    for reward in (FAILING, RemoteReward(servers(FAILING), batch_size=3, name="Fails")):
        with pytest.raises(FluxRewardsError) as caught:
            reward(samples)
        found.append(caught.value)
    local, remote = found
    assert type(remote) is type(local)
    names = ("reward", "field", "index", "retryable", "retry_after", "args", "status", "problem")
    told = [{name: getattr(error, name, None) for name in names} for error in (local, remote)]
    assert told[1] == told[0]


FAILING = Fails()


def test_a_failure_of_a_whole_call() -> None:
    """No sample is to blame for it."""
    compare(Whole(), [Sample("one"), Sample("other")])


def test_a_place_in_a_batch_of_several_requests(servers: Callable[[RewardFunction], str]) -> None:
    """Positions are those of the caller's batch, not of a request."""
    samples = [Sample("value" if place in (7, 8, 19) else "fine") for place in range(23)]
    remote = MaskErrors(RemoteReward(servers(FAILING), batch_size=4, num_workers=3), max_failure_rate=1.0)(samples)
    assert_same(MaskErrors(FAILING, max_failure_rate=1.0)(samples), remote)


def test_an_empty_batch(servers: Callable[[RewardFunction], str]) -> None:
    """Nothing to ask, nothing answered."""
    assert_same(LOOKING["pil"]([]), RemoteReward(servers(LOOKING["pil"]))([]))
