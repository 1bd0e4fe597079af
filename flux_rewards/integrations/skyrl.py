"""SkyRL: a reward as a text environment, and as the token-level lists of a generator.

The contract is that of skyrl-gym (``envs/base_text_env.py``) and SkyRL's ``generators/base.py`` as read: an environment
is asked by ``step(action)``, and gives ``observations, reward, done, metadata``; a generator's ``rewards`` are one
number a sample, or a list of one number a token of the response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ContractError
from flux_rewards.integrations.batches import batch_numbers, check_reward
from flux_rewards.integrations.columns import REFERENCES, Columns
from flux_rewards.integrations.importing import imported
from flux_rewards.integrations.numbers import Numbers
from flux_rewards.integrations.single import SingleCalls
from flux_rewards.parameters import Parametrised

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.data import Sample

__all__ = ["StepReward", "env_class", "token_level_rewards"]

_DEFAULTS = {
    "prompt": "prompt",
    "action": "response",
    **REFERENCES,
}


class StepReward(Parametrised):
    """Scores an action in the ``step`` of an environment of your own, from any thread; calls that overlap are merged.

    Args:
        reward: The reward; not one of groups: an environment sees one rollout.
        fields: Column by field of `Sample`: ``prompt``, ``action``, and the keys of the environment's extras, of the
            ``extra_info`` and of the ``reward_model`` in them. By default ``ground_truth``, ``answer`` or ``solution``
            is the reference.
        not_applicable: The number for an action to which the reward does not apply; without it that is an error.
        on_error: The number for an action that failed; without it the error is raised.
        timeout: Seconds for a call; None for the reward's own limits.

    Raises:
        ConfigError: A reward of groups, or an argument that cannot be used.

    Examples:
        >>> from flux_rewards import ExactMatch
        >>> step = StepReward(ExactMatch())
        >>> step("What is 2 + 2?", "4", {"reward_model": {"ground_truth": "4"}})
        (1.0, {})
    """

    def __init__(
        self,
        reward: RewardFunction,
        *,
        fields: Mapping[str, str | None] | None = None,
        not_applicable: float | None = None,
        on_error: float | None = None,
        timeout: float | None = None,
    ) -> None:
        adapter = "SkyRL"
        check_reward(reward, adapter)
        self.reward = reward
        self.columns = Columns(_DEFAULTS, fields, adapter, reward)
        self.numbers = Numbers(not_applicable, on_error, adapter)
        self.calls = SingleCalls(reward, adapter=adapter, timeout=timeout)

    def __call__(
        self, prompt: Any, action: Any, extras: Mapping[str, Any] | None = None
    ) -> tuple[float, dict[str, float | None]]:
        """The number for the trainer, and the parts by name; None for a part without a score."""
        columns: dict[str, Any] = dict(extras or {})
        for nested in ("extra_info", "reward_model"):
            if isinstance(columns.get(nested), Mapping):
                columns |= columns.pop(nested)
        columns |= {"prompt": prompt, "action": action}
        (sample,) = self.columns.samples({name: [value] for name, value in columns.items()}, 1)
        scored = self.calls.score(sample)
        (score,) = self.numbers(scored)
        return score, dict(scored.batch[0].parts)


def env_class(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    timeout: float | None = None,
) -> type:
    """A ``BaseTextEnv`` of one turn, to be registered with skyrl-gym.

    In a module of your own ``MyEnv = skyrl.env_class(reward)``, and where the training starts
    ``skyrl_gym.envs.registration.register(id="mine", entry_point="my_module:MyEnv")``.

    For more turns derive an environment of your own, and ask a `StepReward` in its ``step``. SkyRL places a step's
    reward at the end of its turn; with a custom chat template it keeps that of the last step only.

    Args:
        reward: As for `StepReward`.
        fields: As for `StepReward`.
        not_applicable: As for `StepReward`.
        on_error: As for `StepReward`.
        timeout: As for `StepReward`.

    Raises:
        ConfigError: A reward of groups, or an argument that cannot be used.
        MissingDependencyError: skyrl-gym cannot be imported.

    Examples:
        >>> from flux_rewards import ExactMatch
        >>> MyEnv = env_class(ExactMatch())  # doctest: +SKIP
    """
    step_reward = StepReward(reward, fields=fields, not_applicable=not_applicable, on_error=on_error, timeout=timeout)
    base_text_env = imported("skyrl_gym.envs.base_text_env", "pip install skyrl-gym")

    class RewardEnv(base_text_env.BaseTextEnv):  # type: ignore[misc,name-defined]  # imported late
        """A reward as an environment of one turn."""

        def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
            super().__init__()
            self.env_config, self.extras = env_config, dict(extras or {})
            self.prompt: Any = self.extras.pop("prompt", None)

        def init(self, prompt: Any) -> tuple[Any, dict[str, Any]]:
            """Keep the prompt, for rewards that read it."""
            self.prompt = prompt
            return prompt, {}

        def step(self, action: str) -> Any:
            """Score the answer; the episode ends."""
            self.turns += 1
            score, parts = step_reward(self.prompt, action, self.extras)
            return base_text_env.BaseTextEnvStepOutput(observations=[], reward=score, done=True, metadata=parts)

    return RewardEnv


def token_level_rewards(
    reward: RewardFunction,
    samples: Sequence[Sample],
    response_ids: Sequence[Sequence[int]],
    *,
    not_applicable: float | None = None,
    on_error: float | None = None,
) -> list[list[float]]:
    """The ``rewards`` of a generator's output, token by token: ``list[list[float]]``.

    A sample with token rewards has those; another has its score at the last token, where SkyRL would put it.

    Args:
        reward: The reward; one of groups needs whole groups.
        samples: One a response; their `token_ids` are set to the responses'.
        response_ids: The generator's ``response_ids``.
        not_applicable: The number for a sample to which the reward does not apply; without it that is an error.
        on_error: The number for a sample that failed; without it the error is raised.

    Raises:
        ContractError: Another number of samples than of responses, or a response without tokens that has a score.

    Examples:
        >>> from flux_rewards import ExactMatch, Sample
        >>> token_level_rewards(ExactMatch(), [Sample(response="4", reference="4")], [[11, 12, 13]])
        [[0.0, 0.0, 1.0]]
    """
    check_reward(reward, "SkyRL")
    if len(samples) != len(response_ids):
        raise ContractError(f"SkyRL: {len(samples)} samples for {len(response_ids)} responses", reward=reward.name)
    told = [replace(sample, token_ids=list(ids)) for sample, ids in zip(samples, response_ids, strict=True)]
    batch, scores = batch_numbers(reward, told, Numbers(not_applicable, on_error, "SkyRL"))
    tokens = batch.token_rewards or [None] * len(batch)
    rewards: list[list[float]] = []
    for row, (score, dense, ids) in enumerate(zip(scores, tokens, response_ids, strict=True)):
        if dense is not None:
            rewards.append(dense.tolist())
        elif ids:
            rewards.append([0.0] * (len(ids) - 1) + [score])
        else:
            raise ContractError(f"SkyRL: response {row} has no token that could have its score", reward=reward.name)
    return rewards
