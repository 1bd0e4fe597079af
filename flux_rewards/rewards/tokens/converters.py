"""From one value a response to one a token, and from potentials to rewards: folds of any reward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.combinator import UnaryCombinator
from flux_rewards.composite import carried
from flux_rewards.data import RewardBatch
from flux_rewards.errors import ContractError
from flux_rewards.naming import distinct
from flux_rewards.rewards.text.length import ResponseLength
from flux_rewards.validation import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from flux_rewards.base import RewardFunction
    from flux_rewards.data import Sample

    Values = NDArray[np.float64]

__all__ = ["Discounted", "LastToken", "PotentialShaping", "Spread", "TokenConverter"]


class TokenConverter(UnaryCombinator, abstract=True):
    """Base of the dense views of a scalar reward. A subclass overrides `dense`.

    The reward stays what it was, failures and NaN included; its own token rewards give way to the new ones. A reward
    for a response without tokens has failed: there is no token to hold it. Parts: the reward, and the number of tokens.

    Args:
        reward: The reward to convert.
        name: What it is called.
    """

    def __init__(self, reward: RewardFunction, *, name: str | None = None) -> None:
        super().__init__(reward, name=name)
        # A leaf of its own says that the ids are read, and counts them.
        self.children = (reward, ResponseLength("tokens"))
        self.bounds = reward.bounds

    def dense(self, reward: float, count: int) -> Values:
        """The values of `count` >= 1 tokens, shape (count,)."""
        raise NotImplementedError

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:  # noqa: ARG002
        """One value a token where there is a reward."""
        batch, lengths = batches
        parts = dict(zip(distinct(child.name for child in self.children), batches, strict=True))
        errors = carried(parts)
        rewards = batch.rewards.copy()
        tokens: list[Values | None] = [None] * len(batch)
        for row in np.flatnonzero(~np.isnan(rewards)).tolist():
            if row not in errors and not lengths.rewards[row]:
                errors[row] = "InputError: the response has no tokens, so there is none to hold its reward"
            if row in errors:
                rewards[row] = np.nan
            else:
                tokens[row] = self.dense(float(rewards[row]), int(lengths.rewards[row]))
        return RewardBatch(rewards, tokens, batch.metadata, dict(sorted(errors.items())), parts)


class LastToken(TokenConverter):
    """The whole reward at the last token, 0 at the others: how PPO trainers place the reward of an outcome.

    Args:
        reward: The reward to convert.
        name: What it is called.

    The sum over the tokens is the reward. Bounds are those of the reward. Does not apply where the reward does not; a
    reward for a response without tokens has failed.

    Does not look for an end-of-sequence token, or padding: the last of `token_ids` is the last.

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> LastToken(FunctionReward(lambda s: 0.5))(token_ids=[[7, 8, 9]]).token_rewards
        [array([0. , 0. , 0.5])]
    """

    def dense(self, reward: float, count: int) -> Values:
        """All at the end."""
        values = np.zeros(count)
        values[-1] = reward
        return values


class Spread(TokenConverter):
    """The reward in equal parts at every token: reward / tokens.

    Args:
        reward: The reward to convert.
        name: What it is called.

    The sum over the tokens is the reward, whatever the length of the response. Bounds are those of the reward. Does not
    apply where the reward does not; a reward for a response without tokens has failed.

    Does not give each token the whole reward, which would make longer responses worth more.

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> Spread(FunctionReward(lambda s: 0.5))(token_ids=[[7, 8]]).token_rewards
        [array([0.25, 0.25])]
    """

    def dense(self, reward: float, count: int) -> Values:
        """To each its part."""
        return np.full(count, reward / count)


class Discounted(TokenConverter):
    """``discount ** (T - 1 - t) * reward`` at token t of T: the whole at the last token, less the earlier.

    Args:
        reward: The reward to convert.
        discount: gamma, in [0, 1]. 0 is `LastToken`, 1 gives each token the whole reward.
        name: What it is called.

    These are the returns of a reward at the last token, so a trainer must not discount them again; their sum is not the
    reward. Bounds are those of the reward. Does not apply where the reward does not; a reward for a response without
    tokens has failed.

    Source: exponential discounting of a trajectory's score, as in OpenEnv.

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> Discounted(FunctionReward(lambda s: 1.0), discount=0.5)(token_ids=[[7, 8, 9]]).token_rewards
        [array([0.25, 0.5 , 1.  ])]
    """

    example_config = {**UnaryCombinator.example_config, "discount": 0.9}

    def __init__(self, reward: RewardFunction, discount: float, *, name: str | None = None) -> None:
        super().__init__(reward, name=name)
        self.discount = number(discount, "discount", self.name, low=0, high=1)

    def dense(self, reward: float, count: int) -> Values:
        """Less the earlier."""
        return np.asarray(reward * self.discount ** np.arange(count - 1, -1, -1))


class PotentialShaping(UnaryCombinator):
    """``discount * phi[t] - phi[t - 1]`` at token t: what each token adds to a potential.

    The reward inside gives the potential: its `token_rewards` are phi[t], how good the response is once token t is
    written, such as the values of a value model or of a process reward model. The scalar is what the values add up to,
    discounted: ``sum(discount**t * value[t]) = discount**T * phi[T - 1] - initial``.

    Args:
        reward: The reward whose token rewards are the potential.
        discount: gamma, in [0, 1]; the one that the trainer discounts with.
        initial: The potential before the first token.
        terminal: The potential after the last token, instead of the reward's own. With 0 this is shaping in the strict
            sense: added to another reward, it changes no optimal policy. With None the values add up to the last
            potential, less `initial`.
        name: What it is called.

    Does not apply where the reward does not. No bounds. Parts: the reward.

    Raises:
        ConfigError: A parameter is out of its range.
        ContractError: On a call, the reward gave a score without token rewards, so there is no potential.

    Does not compute potentials. Source: Ng, Harada and Russell, "Policy Invariance Under Reward Transformations"
    (1999).

    Examples:
        >>> from flux_rewards import FunctionReward, RewardOutput
        >>> potential = FunctionReward(lambda s: RewardOutput(0.9, token_rewards=[0.2, 0.5, 0.9]))
        >>> batch = PotentialShaping(potential)(token_ids=[[7, 8, 9]])
        >>> batch.rewards, batch.token_rewards
        (array([0.9]), [array([0.2, 0.3, 0.4])])
    """

    example_config = {"reward": {"reward_model": "token_keyword", "good": ["because"]}, "discount": 0.9}

    def __init__(
        self,
        reward: RewardFunction,
        discount: float = 1.0,
        *,
        initial: float = 0.0,
        terminal: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name=name)
        self.discount = number(discount, "discount", self.name, low=0, high=1)
        self.initial = number(initial, "initial", self.name)
        self.terminal = terminal if terminal is None else number(terminal, "terminal", self.name)

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:  # noqa: ARG002
        """Differences where there is a potential."""
        (batch,) = batches
        rewards = np.full(len(batch), np.nan)
        tokens: list[Values | None] = [None] * len(batch)
        given: Any = batch.token_rewards or [None] * len(batch)
        for row in np.flatnonzero(~np.isnan(batch.rewards)).tolist():
            if given[row] is None:
                raise ContractError(
                    f"{self.reward.name} gave a score without token rewards, and these are the potential; for a scalar "
                    "reward take LastToken, Spread or Discounted",
                    reward=self.name,
                    index=row,
                )
            rewards[row], tokens[row] = self._shaped(given[row])
        return RewardBatch(rewards, tokens, batch.metadata, dict(batch.errors), {self.reward.name: batch})

    def _shaped(self, potential: Values) -> tuple[float, Values]:
        if not len(potential):
            return 0.0, potential
        after = potential.copy()
        if self.terminal is not None:
            after[-1] = self.terminal
        before = np.concatenate([[self.initial], potential[:-1]])
        return float(self.discount ** len(after) * after[-1] - self.initial), self.discount * after - before
