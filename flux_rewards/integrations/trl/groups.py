"""Whole groups in a trainer that lays the completions of a prompt side by side and gives them no ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError
from flux_rewards.fingerprint import fingerprint
from flux_rewards.validation import whole_number

if TYPE_CHECKING:
    from flux_rewards.data import Sample

__all__ = ["GroupLayout"]

TRAINING = ("num_generations", "per_device_train_batch_size * steps_per_generation")
EVALUATION = ("num_generations_eval", "per_device_eval_batch_size")


class GroupLayout:
    """Gives the samples of a batch the ids of their groups: so many neighbours each, by position.

    Two groups of one prompt stay apart. A batch that does not consist of whole groups is refused.

    Args:
        num_generations: Completions a prompt; None to learn it from the trainer.
        num_generations_eval: The same in evaluation; as in training by default.

    Raises:
        ConfigError: One of them is no whole number >= 1.

    Examples:
        >>> from flux_rewards import Sample
        >>> samples = [Sample("a"), Sample("a"), Sample("a"), Sample("a")]
        >>> [sample.group_id for sample in GroupLayout(2).with_ids(samples, {})]
        ['trl-0', 'trl-0', 'trl-1', 'trl-1']
    """

    def __init__(self, num_generations: int | None = None, num_generations_eval: int | None = None) -> None:
        for what, value in (("num_generations", num_generations), ("num_generations_eval", num_generations_eval)):
            if value is not None:
                whole_number(value, f"TRL: {what}", "", low=1)
        self.num_generations = num_generations
        self.num_generations_eval = num_generations_eval

    def with_ids(
        self, samples: Sequence[Sample], told: Mapping[str, Any], *, rank: int = 0, ranks: int = 1
    ) -> list[Sample]:
        """The samples with a `group_id`, where the user gave none.

        Args:
            samples: Those of this process.
            told: What the trainer told beside the columns (``log_metric``, ``environments``).
            rank: Of this process, where groups may straddle processes.
            ranks: How many processes there are then, each with as many samples.

        Raises:
            ConfigError: A group would straddle processes, or the completions of a prompt are no neighbours; the message
                names the setting to change.
        """
        size, setting, batch = self._size(told)
        count = len(samples)
        if count * ranks % size:
            raise ConfigError(
                f"TRL: {count * ranks} completions on {'all processes' if ranks > 1 else 'this process'} are no whole "
                f"groups of {setting}={size}, so a group straddles processes, and its samples would be compared in "
                f"parts. Make {batch} a multiple of {setting}"
                + ("" if ranks > 1 else ", or pass distributed=True to gather such groups")
            )
        own = [sample.group_id for sample in samples]
        if None not in own:
            self._check_whole(own, setting, size, ranks)
            return list(samples)
        if any(group is not None for group in own):
            raise ConfigError(
                "TRL: some samples have a group_id, and others none; give all of them one, or none", field="group_id"
            )
        first = rank * count
        ids = [(first + row) // size for row in range(count)]
        marks = [""] * count
        if told.get("environments") is None:  # those may write into the prompt, for each completion its own
            self._check_neighbours(samples, ids, setting, size)
            if ranks > 1:  # so that a group of two prompts, half of it elsewhere, is seen to be none
                marks = [f"-{fingerprint(_text_of(sample.prompt)).hex()}" for sample in samples]
        return [
            replace(sample, group_id=f"trl-{group}{mark}")  # no id of the user's own
            for sample, group, mark in zip(samples, ids, marks, strict=True)
        ]

    def size(self, told: Mapping[str, Any]) -> int:
        """Completions a prompt, as given or as the trainer has it."""
        return self._size(told)[0]

    @staticmethod
    def _check_whole(ids: Sequence[Any], setting: str, size: int, ranks: int) -> None:
        odd = {group: count for group, count in Counter(ids).items() if count % size}
        if odd and ranks == 1:
            group, count = next(iter(odd.items()))
            raise ConfigError(
                f"TRL: the group {group!r} has {count} samples here, no multiple of {setting}={size}: it straddles "
                "processes; pass distributed=True to gather such groups"
            )

    def _size(self, told: Mapping[str, Any]) -> tuple[int, str, str]:
        # The callback is the trainer's own method, and TRL tells by no other way whether it trains or evaluates.
        trainer = getattr(told.get("log_metric"), "__self__", None)
        trains = getattr(getattr(trainer, "model", None), "training", True) is not False
        setting, batch = TRAINING if trains else EVALUATION
        own = getattr(trainer, setting, None)
        own = own if isinstance(own, int) and own >= 1 else None
        given = self.num_generations if trains else self.num_generations_eval
        if given is None and own is None:
            given = self.num_generations
        if given is None and own is None:
            raise ConfigError(
                "TRL: the reward compares the samples of a group, and the trainer does not say how many there are; "
                "pass num_generations=..., as in GRPOConfig"
            )
        if given is not None and own is not None and given != own:
            raise ConfigError(f"TRL: {setting}={given} was given here, but the trainer has {own}; make them equal")
        return given or own or 1, setting, batch

    @staticmethod
    def _check_neighbours(samples: Sequence[Sample], ids: Sequence[int], setting: str, size: int) -> None:
        shown: dict[int, tuple[int, Any]] = {}
        for row, (sample, group) in enumerate(zip(samples, ids, strict=True)):
            text = _text_of(sample.prompt)
            first, expected = shown.setdefault(group, (row, text))
            if text != expected:
                raise ConfigError(
                    f"TRL: samples {first} and {row} should be of one group of {setting}={size}, and have different "
                    "prompts: the completions of a prompt must be neighbours. Is the setting that of the trainer, and "
                    "the sampler TRL's own?"
                )


def _text_of(prompt: Any) -> Any:
    """What is cheap to compare: the pixels of a prompt's images are left out."""
    if not isinstance(prompt, (list, tuple)):
        return prompt
    return [
        (message.get("role"), _words(message.get("content"))) if isinstance(message, Mapping) else message
        for message in prompt
    ]


def _words(content: Any) -> Any:
    if not isinstance(content, (list, tuple)):
        return content
    return [part.get("text") if isinstance(part, Mapping) else part for part in content]
