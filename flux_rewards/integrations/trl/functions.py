"""TRL: rewards of this library in `GRPOTrainer`, `RLOOTrainer` and their kin, and TRL's rewards here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ComputeError, ConfigError
from flux_rewards.integrations.trl.foreign import TRLReward, from_trl
from flux_rewards.integrations.trl.groups import GroupLayout
from flux_rewards.integrations.trl.once import OncePerBatch
from flux_rewards.integrations.trl.scoring import Schedule, Scoring, weighted_sum_of

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction

__all__ = ["AsyncRewardFunc", "RewardFunc", "TRLReward", "from_trl", "reward_func", "reward_funcs"]


def reward_funcs(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    num_generations: int | None = None,
    num_generations_eval: int | None = None,
    is_async: bool = False,
    distributed: bool = False,
    timeout: float | None = None,
) -> tuple[list[Any], list[float]]:  # Any: TRL's own type is a list of a union, which no other list is
    """The functions and weights of a reward, one a part, so that TRL logs every part under its own name.

    All parts are computed together and concurrently, once a batch: the function that TRL calls first computes them, the
    others take theirs. TRL's weighted sum of them is the composite's own total; a sample of which a masked part failed
    is left out by all of them. A reward that is no plain weighted sum (`GroupRank` over a composite, `Product`, ...) is
    one function, and its parts are logged as metrics.

    Args:
        reward: A `CompositeReward`, perhaps within `MaskErrors`, `Retry` and the like; or any other reward.
        fields: Column of the data set by field of `Sample`, such as ``{"reference": "gold"}``; None for a field that
            stays empty. Without it ``solution``, ``answer`` and ``ground_truth`` are the reference, ``image`` and
            ``images`` the condition images. All other columns are metadata.
        num_generations: Completions a prompt, for rewards that compare them; learned from the trainer by default.
        num_generations_eval: The same in evaluation.
        is_async: Give functions that TRL awaits beside its other asynchronous ones.
        distributed: Gather groups that straddle processes, instead of refusing them; see `DistributedGroups`.
        timeout: Seconds for a batch, then a `TimeoutError` ends the training; None for no other limits than those of
            the rewards.

    Returns:
        The functions, to which others, and names and objects of reward models, may be added; and their weights for
        ``GRPOConfig(reward_weights=...)``, which TRL does not take from anywhere else.

    Raises:
        ConfigError: An argument that cannot be used; on a call, a group that straddles processes.
        FluxRewardsError: On a call, a sample could not be scored and nothing masks it: the training ends.

    Examples:
        >>> from flux_rewards import CompositeReward, ExactMatch, LengthReward
        >>> funcs, weights = reward_funcs(CompositeReward([(ExactMatch(), 1.0), (LengthReward(target=2), 0.2)]))
        >>> [func.__name__ for func in funcs], weights
        (['ExactMatch', 'LengthReward'], [1.0, 0.2])
        >>> batch = {"prompts": ["6 * 7?"] * 2, "completions": ["42", "is 41"], "answer": ["42", "42"]}
        >>> [func(**batch) for func in funcs]
        [[1.0, 0.0], [0.5, 1.0]]

    Does not apply the weights: a trainer that ignores them, such as ``AsyncGRPOTrainer``, takes `reward_func`. Does not
    pass on token rewards, for which TRL has no place.
    """
    composite = weighted_sum_of(reward)
    scoring = Scoring(
        reward,
        separate=composite is not None,
        fields=fields,
        layout=GroupLayout(num_generations, num_generations_eval),
        distributed=distributed,
        timeout=timeout,
        schedule=None,
    )
    kind = _kind(is_async=is_async, distributed=distributed)
    if composite is None:
        return [kind(scoring)], [1.0]
    once = OncePerBatch(list(composite.weights))
    return [kind(scoring, part, once) for part in composite.weights], list(composite.weights.values())


def reward_func(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    num_generations: int | None = None,
    num_generations_eval: int | None = None,
    is_async: bool = False,
    distributed: bool = False,
    timeout: float | None = None,
    schedule: Schedule | None = None,
) -> RewardFunc:
    """One function for the total; parts, failures and statistics go to TRL's log as metrics and columns.

    Args:
        reward: Any reward.
        fields: As for `reward_funcs`.
        num_generations: As for `reward_funcs`.
        num_generations_eval: As for `reward_funcs`.
        is_async: As for `reward_funcs`.
        distributed: As for `reward_funcs`.
        timeout: As for `reward_funcs`.
        schedule: A function from TRL's ``trainer_state`` to weights by part, for those that change during the training
            of a `CompositeReward`; they replace its own, and are logged.

    Raises:
        ConfigError: An argument that cannot be used; on a call, a group that straddles processes.
        FluxRewardsError: On a call, a sample could not be scored and nothing masks it: the training ends.

    Examples:
        >>> from types import SimpleNamespace
        >>> from flux_rewards import CompositeReward, ExactMatch, LengthReward
        >>> reward = CompositeReward({"right": (ExactMatch(), 1.0), "brief": (LengthReward(target=2), 0.2)})
        >>> func = reward_func(reward, schedule=lambda state: {"brief": min(1.0, state.global_step / 100)})
        >>> func(prompts=["6 * 7?"], completions=["42"], answer=["42"], trainer_state=SimpleNamespace(global_step=50))
        [1.25]
    """
    scoring = Scoring(
        reward,
        separate=False,
        fields=fields,
        layout=GroupLayout(num_generations, num_generations_eval),
        distributed=distributed,
        timeout=timeout,
        schedule=schedule,
    )
    return _kind(is_async=is_async, distributed=distributed)(scoring)


def _kind(*, is_async: bool, distributed: bool) -> type[RewardFunc]:
    if is_async and distributed:
        raise ConfigError(
            "TRL: distributed=True needs is_async=False: processes that gather groups must do so in one and the same "
            "order, which an event loop does not keep"
        )
    return AsyncRewardFunc if is_async else RewardFunc


class RewardFunc:
    """What TRL calls: the total of a reward, or one of its parts. Made by `reward_func` and `reward_funcs`.

    It pickles as far as its reward does; the functions of one reward go together in one pickle.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> func = reward_func(LengthReward(target=2))
        >>> func.__name__, func(prompts=["Say it."], completions=[[{"role": "assistant", "content": "so be it"}]])
        ('LengthReward', [0.5])
    """

    def __init__(self, scoring: Scoring, part: str | None = None, once: OncePerBatch | None = None) -> None:
        self._scoring = scoring
        self._part = part
        self._once = once

    @property
    def __name__(self) -> str:  # TRL's key for logs; the name of a remote reward is not asked for before
        return self._part if self._part is not None else self._scoring.reward.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__name__!r} of {self._scoring.reward!r}>"

    def __call__(self, prompts: Any, completions: Any, completion_ids: Any = None, **columns: Any) -> Any:
        """One score a completion, None where there is none.

        Args:
            prompts: Texts, or lists of messages.
            completions: Texts, or lists of messages.
            completion_ids: Lists of token ids.
            **columns: The other columns of the data set, and what TRL tells: ``trainer_state``, ``log_metric`` and
                ``log_extra``.
        """
        columns.update(prompts=prompts, completions=completions, completion_ids=completion_ids)
        if self._once is None:
            return self._scoring.score(columns)[self.__name__]
        future, is_first = self._once.claim(completions, self.__name__, columns)
        if is_first:
            try:
                future.set_result(self._scoring.score(columns))
            except BaseException as error:
                future.set_exception(_for_others(error))
                raise
        return future.result()[self.__name__]


class AsyncRewardFunc(RewardFunc):
    """The same, to be awaited.

    Examples:
        >>> import asyncio
        >>> from flux_rewards import LengthReward
        >>> func = reward_func(LengthReward(target=2), is_async=True)
        >>> asyncio.run(func(prompts=["Say it."], completions=["so be it"]))
        [0.5]
    """

    async def __call__(self, prompts: Any, completions: Any, completion_ids: Any = None, **columns: Any) -> Any:
        """One score a completion, None where there is none; the arguments are those of `RewardFunc`."""
        columns.update(prompts=prompts, completions=completions, completion_ids=completion_ids)
        if self._once is None:
            return (await self._scoring.score_async(columns))[self.__name__]
        future, is_first = self._once.claim(completions, self.__name__, columns)
        if is_first:
            try:
                future.set_result(await self._scoring.score_async(columns))
            except BaseException as error:
                future.set_exception(_for_others(error))
                raise
        # Shielded: one that gives up waiting does not end it for the others.
        return (await asyncio.shield(asyncio.wrap_future(future)))[self.__name__]


def _for_others(error: BaseException) -> BaseException:
    """Those who wait for the same batch fail too; an interrupt is that of one thread only."""
    return error if isinstance(error, Exception) else ComputeError(f"the batch was given up: {type(error).__name__}")
