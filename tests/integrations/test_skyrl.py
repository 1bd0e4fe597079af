"""SkyRL: against skyrl-gym's environment, written out after reading it, not against the package."""

import sys
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict

import pytest
from integrations import trainer_pages
from integrations.rewards_elsewhere import Picky, both

from flux_rewards import (
    ComputeError,
    ConfigError,
    ContractError,
    GroupRank,
    LengthReward,
    MissingDependencyError,
    RewardFunction,
    Sample,
    TokenKeywordReward,
)
from flux_rewards.integrations import skyrl


class BaseTextEnvStepOutput(TypedDict):
    observations: list[Any]
    reward: float
    done: bool
    metadata: dict[str, Any]


class BaseTextEnv:
    def __init__(self) -> None:
        self.turns, self.max_turns = 0, 1

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def _skyrl_gym(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("skyrl_gym", "skyrl_gym.envs", "skyrl_gym.envs.base_text_env"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    base: Any = sys.modules["skyrl_gym.envs.base_text_env"]
    base.BaseTextEnv, base.BaseTextEnvStepOutput = BaseTextEnv, BaseTextEnvStepOutput


def agent_loop(environment: Any, prompt: Any, action: str, extras: dict[str, Any]) -> Any:
    """One rollout: made with its extras, begun with the prompt, asked once."""
    env = environment(env_config={}, extras=extras)
    begun, _ = env.init(prompt)
    assert begun == prompt
    output = env.step(action)
    env.close()
    return output


PROMPT = [{"role": "user", "content": "What is 2 + 2?"}]
EXTRAS = {"reward_model": {"method": "rule", "ground_truth": "4 4"}, "extra_info": {"level": 3}}


def test_a_step_scores_and_ends_the_episode() -> None:
    """The answer is in what a data set of SkyRL calls the reward model; the parts are metadata."""
    output = agent_loop(skyrl.env_class(both()), PROMPT, "4 4", EXTRAS)
    assert output == {"observations": [], "reward": 1.5, "done": True, "metadata": {"right": 1.0, "short": 1.0}}


def test_rollouts_run_side_by_side() -> None:
    """As SkyRL runs them, in threads."""
    environment = skyrl.env_class(both())
    with ThreadPoolExecutor(16) as pool:
        outputs = list(pool.map(lambda said: agent_loop(environment, PROMPT, said, EXTRAS), ["4 4", "4 5"] * 16))
    assert [output["reward"] for output in outputs] == [1.5, 0.5] * 16


def test_a_step_of_an_environment_of_ones_own() -> None:
    """Columns are the extras, and what is nested in them."""
    seen: list[Sample] = []

    class Look(RewardFunction):
        def compute_reward(self, sample: Sample) -> float:
            seen.append(sample)
            return 1.0

    assert skyrl.StepReward(Look(), fields={"reference": "level"})(PROMPT, "a", {**EXTRAS, "uid": 7}) == (1.0, {})
    (sample,) = seen
    assert (sample.prompt, sample.response, sample.reference) == (PROMPT, "a", 3)
    assert sample.metadata == {"uid": 7, "method": "rule", "ground_truth": "4 4"}


def test_no_score_is_a_number_only_by_name() -> None:
    """SkyRL takes a float."""
    for said, message in (("skip", "does not apply"), ("fail", "cannot be scored")):
        with pytest.raises(ComputeError, match=message):
            agent_loop(skyrl.env_class(Picky()), PROMPT, said, {})
    environment = skyrl.env_class(Picky(), not_applicable=0.5, on_error=-1.0)
    got = [agent_loop(environment, PROMPT, said, {})["reward"] for said in ("good", "skip", "fail")]
    assert got == [1.0, 0.5, -1.0]


def test_token_rewards_are_lists_as_long_as_the_responses() -> None:
    """Dense where the reward is, at the last token where it is not."""
    samples = [Sample(response="no yes no", token_offsets=[(0, 2), (2, 6), (6, 9)]), Sample(response="no")]
    ids = [[1, 2, 3], [1]]
    dense = skyrl.token_level_rewards(TokenKeywordReward(good=["yes"]), samples[:1], ids[:1])
    direct = TokenKeywordReward(good=["yes"])(
        [Sample(response="no yes no", token_ids=ids[0], token_offsets=samples[0].token_offsets)]
    )
    assert direct.token_rewards is not None
    assert direct.token_rewards[0] is not None
    assert dense == [direct.token_rewards[0].tolist()]
    assert skyrl.token_level_rewards(LengthReward(2, unit="tokens"), samples, ids) == [[0.0, 0.0, 0.5], [0.5]]


def test_whole_groups_may_be_scored_token_by_token() -> None:
    """A generator has them."""
    samples = [Sample("q", "x " * count) for count in (4, 1)]
    ranked = skyrl.token_level_rewards(GroupRank(LengthReward(4, unit="words")), samples, [[1, 2], [1]])
    assert ranked == [[0.0, 1.0], [0.0]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: skyrl.env_class(GroupRank(Picky())), ConfigError, "one sample at a time"),
        (lambda: skyrl.token_level_rewards(Picky(), [Sample()], []), ContractError, "1 samples for 0 responses"),
        (lambda: skyrl.token_level_rewards(Picky(), [Sample(response="good")], [[]]), ContractError, "no token"),
    ],
)
def test_what_cannot_be_served_is_refused(call: Any, error: type[Exception], message: str) -> None:
    """With the setting to change."""
    with pytest.raises(error, match=message):
        call()


def test_without_skyrl_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported late, and only here."""
    monkeypatch.setitem(sys.modules, "skyrl_gym.envs.base_text_env", None)
    with pytest.raises(MissingDependencyError, match="pip install skyrl-gym"):
        skyrl.env_class(Picky())


def test_the_page_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """As a program."""
    trainer_pages.ran("skyrl.md", "my_envs.py")
    assert "'reward': 1.1" in capsys.readouterr().out
