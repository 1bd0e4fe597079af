"""A value for every step of a response, at the token where the step ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import FIELDS, RewardOutput, Sample
from flux_rewards.errors import ComputeError, ConfigError, InputError, brief
from flux_rewards.rewards.tokens.alignment import checked_offsets
from flux_rewards.validation import one_of
from flux_rewards.wrappers.mask_errors import MaskErrors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Unpack

__all__ = ["StepRewards", "steps_of"]

_AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda values: sum(values) / len(values),
    "sum": sum,
    "min": min,
    "product": math.prod,
    "last": lambda values: values[-1],
}


class StepRewards(RewardFunction):
    r"""The value of each step at its last token, 0 at all others; the reward is their mean, or another aggregate.

    Steps are what the separator separates; those of whitespace only are none. Their values come from a reward that
    scores each step as a response of its own, or were computed elsewhere and stand in the metadata.

    Args:
        reward: Scores each step: a sample with that step as its response, with its tokens and offsets, and all else as
            it was. None takes the values from the metadata.
        separator: The text between steps, as it is (no pattern).
        metadata_key: Where ``Sample.metadata`` holds one number a step, where there is no `reward`; None among them for
            a step without a value.
        aggregate: What `reward` is of the values: ``"mean"``, ``"sum"``, ``"min"`` (the weakest step, as for process
            reward models), ``"product"`` or ``"last"``.
        **options: Of every reward; see `RewardFunction`.

    A step ends at the last token that shares a character with it, whitespace around it not counted; where two steps end
    at one token their values add up. So the sum over the tokens is the sum over the steps, and equals `reward` with
    ``aggregate="sum"``. A step to which `reward` does not apply takes no part.

    Bounds: those of `reward`; none with ``"sum"``, with ``"product"``, or with values from the metadata. Does not apply
    (None) to a response without steps, or without any value. Metadata: ``step_rewards``, the values; ``step_ends``, the
    tokens.

    Raises:
        ConfigError: A parameter is out of its range, or `reward` compares the samples of a group.
        InputError: A step has no token, as where tokens were cut and the text was not; the metadata hold no values, or
            another number of them; or `token_offsets` are no spans of the text.
        ComputeError: `reward` failed for a step.

    Does not show `reward` the steps before: a model of the whole process gives its values in one pass elsewhere, and
    they go into the metadata.

    Examples:
        >>> steps = StepRewards(separator=";", aggregate="min")
        >>> batch = steps(
        ...     response=["a b;c d"],
        ...     token_ids=[[1, 2, 3, 4]],
        ...     token_offsets=[[(0, 1), (1, 3), (3, 5), (5, 7)]],
        ...     metadata=[{"step_rewards": [0.9, 0.2]}],
        ... )
        >>> batch.rewards, batch.token_rewards
        (array([0.2]), [array([0. , 0.9, 0. , 0.2])])
    """

    required_fields: Sequence[str] = ("response", "token_ids", "token_offsets")
    optional_fields: Sequence[str] | None = ("metadata",)
    example_config = {"reward": {"reward_model": "length", "target": 2, "unit": "words"}, "separator": " "}

    def __init__(
        self,
        reward: RewardFunction | None = None,
        separator: str = "\n\n",
        metadata_key: str = "step_rewards",
        aggregate: str = "mean",
        **options: Unpack[RewardOptions],
    ) -> None:
        if reward is not None and not isinstance(reward, RewardFunction):
            raise ConfigError(f"reward must be a reward or None, found {brief(reward)}", reward=self.name)
        if reward is not None and aggregate not in ("sum", "product"):
            self.bounds = reward.bounds  # before the base rescales them
        super().__init__(**options)
        given: Any = separator
        if not isinstance(given, str) or not given:
            raise ConfigError(f"separator must be a text, found {brief(separator)}", reward=self.name)
        if reward is not None and reward.scope == "group":
            raise ConfigError(
                f"reward must score a step by itself, and {reward.name} compares the samples of a group; put the group "
                "around StepRewards",
                reward=self.name,
            )
        self.reward = reward
        self.separator = separator
        self.metadata_key = metadata_key
        self.aggregate = one_of(aggregate, "aggregate", self.name, tuple(_AGGREGATES))
        if reward is not None:
            self.required_fields = tuple(dict.fromkeys([*StepRewards.required_fields, *reward.required_fields]))
            self.optional_fields = reward.optional_fields

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One value a token, and the aggregate of those of the steps."""
        located: list[Any] = []
        for sample in samples:
            try:
                located.append(_Steps(sample, self.separator))
            except InputError as error:  # of this sample alone
                located.append(error)
        valued = self._scored(located) if self.reward is not None else [self._noted(steps) for steps in located]
        return [
            values if isinstance(values, Exception) else self._row(steps, values)
            for steps, values in zip(located, valued, strict=True)
        ]

    def load(self) -> None:
        """Load what the reward of the steps needs."""
        if self.reward is not None:
            self.reward.load()

    def close(self) -> None:
        """Let go of what the reward of the steps holds."""
        if self.reward is not None:
            self.reward.close()

    def _scored(self, located: Sequence[Any]) -> list[Any]:
        """All steps of all samples in one call."""
        parts = [part for steps in located if isinstance(steps, _Steps) for part in steps.samples()]
        assert self.reward is not None  # noqa: S101  # for the type checker
        # A step that fails must not take other samples along.
        batch = iter(MaskErrors(self.reward, max_failure_rate=1.0)(parts) if parts else ())
        valued: list[Any] = []
        for steps in located:
            if isinstance(steps, Exception):
                valued.append(steps)
                continue
            rows = [next(batch) for _ in steps.spans]
            failed = [(place, row.error) for place, row in enumerate(rows) if row.error is not None]
            if failed:
                place, why = failed[0]
                valued.append(ComputeError(f"step {place + 1} of {len(rows)} failed in {self.reward.name}: {why}"))
            else:
                valued.append([None if math.isnan(row.reward) else row.reward for row in rows])
        return valued

    def _noted(self, steps: Any) -> Any:
        """The values in the metadata of a sample."""
        if isinstance(steps, Exception):
            return steps
        noted = steps.sample.metadata.get(self.metadata_key)
        if hasattr(noted, "tolist"):
            noted = noted.tolist()
        wanted = f"expected {len(steps.spans)} numbers in metadata[{self.metadata_key!r}], one a step"
        if not isinstance(noted, (list, tuple)):
            return InputError(f"{wanted}, found {brief(noted)}", field="metadata")
        if len(noted) != len(steps.spans):
            return InputError(f"{wanted}, found {len(noted)}; are steps separated by other text?", field="metadata")
        for value in noted:
            number = not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
            if value is not None and not number:
                return InputError(f"{wanted}, found {brief(value)} among them", field="metadata")
        return noted

    def _row(self, steps: _Steps, values: Sequence[float | None]) -> RewardOutput | None:
        given = [float(value) for value in values if value is not None]
        if not given:
            return None
        tokens = np.zeros(steps.count)
        for end, value in zip(steps.ends, values, strict=True):
            tokens[end] += value or 0.0
        return RewardOutput(
            float(_AGGREGATES[self.aggregate](given)),
            token_rewards=tokens,  # type: ignore[arg-type]  # an array is a sequence of numbers here
            metadata={"step_rewards": list(values), "step_ends": steps.ends},
        )


def steps_of(text: str, separator: str) -> Iterator[tuple[int, int]]:
    r"""The (start, end) characters of each step, without the whitespace around it.

    Examples:
        >>> list(steps_of("Add.\n\n\n\nHalve. \n\n", "\n\n"))
        [(0, 4), (8, 14)]
    """
    start = 0
    for part in text.split(separator):
        if part.strip():
            first = start + len(part) - len(part.lstrip())
            yield first, first + len(part.strip())
        start += len(part) + len(separator)


class _Steps:
    """Where the steps of one sample are, in characters and in tokens."""

    def __init__(self, sample: Sample, separator: str) -> None:
        self.sample = sample
        self.text = sample.response_text
        self.offsets = checked_offsets(sample)
        self.count = len(self.offsets)
        self.spans = list(steps_of(self.text, separator))
        self.tokens = [self._tokens(place) for place in range(len(self.spans))]
        self.ends = [int(tokens[-1]) for tokens in self.tokens]

    def samples(self) -> Iterator[Sample]:
        """Each step as a sample of its own."""
        ids: Any = self.sample.token_ids
        given = {field: getattr(self.sample, field) for field in FIELDS}
        for (start, end), tokens in zip(self.spans, self.tokens, strict=True):
            own = {
                "response": self.text[start:end],
                "token_ids": [ids[token] for token in tokens.tolist()],
                "token_offsets": (self.offsets[tokens].clip(start, end) - start).tolist(),
            }
            yield Sample(**{**given, **own})

    def _tokens(self, place: int) -> NDArray[np.int64]:
        start, end = self.spans[place]
        sharing = np.maximum(self.offsets[:, 0], start) < np.minimum(self.offsets[:, 1], end)
        tokens: NDArray[np.int64] = np.flatnonzero(sharing)
        if not len(tokens):
            raise InputError(
                f"step {place + 1} of {len(self.spans)}, characters {start} to {end}, has no token to hold its value; "
                "give the text that the tokens say, and no more",
                field="token_offsets",
            )
        return tokens
