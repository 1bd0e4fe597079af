"""verl: rewards as its scoring functions and reward managers, and its scoring functions as rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.integrations.verl.foreign import VerlReward
from flux_rewards.integrations.verl.managers import batch_manager_class, loop_manager_class
from flux_rewards.integrations.verl.scoring import VerlScoring

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.base import RewardFunction, RewardOptions

__all__ = [
    "VerlReward",
    "batch_reward_manager",
    "compute_score",
    "compute_score_async",
    "compute_scores",
    "from_verl",
    "reward_manager",
]


def compute_score(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    parts: Sequence[str] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    max_batch: int = 64,
    window: float = 0.005,
    timeout: float | None = None,
) -> Callable[..., dict[str, float] | float]:
    """A plain function for ``custom_reward_function``, which verl calls in threads, a sample at a time.

    Calls that come at once are scored together. `compute_score_async` is the better one for the reward loop of
    verl 0.8 and later: verl runs only as many plain functions at once as its event loop has threads.

    Args:
        reward: The reward; not one of groups: verl shows single samples here (see `batch_reward_manager`).
        fields: Column by field of `Sample`: ``solution_str``, ``ground_truth``, ``data_source``, a key of
            ``extra_info`` or of ``reward_kwargs``. By default the response, the reference, the prompt from
            ``extra_info``'s ``prompt``, ``question`` or ``problem``, its ``images``; everything else is metadata.
        parts: Parts that verl is told of; by default those that the reward is known to have, such as a composite's.
            An empty list gives verl a plain number, which it logs as ``acc``, instead of a dict.
        not_applicable: The number for a sample, or a part, to which the reward does not apply; None raises.
        on_error: The number for a sample that could not be scored; None raises. The policy learns from it.
        max_batch: Samples that are scored together, at most.
        window: Seconds that a call waits for others, where calls overlap.
        timeout: Seconds for a call; what is not done by then has failed. None for the reward's own limits.

    Returns:
        ``compute_score(data_source, solution_str, ground_truth, extra_info=None, **reward_kwargs)``. It returns a dict
        with the same keys for every sample: ``score``, each part by its name, and, with `on_error`, ``failed`` (0 or
        1). It pickles as far as the reward does.

    Raises:
        ConfigError: A reward of groups, or an argument that cannot be used.

    What it raises verl may hide: the ``rate_limited`` manager and, before 0.8, ``prime`` turn every exception into
    0.0. ``prime`` reads plain numbers only: give it ``parts=[]``. Source: verl 0.9.1,
    ``verl.experimental.reward_loop``; 0.7, ``verl.workers.reward_manager``.

    Examples:
        >>> from flux_rewards import ExactMatch
        >>> score = compute_score(ExactMatch())
        >>> score(data_source="mine", solution_str="42", ground_truth="42", extra_info={"index": 7})
        {'score': 1.0}
    """
    scoring = VerlScoring(
        reward,
        fields=fields,
        parts=parts,
        not_applicable=not_applicable,
        on_error=on_error,
        max_batch=max_batch,
        window=window,
        timeout=timeout,
    )
    return scoring.compute_score


def compute_score_async(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    parts: Sequence[str] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    max_batch: int = 64,
    window: float = 0.005,
    timeout: float | None = None,
) -> Callable[..., Any]:
    """A coroutine function for ``custom_reward_function`` of the reward loop: verl awaits all samples at once.

    The arguments, and what it returns, are those of `compute_score`. verl's event loop is not blocked, whatever the
    reward does.

    Examples:
        >>> import asyncio
        >>> from flux_rewards import ExactMatch
        >>> score = compute_score_async(ExactMatch())
        >>> asyncio.run(score(data_source="mine", solution_str="42", ground_truth="42"))
        {'score': 1.0}
    """
    scoring = VerlScoring(
        reward,
        fields=fields,
        parts=parts,
        not_applicable=not_applicable,
        on_error=on_error,
        max_batch=max_batch,
        window=window,
        timeout=timeout,
    )
    return scoring.compute_score_async


def compute_scores(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    parts: Sequence[str] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    timeout: float | None = None,
) -> Callable[..., list[dict[str, float] | float]]:
    """A plain function for ``custom_reward_function`` with the ``batch`` manager of verl before 0.8.

    The arguments are those of `compute_score`. A reward of groups is served, as the whole batch is shown: verl passes
    no ids, so name a column that has them, such as ``fields={"group_id": "index"}``, or groups are equal prompts.

    Examples:
        >>> from flux_rewards import GroupRank, LengthReward
        >>> scores = compute_scores(GroupRank(LengthReward(target=2)), fields={"group_id": "index"}, parts=[])
        >>> scores(data_sources=["mine"] * 2, solution_strs=["one", "one two"], ground_truths=[None] * 2,
        ...        extra_infos=[{"index": 7}, {"index": 7}])
        [0.0, 1.0]
    """
    scoring = VerlScoring(
        reward,
        fields=fields,
        parts=parts,
        not_applicable=not_applicable,
        on_error=on_error,
        timeout=timeout,
        groups=True,
    )
    return scoring.compute_scores


def reward_manager(
    reward: RewardFunction,
    *,
    token_rewards: bool = False,
    fields: Mapping[str, str | None] | None = None,
    parts: Sequence[str] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    max_batch: int = 64,
    window: float = 0.005,
    timeout: float | None = None,
) -> type:
    """A reward manager class for the reward loop of verl 0.8 and later (``reward.reward_manager.source=importlib``).

    Beside what `compute_score` sees, samples have the prompt as verl has it (``raw_prompt``, else decoded), `token_ids`
    and, for a reward that reads them, `token_offsets`.

    Args:
        reward: The reward; not one of groups: the reward loop shows single samples.
        token_rewards: Whether the reward's token rewards, where a sample has some, take the place of its score: one
            value a token of the response instead of one at the last token.
        fields: As `compute_score`.
        parts: As `compute_score`.
        not_applicable: As `compute_score`.
        on_error: As `compute_score`.
        max_batch: As `compute_score`.
        window: As `compute_score`.
        timeout: As `compute_score`.

    Raises:
        ConfigError: A reward of groups. When verl makes the manager: `token_rewards`, and a configuration in which verl
            passes on one number a sample.
        MissingDependencyError: verl is not installed, or has no reward loop.

    Source: verl 0.9.1, ``RewardManagerBase.run_single`` and ``assemble_rm_scores``.
    """
    scoring = VerlScoring(
        reward,
        fields=fields,
        parts=parts,
        not_applicable=not_applicable,
        on_error=on_error,
        max_batch=max_batch,
        window=window,
        timeout=timeout,
    )
    return loop_manager_class(scoring, token_rewards=token_rewards)


def batch_reward_manager(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    parts: Sequence[str] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    timeout: float | None = None,
) -> type:
    """A reward manager class for verl before 0.8, which scores a whole batch at once, groups (``uid``) and all.

    Register it in the file of your ``custom_reward_function``:
    ``verl.workers.reward_manager.register("flux")(batch_reward_manager(reward))``, and set
    ``reward_model.reward_manager=flux``. Token rewards, where a sample has some, take the place of its score. The
    arguments are those of `compute_score`.

    Raises:
        MissingDependencyError: verl is not installed, or has no such managers any more.

    Source: verl 0.7, ``AbstractRewardManager``; 0.9.1 still has the class, but no trainer of its own that calls it.
    """
    scoring = VerlScoring(
        reward,
        fields=fields,
        parts=parts,
        not_applicable=not_applicable,
        on_error=on_error,
        timeout=timeout,
        groups=True,
    )
    return batch_manager_class(scoring)


def from_verl(
    function: Callable[..., Any] | str,
    data_source: str | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    plural: bool = False,
    **options: Unpack[RewardOptions],
) -> VerlReward:
    """A scoring function that was written for verl, or comes with it, as a reward; see `VerlReward`.

    Examples:
        >>> def compute_score(data_source, solution_str, ground_truth, extra_info=None):
        ...     return float(solution_str == ground_truth)
        >>> from_verl(compute_score, "mine")(response=["42", "41"], reference=["42", "42"]).rewards
        array([1., 0.])
    """
    return VerlReward(function, data_source, arguments=arguments, plural=plural, **options)
