"""From what verl knows of a sample to a score under verl's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.contract import Scored
from flux_rewards.executor import default_executor
from flux_rewards.integrations.batches import check_reward
from flux_rewards.integrations.columns import Columns
from flux_rewards.integrations.named_parts import NamedParts
from flux_rewards.integrations.numbers import Numbers
from flux_rewards.integrations.single import SingleCalls
from flux_rewards.parameters import Parametrised
from flux_rewards.validation import number
from flux_rewards.wrappers.mask_errors import MaskErrors

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.data import RewardBatch, Sample

__all__ = ["DEFAULT_FIELDS", "VerlScoring"]

DEFAULT_FIELDS = {
    "solution_str": "response",
    "response_ids": "token_ids",
    "response_offsets": "token_offsets",
    "ground_truth": "reference",
    "raw_prompt": "prompt",
    "prompt": "prompt",
    "question": "prompt",
    "problem": "prompt",
    "prompt_str": "prompt",
    "images": "condition_images",
    "image": "condition_images",
    "uid": "group_id",
}
"""Field of a sample by verl's columns and the usual keys of ``extra_info``; the first that is there."""

_NOT_FOR_REWARDS = "reward_model_tokenizer"
"""An object for functions that prompt a reward model of verl's own; no metadata of a sample."""


class VerlScoring(Parametrised):
    """Scores what verl shows, sample by sample or as a batch. Its methods are the functions that verl calls.

    Bound methods pickle, and verl sees which of them is a coroutine function; a callable object it takes for a plain
    one. The arguments are those of `flux_rewards.integrations.verl.compute_score`; `groups` says that verl shows whole
    batches.
    """

    def __init__(
        self,
        reward: RewardFunction,
        *,
        fields: Mapping[str, str | None] | None = None,
        parts: Sequence[str] | None = None,
        not_applicable: float | None = None,
        on_error: float | None = None,
        max_batch: int = 64,
        window: float = 0.005,
        timeout: float | None = None,
        groups: bool = False,
    ) -> None:
        check_reward(reward, "verl")
        self.reward = reward
        self.columns = Columns(DEFAULT_FIELDS, fields, "verl", reward)
        self.numbers = Numbers(not_applicable, on_error, "verl")
        counted = [] if on_error is None else ["failed"]
        self.parts = NamedParts(reward, self.numbers, parts, taken=["score", *counted])
        self.plain = parts is not None and not parts
        self.calls = SingleCalls(
            reward, adapter="verl", max_batch=max_batch, window=window, timeout=timeout, groups=groups
        )
        self.timeout = None if timeout is None else number(timeout, "verl: timeout", "", above=0.0)

    def compute_score(
        self,
        data_source: Any,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, float] | float:
        """What verl calls in a thread, once a sample."""
        (sample,) = self.samples([data_source], [solution_str], [ground_truth], [extra_info], others=kwargs)
        return self.told(self.calls.score(sample))[0]

    async def compute_score_async(
        self,
        data_source: Any,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, float] | float:
        """What verl awaits, once a sample."""
        (sample,) = self.samples([data_source], [solution_str], [ground_truth], [extra_info], others=kwargs)
        return self.told(await self.calls.ascore(sample))[0]

    def compute_scores(
        self,
        data_sources: Sequence[Any],
        solution_strs: Sequence[str],
        ground_truths: Sequence[Any],
        extra_infos: Sequence[Mapping[str, Any] | None] | None = None,
        **kwargs: Any,
    ) -> list[dict[str, float] | float]:
        """What verl's batch manager calls, once a batch."""
        infos = [None] * len(solution_strs) if extra_infos is None else extra_infos
        samples = self.samples(data_sources, solution_strs, ground_truths, infos, others=kwargs)
        return self.told(self.score_batch(samples))

    def samples(
        self,
        data_sources: Sequence[Any],
        solution_strs: Sequence[str],
        ground_truths: Sequence[Any],
        extra_infos: Sequence[Mapping[str, Any] | None],
        *,
        others: Mapping[str, Any],
        columns: Mapping[str, Sequence[Any]] | None = None,
    ) -> list[Sample]:
        """The samples; verl's own objects stay as they are.

        Args:
            data_sources: A column of verl's.
            solution_strs: A column of verl's.
            ground_truths: A column of verl's.
            extra_infos: A mapping a sample, whose keys become columns.
            others: What is the same for all samples, such as ``reward_kwargs`` of the configuration.
            columns: Further columns.
        """
        count = len(solution_strs)
        infos = [{} if info is None else info for info in extra_infos]
        keys = dict.fromkeys(key for info in infos for key in info)
        found: dict[str, Sequence[Any]] = {key: [info.get(key) for info in infos] for key in keys}
        found |= {name: [value] * count for name, value in others.items() if name != _NOT_FOR_REWARDS}
        found |= columns or {}
        found |= {
            "data_source": list(data_sources),
            "solution_str": list(solution_strs),
            "ground_truth": list(ground_truths),
        }
        return self.columns.samples(found, count)

    def score_batch(self, samples: Sequence[Sample]) -> Scored:
        """Score samples together, their groups whole."""
        masked = self.reward if self.numbers.on_error is None else MaskErrors(self.reward, max_failure_rate=1.0)
        pending = default_executor().submit(masked, samples, timeout=self.timeout)
        return Scored(pending.result(), pending.causes)

    def told(self, scored: Scored) -> list[dict[str, float] | float]:
        """For each sample the same keys: ``score``, the parts, and ``failed`` where a number stands for a failure.

        Raises:
            FluxRewardsError: A sample has no score, and no number stands for that.
        """
        scores = self.numbers(scored)
        if self.plain:
            return list(scores)
        return [
            {"score": score, **self._failed(scored.batch, row), **parts}
            for row, (score, parts) in enumerate(zip(scores, self.parts(scored.batch), strict=True))
        ]

    def _failed(self, batch: RewardBatch, row: int) -> dict[str, float]:
        return {} if self.numbers.on_error is None else {"failed": float(row in batch.errors)}
