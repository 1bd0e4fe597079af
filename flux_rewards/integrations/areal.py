"""AReaL: a reward as its ``reward_fn(prompt, completions, prompt_ids, completion_ids, **data) -> float``.

The contract is that of AReaL as read at 1c17804 (``api/reward_api.py``): one sample a call, in a pool of processes, to
which the function is pickled anew with each call; after 15 seconds, and three further attempts, AReaL takes 0.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flux_rewards.integrations.batches import check_reward
from flux_rewards.integrations.columns import REFERENCES, Columns
from flux_rewards.integrations.numbers import Numbers
from flux_rewards.integrations.single import SingleCalls
from flux_rewards.parameters import Parametrised

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction

__all__ = ["ArealReward", "reward_fn"]

_DEFAULTS = {
    "prompt": "prompt",
    "completions": "response",
    "completion_ids": "token_ids",
    **REFERENCES,
    "images": "condition_images",
}


class ArealReward(Parametrised):
    """What AReaL calls; see `reward_fn`, which gives its method. One object a process, however often it is sent."""

    def __init__(
        self,
        reward: RewardFunction,
        *,
        fields: Mapping[str, str | None] | None = None,
        not_applicable: float | None = None,
        on_error: float | None = None,
        timeout: float | None = 14.0,
    ) -> None:
        adapter = "AReaL"
        check_reward(reward, adapter)
        self.reward = reward
        self.columns = Columns(_DEFAULTS, fields, adapter, reward)
        self.numbers = Numbers(not_applicable, on_error, adapter)
        self.calls = SingleCalls(reward, adapter=adapter, timeout=timeout)
        self._payload: bytes | None = None

    def reward_fn(
        self,
        prompt: Any,
        completions: Any,
        prompt_ids: Any,  # noqa: ARG002  # of the contract
        completion_ids: Any,
        **data: Any,
    ) -> float:
        """Score one sample."""
        columns = {**data, "prompt": prompt, "completions": completions}
        if completion_ids is not None:
            columns["completion_ids"] = list(completion_ids)
        (sample,) = self.columns.samples({name: [value] for name, value in columns.items()}, 1)
        (score,) = self.numbers(self.calls.score(sample))
        return score

    def __reduce__(self) -> tuple[Any, ...]:
        if self._payload is None:
            self._payload = pickle.dumps(super().__reduce__())
        return _of_this_process, (self._payload,)


@functools.cache
def _of_this_process(payload: bytes) -> Any:
    """The one object: what it loaded stays loaded from call to call."""
    rebuild, arguments = pickle.loads(payload)  # noqa: S301  # from this object's own __reduce__
    return rebuild(*arguments)


def reward_fn(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    timeout: float | None = 14.0,
) -> Callable[..., float]:
    """The function for an AReaL workflow: ``RLVRWorkflow(reward_fn=areal.reward_fn(my_reward), ...)``.

    It pickles as far as the reward does, and a process that got it a hundred times has read the weights once.

    Args:
        reward: The reward; not one of groups: AReaL shows single samples.
        fields: Column by field, ``{"reference": "label"}``: ``prompt``, ``completions``, ``completion_ids`` and
            the columns of the data set. By default ``answer``, ``solution`` or ``ground_truth`` is the reference; what
            is no field is metadata.
        not_applicable: The number for a sample to which the reward does not apply; without it that is an error.
        on_error: The number for a sample that failed; without it the error is raised, and AReaL tries three times more.
        timeout: Seconds for a call, less than AReaL's own, which end with a 0 that nobody chose. A model that takes
            longer to load is loaded beforehand, or behind ``flux-rewards serve``.

    Raises:
        ConfigError: A reward of groups, or an argument that cannot be used.

    Does not batch: a process of the pool has one call at a time. For models, `RemoteReward` to a server that batches.

    Examples:
        >>> from flux_rewards import ExactMatch
        >>> score = reward_fn(ExactMatch())
        >>> score("What is 2 + 2?", "4", [1, 2], [3], answer="4")
        1.0
    """
    made = ArealReward(reward, fields=fields, not_applicable=not_applicable, on_error=on_error, timeout=timeout)
    return made.reward_fn
