"""verifiers: rewards as its rubrics (0.3) and task rewards (0.4), and its reward functions as rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_rewards.integrations.batches import check_reward
from flux_rewards.integrations.importing import imported
from flux_rewards.integrations.verifiers.foreign import LEGACY, VerifiersReward, from_verifiers
from flux_rewards.integrations.verifiers.scoring import GroupFunction, RolloutFunction, TaskFunction, VerifiersScoring
from flux_rewards.naming import distinct

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction

__all__ = ["RewardFuncs", "VerifiersReward", "from_verifiers", "reward_funcs", "rubric", "task_reward"]


class RewardFuncs(NamedTuple):
    """What ``vf.Rubric(funcs=..., weights=...)`` takes."""

    funcs: list[Any]
    weights: list[float]


def reward_funcs(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    parts: Sequence[str] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    max_batch: int = 64,
    window: float = 0.005,
    timeout: float | None = None,
) -> RewardFuncs:
    """Functions and weights for a ``Rubric`` of verifiers 0.3, or of before.

    The first function, of weight 1, is the reward; the others, of weight 0, are its parts, which verifiers then logs
    as metrics. All come from one call of the reward a rollout; rollouts that are scored at once are scored together.

    Args:
        reward: The reward. For one of groups the functions have verifiers' group form, and see the rollouts of an
            example together.
        fields: Column by field of `Sample`: ``prompt``, ``completion``, ``answer``, ``example_id``, a key of ``info``
            or a column of the dataset. By default the completion is the response, the answer the reference (an empty
            one is none), and ``example_id`` the group; everything else is metadata.
        parts: Parts that become metrics; by default those that the reward is known to have, such as a composite's.
        not_applicable: The number for a rollout, or a part, to which the reward does not apply; None raises.
        on_error: The number for a rollout that could not be scored; None raises. The policy learns from it.
        max_batch: Samples that are scored together, at most.
        window: Seconds that a call waits for others, where calls overlap.
        timeout: Seconds for a call; what is not done by then has failed. None for the reward's own limits.

    Raises:
        ConfigError: An argument that cannot be used.

    A ``Rubric`` turns whatever a function raises into 0.0 and a line in the log: use `rubric`, which does not, or give
    the numbers yourself. Source: verifiers 0.3.1, ``verifiers.legacy.rubrics.rubric``.

    Examples:
        >>> from flux_rewards import CompositeReward, ExactMatch, LengthReward
        >>> reward = CompositeReward({"right": (ExactMatch(), 1.0), "brief": (LengthReward(target=9), 0.1)})
        >>> funcs, weights = reward_funcs(reward)
        >>> [func.__name__ for func in funcs], weights
        (['CompositeReward', 'right', 'brief'], [1.0, 0.0, 0.0])
    """
    scoring = VerifiersScoring(
        reward,
        fields=fields,
        parts=parts,
        not_applicable=not_applicable,
        on_error=on_error,
        max_batch=max_batch,
        window=window,
        timeout=timeout,
        groups=True,
    )
    kind = GroupFunction if reward.scope == "group" else RolloutFunction
    keys = list(scoring.parts.keys.values())
    total, *names = distinct([reward.name, *keys])
    funcs = [kind(scoring, total)] + [kind(scoring, name, part=key) for name, key in zip(names, keys, strict=True)]
    return RewardFuncs(funcs, [1.0] + [0.0] * len(keys))


def rubric(reward: RewardFunction, *, parser: Any = None, **options: Any) -> Any:
    """A ``Rubric`` of verifiers 0.3 that scores with the reward, and raises what fails instead of scoring it 0.0.

    Further functions may be added to it (``add_reward_func``, ``add_metric``); those are verifiers' own affair.

    Args:
        reward: The reward.
        parser: The rubric's parser, for functions that are added.
        **options: As `reward_funcs`.

    Raises:
        ConfigError: An argument that cannot be used.
        MissingDependencyError: verifiers is not installed, or is 0.4, which has no rubrics (see `task_reward`).

    Scoring then raises the reward's own error, which ends the run of the environment that asked. Source: verifiers
    0.3.1, ``verifiers.legacy.rubrics.rubric``.
    """
    base = imported("verifiers.legacy", f"{LEGACY}; or use task_reward with verifiers 0.4").Rubric
    funcs, weights = reward_funcs(reward, **options)

    class FluxRubric(base):  # type: ignore[misc, valid-type]  # of a package that may be absent
        """A rubric whose functions of flux_rewards fail aloud."""

        async def _call_individual_reward_func(self, func: Any, state: Any) -> float:
            if isinstance(func, RolloutFunction):
                return await func.of_state(state)
            told: float = await super()._call_individual_reward_func(func, state)
            return told

        async def _call_group_reward_func(self, func: Any, states: Any) -> list[float]:
            if isinstance(func, GroupFunction):
                return await func.of_states(states)
            told: list[float] = await super()._call_group_reward_func(func, states)
            return told

    return FluxRubric(funcs=list(funcs), weights=weights, parser=parser)


def task_reward(
    reward: RewardFunction,
    *,
    weight: float = 1.0,
    priority: int = 0,
    fields: Mapping[str, str | None] | None = None,
    parts: Sequence[str] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    max_batch: int = 64,
    window: float = 0.005,
    timeout: float | None = None,
) -> Any:
    """A reward of a ``Task`` of verifiers 0.4, as a method that is decorated with ``@vf.reward`` would be.

    Write it into the class, ``quality = task_reward(reward)``: verifiers records it under that name. Its parts are
    recorded as metrics. It can also be plugged in by path (``--env.taskset.task.rewards``).

    Args:
        reward: The reward; not one of groups: a task's rewards see one trace.
        weight: As in ``@vf.reward``.
        priority: As in ``@vf.reward``.
        fields: Column by field of `Sample`: ``prompt``, ``completion``, or a field of the task's data. By default the
            response is what followed the prompt on the trace's last branch, and the reference the data's ``answer``,
            ``solution``, ``ground_truth`` or ``reference``; the data's other fields are metadata.
        parts: As `reward_funcs`; names of metrics.
        not_applicable: As `reward_funcs`.
        on_error: As `reward_funcs`.
        max_batch: As `reward_funcs`.
        window: As `reward_funcs`.
        timeout: As `reward_funcs`.

    Raises:
        ConfigError: A reward of groups, or an argument that cannot be used.

    What it raises is an error of the trace (``TaskError``), and no score. Token ids are not passed. Source: verifiers
    0.4.0, ``verifiers.v1.task`` and ``verifiers.v1.utils.decorators``.

    Examples:
        >>> from flux_rewards import ExactMatch
        >>> class MyTask:  # (vf.Task[MyData])
        ...     right = task_reward(ExactMatch(), weight=0.5)
        >>> MyTask.right.__name__
        'right'
    """
    groups = (
        "a task's reward of verifiers sees one trace; compare in finalize() of the Env, or leave it to the trainer's "
        "advantages"
    )
    check_reward(reward, "verifiers", groups=groups)
    scoring = VerifiersScoring(
        reward,
        fields=fields,
        parts=parts,
        not_applicable=not_applicable,
        on_error=on_error,
        max_batch=max_batch,
        window=window,
        timeout=timeout,
    )
    return TaskFunction(scoring, weight, priority)
