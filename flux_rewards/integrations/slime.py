"""slime: rewards as the functions of ``--custom-rm-path``, for single samples and, with ``--group-rm``, for groups.

The contract is that of slime as read at 0d234f3 (``utils/types.py``, ``rollout/rm_hub``): ``async fn(args, sample)``,
or ``async fn(args, samples)``, awaited on the one event loop of the rollout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from flux_rewards.errors import ConfigError, brief
from flux_rewards.integrations.batches import check_reward
from flux_rewards.integrations.columns import Columns
from flux_rewards.integrations.named_parts import NamedParts
from flux_rewards.integrations.numbers import Numbers
from flux_rewards.integrations.single import SingleCalls
from flux_rewards.parameters import Parametrised
from flux_rewards.validation import checked_text

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.base import RewardFunction
    from flux_rewards.contract import Scored
    from flux_rewards.data import Sample

__all__ = ["SlimeOptions", "SlimeReward", "custom_rm", "group_rm"]

_DEFAULTS = {
    "prompt": "prompt",
    "response": "response",
    "label": "reference",
    "response_tokens": "token_ids",
    "images": "condition_images",
    "group_index": "group_id",
}


class SlimeOptions(TypedDict, total=False):
    """Keyword arguments of `custom_rm` and `group_rm`."""

    reward_key: str | None
    parts: Sequence[str] | None
    fields: Mapping[str, str | None] | None
    not_applicable: float | None
    on_error: float | None
    max_batch: int
    window: float
    timeout: float | None


class SlimeReward(Parametrised):
    """What slime awaits; see `custom_rm` and `group_rm`, which give its methods. Pickles as far as the reward does."""

    def __init__(
        self,
        reward: RewardFunction,
        *,
        reward_key: str | None = None,
        parts: Sequence[str] | None = None,
        fields: Mapping[str, str | None] | None = None,
        not_applicable: float | None = None,
        on_error: float | None = None,
        max_batch: int = 64,
        window: float = 0.005,
        timeout: float | None = None,
        groups: bool = False,
    ) -> None:
        adapter = "slime"
        check_reward(reward, adapter)
        if parts is not None and reward_key is None:
            raise ConfigError("slime: parts go into a dict, of which slime wants to know the score: give reward_key")
        self.reward = reward
        self.reward_key = None if reward_key is None else checked_text(reward_key, "slime: reward_key", reward.name)
        self.columns = Columns(_DEFAULTS, fields, adapter, reward)
        self.numbers = Numbers(not_applicable, on_error, adapter)
        self.parts = NamedParts(reward, self.numbers, parts if reward_key else [], taken=[reward_key or ""])
        self.calls = SingleCalls(
            reward, adapter=adapter, max_batch=max_batch, window=window, timeout=timeout, groups=groups
        )

    async def custom_rm(self, args: Any, sample: Any, **kwargs: Any) -> Any:  # noqa: ARG002  # of the contract
        """Score one sample, or each of several."""
        if isinstance(sample, (list, tuple)):  # a rollout that made several, also without --group-rm
            return list(await asyncio.gather(*(self.custom_rm(args, one) for one in sample)))
        (told,) = self._numbers(await self.calls.ascore(self._sample(sample)))
        return told

    async def group_rm(self, args: Any, samples: Sequence[Any], **kwargs: Any) -> list[Any]:  # noqa: ARG002
        """Score one group."""
        if not isinstance(samples, (list, tuple)):
            raise ConfigError(f"slime passed {brief(samples)} instead of a group; start it with --group-rm")
        return self._numbers(await self.calls.ascore_group([self._sample(sample) for sample in samples]))

    def _sample(self, sample: Any) -> Sample:
        length = sample.response_length
        media = getattr(sample, "multimodal_inputs", None) or {}
        columns = {
            **(sample.metadata if isinstance(sample.metadata, Mapping) else {}),
            **{key: media[key] for key in ("images",) if media.get(key)},
            "prompt": sample.prompt,
            "response": sample.response,
            "label": sample.label,
            "group_index": sample.group_index,
        }
        if length and len(sample.tokens) >= length:
            columns["response_tokens"] = list(sample.tokens[-length:])
        (found,) = self.columns.samples({name: [value] for name, value in columns.items()}, 1)
        return found

    def _numbers(self, scored: Scored) -> list[Any]:
        scores = self.numbers(scored)
        if self.reward_key is None:
            return list(scores)
        return [
            {self.reward_key: score, **parts} for score, parts in zip(scores, self.parts(scored.batch), strict=True)
        ]


def custom_rm(reward: RewardFunction, **options: Unpack[SlimeOptions]) -> Callable[..., Any]:
    """A coroutine function for ``--custom-rm-path``: in a module of your own, ``reward = slime.custom_rm(my_reward)``.

    Calls that come at once are scored together, beside slime's event loop, which is never blocked. Samples have the
    prompt, the response, `label` as the reference, the response's tokens, ``multimodal_inputs["images"]`` as condition
    images, and the rest of the sample's metadata.

    Args:
        reward: The reward; not one of groups (see `group_rm`).
        **options: ``reward_key``: give a dict with the score under this key, and the parts; for slime's
            ``--reward-key``. ``parts``: which. ``fields``: column by field, ``{"reference": "answer"}``; columns
            are slime's own and the keys of the metadata. ``not_applicable``, ``on_error``: the numbers for samples
            without a score; without them that is an error, which ends the rollout. ``max_batch``, ``window``,
            ``timeout``: as for `SingleCalls`.

    Raises:
        ConfigError: A reward of groups, or an argument that cannot be used.

    Does not normalize within groups: that is ``--custom-reward-post-process-path``'s.

    Examples:
        >>> import asyncio, types
        >>> from flux_rewards import ExactMatch
        >>> score = custom_rm(ExactMatch())
        >>> sample = types.SimpleNamespace(prompt="2 + 2", response="4", label="4", tokens=[], response_length=0,
        ...                                metadata={}, group_index=0)
        >>> asyncio.run(score(None, sample))
        1.0
    """
    return SlimeReward(reward, **options).custom_rm


def group_rm(reward: RewardFunction, **options: Unpack[SlimeOptions]) -> Callable[..., Any]:
    """A coroutine function for ``--custom-rm-path`` with ``--group-rm``: slime passes the samples of one prompt.

    For rewards of groups, and for any other; the arguments are those of `custom_rm`.

    Examples:
        >>> from flux_rewards import GroupRank, LengthReward
        >>> score = group_rm(GroupRank(LengthReward(target=2)))
    """
    return SlimeReward(reward, groups=True, **options).group_rm
