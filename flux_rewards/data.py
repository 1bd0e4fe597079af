"""The three shapes of data: what a policy produced, one row of a result, and a result by column."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from flux_rewards.errors import ContractError, InputError, brief, close_match
from flux_rewards.fingerprint import same

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux_rewards.stats import RewardStats

__all__ = ["FIELDS", "MEDIA_FIELDS", "Messages", "RewardBatch", "RewardOutput", "Sample", "Trajectory"]

Messages = Sequence[Mapping[str, Any]]
"""A conversation: mappings with a ``role`` and a ``content`` (text, or a list of parts)."""


@dataclass(frozen=True, eq=False, repr=False)
class Sample:
    """One thing that a policy produced, and what is known about it. Frozen; every field may be None.

    Attributes:
        prompt: Text, or chat messages (mappings with ``role`` and ``content``).
        response: Text, or chat messages of which the last assistant message with text is judged.
        image: PIL image in any mode, path, or array/tensor (H, W, C) or (C, H, W), uint8 or float in [0, 1].
        video: List of frames (each an image), or array/tensor (T, C, H, W) or (T, H, W, C).
        condition_images: The images that the policy was given: a list, or a tensor (N, C, H, W).
        condition_videos: The videos that the policy was given: a list, or a tensor (N, T, C, H, W).
        reference: Ground truth, such as the published answer.
        token_ids: Ids of the response's tokens.
        token_offsets: For each token, its (start, end) characters in the response.
        group_id: Samples with the same id are compared by group-scoped rewards.
        metadata: Anything else.

    Examples:
        >>> Sample("What is 2 + 2?", "A: 4", reference="4")
        Sample(prompt='What is 2 + 2?', response='A: 4', reference='4')
    """

    prompt: str | Messages | None = None
    response: str | Messages | None = None
    image: Any = None
    video: Any = None
    condition_images: Any = None
    condition_videos: Any = None
    reference: Any = None
    token_ids: Sequence[int] | None = None
    token_offsets: Sequence[tuple[int, int]] | None = None
    group_id: Hashable = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given: Any = self.metadata  # None from a column with gaps
        if given is None:
            object.__setattr__(self, "metadata", {})

    __hash__ = None  # type: ignore[assignment]  # metadata and pixels are not hashable

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sample):
            return NotImplemented
        return all(same(getattr(self, name), getattr(other, name)) for name in FIELDS)

    def __repr__(self) -> str:
        shown = [f"{name}={brief(getattr(self, name))}" for name in FIELDS if _is_set(getattr(self, name))]
        return f"Sample({', '.join(shown)})"

    @property
    def response_text(self) -> str:
        """The text that is judged: the response, or the last assistant message in it that has text.

        Empty where the assistant said nothing, as in a response of tool calls only.

        Raises:
            InputError: There is no response, or it is neither text nor messages with an assistant among them.

        Examples:
            >>> call = {"role": "assistant", "tool_calls": [{"function": {"name": "add"}}]}
            >>> Sample(response=[call, {"role": "tool", "content": "4"},
            ...                  {"role": "assistant", "content": [{"type": "text", "text": "So 4."}]}]).response_text
            'So 4.'
        """
        if isinstance(self.response, str):
            return self.response
        return _last_text(self.response, "assistant", "response")

    @property
    def prompt_text(self) -> str:
        """What was asked for: the prompt, or the last user message in it that has text.

        Raises:
            InputError: There is no prompt, or it is neither text nor messages with a user among them.

        Examples:
            >>> Sample([{"role": "system", "content": "Paint."}, {"role": "user", "content": "A cat."}]).prompt_text
            'A cat.'
        """
        return self.prompt if isinstance(self.prompt, str) else _last_text(self.prompt, "user", "prompt")

    @staticmethod
    def from_columns(**columns: Any) -> list[Sample]:
        """Build samples from columns of equal length: lists, or arrays and tensors along their first axis.

        Raises:
            InputError: A column is not a field of `Sample`, is a single text or mapping, or differs in length.

        Examples:
            >>> Sample.from_columns(prompt=["a", "b"], response=["1", "2"])
            [Sample(prompt='a', response='1'), Sample(prompt='b', response='2')]
        """
        given = {name: column for name, column in columns.items() if column is not None}
        if columns and not given:
            raise InputError(f"every column is None: {', '.join(columns)}; pass lists with one entry a sample")
        lengths: dict[str, int] = {}
        for name, column in list(given.items()):
            if name not in FIELDS:
                if {"prompts", "completions"} <= given.keys():
                    raise InputError(
                        "a trainer calls this reward as its own function; give the trainer an adapter instead, such as "
                        "flux_rewards.integrations.trl.reward_func(reward)"
                    )
                raise InputError(
                    f"is not a field of Sample{close_match(name, FIELDS)}; the fields are {', '.join(FIELDS)}. "
                    f"Put anything else into metadata=[{{{name!r}: ...}}, ...].",
                    field=name,
                )
            if isinstance(column, (str, bytes, Mapping, set, frozenset)) or not hasattr(column, "__len__"):
                raise InputError(
                    f"expected a column (a list with one entry a sample), found {brief(column)}; "
                    f"for one sample write {name}=[...]",
                    field=name,
                )
            given[name] = list(column)  # by position: a pandas column would be indexed by its labels
            lengths[name] = len(given[name])
        if len(set(lengths.values())) > 1:
            raise InputError(f"columns differ in length: {lengths}; each needs one entry a sample")
        count = next(iter(lengths.values()), 0)
        return [Sample(**{name: column[i] for name, column in given.items()}) for i in range(count)]


Trajectory = Sample
FIELDS: tuple[str, ...] = tuple(entry.name for entry in fields(Sample))
MEDIA_FIELDS: tuple[str, ...] = ("image", "video", "condition_images", "condition_videos")


@dataclass
class RewardOutput:
    """One row of a result, and what an author may return for one sample.

    Args:
        reward: The score; None where the reward does not apply to the sample, and NaN from then on. A NaN that an
            author gives is a failure: a model that overflowed looks like that.
        token_rewards: One value a token of the response, the dense view of the same signal; never added to `reward`.
        metadata: Anything worth keeping beside the score.
        error: Why the score could not be computed; then `reward` is NaN.
        parts: What the score is made of, by name, such as the aspects of a rubric; None for one that does not apply.
            They become `RewardBatch.parts`.

    Raises:
        ContractError: `reward`, or a part, is not a number.

    Examples:
        >>> RewardOutput(1, metadata={"raw": 3}).reward
        1.0
    """

    reward: float = None  # type: ignore[assignment]  # a float once it is made
    token_rewards: Sequence[float] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    applies: bool = field(init=False, repr=False, compare=False, default=True)

    def __post_init__(self) -> None:
        given: Any = self.reward
        self.applies = given is not None
        noted: Any = self.metadata
        self.metadata = {} if noted is None else noted
        self.reward = float("nan") if given is None or self.error is not None else _number(given, "a reward")
        self.parts = {
            name: None if value is None else _number(value, f"the part {name!r}") for name, value in self.parts.items()
        }


@dataclass(frozen=True, eq=False, repr=False)
class RewardBatch:
    """N rows by column. Iterates as `RewardOutput` rows; NaN in `rewards` is never a score.

    Args:
        rewards: float64, shape (N,). NaN where the reward does not apply, or failed.
        token_rewards: For each sample an array of one value a token, or None; None where no sample has any.
        metadata: One mapping a sample.
        errors: Reason by position, for the samples that failed.
        parts: What each component said, by its name.
        stats: What the call took, by the name of the leaf that was called; in the batch that a call returns, and not
            in its parts and slices.

    Examples:
        >>> batch = RewardBatch([0.5, float("nan")], errors={1: "TimeoutError"})
        >>> batch.failed.tolist(), batch[1].error
        ([False, True], 'TimeoutError')
    """

    rewards: NDArray[np.float64]
    token_rewards: list[NDArray[np.float64] | None] | None = None
    metadata: list[Mapping[str, Any]] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    parts: dict[str, RewardBatch] = field(default_factory=dict)
    stats: dict[str, RewardStats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rewards = np.asarray(self.rewards, dtype=np.float64)
        if rewards.ndim != 1:
            raise ContractError(f"rewards have the shape (N,), found {rewards.shape}")
        object.__setattr__(self, "rewards", rewards)
        if not self.metadata:
            object.__setattr__(self, "metadata", [{} for _ in range(len(rewards))])
        for what, length in (
            ("metadata", len(self.metadata)),
            ("token_rewards", len(rewards) if self.token_rewards is None else len(self.token_rewards)),
        ):
            if length != len(rewards):
                raise ContractError(f"{what} has {length} entries for {len(rewards)} rewards")
        if any(position not in range(len(rewards)) for position in self.errors):
            raise ContractError(f"errors has the positions {sorted(self.errors)} for {len(rewards)} rewards")

    def __len__(self) -> int:
        return len(self.rewards)

    def __iter__(self) -> Iterator[RewardOutput]:
        return (self[position] for position in range(len(self)))

    @overload
    def __getitem__(self, position: int) -> RewardOutput: ...
    @overload
    def __getitem__(self, position: slice) -> RewardBatch: ...
    def __getitem__(self, position: int | slice) -> RewardOutput | RewardBatch:
        if isinstance(position, slice):
            return self.select(range(len(self))[position])
        position = range(len(self))[position]  # negative positions, and IndexError beyond the end
        return RewardOutput(
            reward=None if np.isnan(self.rewards[position]) else float(self.rewards[position]),  # type: ignore[arg-type]
            token_rewards=None if self.token_rewards is None else self.token_rewards[position],  # type: ignore[arg-type]
            metadata=self.metadata[position],
            error=self.errors.get(position),
            parts={
                name: None if np.isnan(part.rewards[position]) else float(part.rewards[position])
                for name, part in self.parts.items()
            },
        )

    def __repr__(self) -> str:
        parts = f", parts={list(self.parts)}" if self.parts else ""
        errors = f", errors={self.errors}" if self.errors else ""
        return f"RewardBatch({np.array2string(self.rewards, precision=4, threshold=8)}{errors}{parts})"

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Shape (N,): the samples whose score could not be computed."""
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[list(self.errors)] = True
        return mask

    @property
    def not_applicable(self) -> NDArray[np.bool_]:
        """Shape (N,): the samples to which the reward does not apply."""
        return np.isnan(self.rewards) & ~self.failed

    def with_stats(self, stats: dict[str, RewardStats]) -> RewardBatch:
        """The same rows with other stats.

        Examples:
            >>> from flux_rewards import RewardStats
            >>> RewardBatch([0.5]).with_stats({"length": RewardStats(calls=1)}).stats["length"].calls
            1
        """
        return replace(self, stats=stats)

    def select(self, positions: Sequence[int]) -> RewardBatch:
        """The rows at some positions, in that order; parts too.

        Examples:
            >>> batch = RewardBatch([0.5, float("nan"), 2.0], errors={1: "late"})
            >>> batch.select(np.flatnonzero(~batch.failed)).rewards
            array([0.5, 2. ])
        """
        order = [range(len(self))[position] for position in positions]
        return RewardBatch(
            self.rewards[order],
            None if self.token_rewards is None else [self.token_rewards[position] for position in order],
            [self.metadata[position] for position in order],
            {row: self.errors[position] for row, position in enumerate(order) if position in self.errors},
            {name: part.select(order) for name, part in self.parts.items()},
        )

    @staticmethod
    def scatter(count: int, pieces: Sequence[tuple[Sequence[int], RewardBatch]]) -> RewardBatch:
        """Put pieces back in order: ``pieces[k] = (positions, batch)``; positions that no piece covers are NaN.

        Examples:
            >>> RewardBatch.scatter(3, [([2, 0], RewardBatch([1.0, 2.0]))]).rewards
            array([ 2., nan,  1.])
        """
        rewards = np.full(count, np.nan)
        tokens: list[NDArray[np.float64] | None] | None = None
        metadata: list[Mapping[str, Any]] = [{} for _ in range(count)]
        errors: dict[int, str] = {}
        parts: dict[str, list[tuple[Sequence[int], RewardBatch]]] = {}
        for positions, piece in pieces:
            rewards[list(positions)] = piece.rewards
            if piece.token_rewards is not None and tokens is None:
                tokens = [None] * count
            for row, position in enumerate(positions):
                metadata[position] = piece.metadata[row]
                if tokens is not None and piece.token_rewards is not None:
                    tokens[position] = piece.token_rewards[row]
            errors.update((positions[row], reason) for row, reason in piece.errors.items())
            for name, part in piece.parts.items():
                parts.setdefault(name, []).append((positions, part))
        for positions, piece in pieces:  # what failed has failed in all its parts
            for name in parts.keys() - piece.parts.keys():
                unknown = RewardBatch(np.full(len(piece), np.nan), errors=dict(piece.errors))
                parts[name].append((positions, unknown))
        return RewardBatch(
            rewards,
            tokens,
            metadata,
            dict(sorted(errors.items())),
            {name: RewardBatch.scatter(count, of_part) for name, of_part in parts.items()},
        )


def _number(given: Any, what: str) -> float:
    if hasattr(given, "detach"):  # a tensor that requires a gradient warns when it is read
        given = given.detach()
    if isinstance(given, (str, bytes)) or not hasattr(given, "__float__"):
        raise ContractError(f"{what} is a number or None, found {brief(given)}")
    return float(given)


def _is_set(value: Any) -> bool:
    return value is not None and not (isinstance(value, Mapping) and not value)


def _last_text(messages: Any, role: str, field: str) -> str:
    if not isinstance(messages, (list, tuple)) or not all(isinstance(entry, Mapping) for entry in messages):
        raise InputError(f"expected text or a list of chat messages, found {brief(messages)}", field=field)
    spoken = [entry.get("content") for entry in messages if entry.get("role") == role]
    if not spoken:
        holds = {"response": "what the policy said", "prompt": "what it was asked"}[field]
        message = f"no message with the role {role!r} among the {field}'s messages; a {field} holds {holds}"
        raise InputError(message, field=field)
    texts = (
        "".join(part.get("text") or "" for part in content if part.get("type", "text") == "text")
        if isinstance(content, (list, tuple))
        else str(content or "")
        for content in reversed(spoken)
    )
    return next(filter(None, texts), "")
