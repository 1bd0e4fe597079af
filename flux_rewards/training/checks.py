"""What makes preference pairs bad to learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.data import Sample
from flux_rewards.errors import ConfigError, brief
from flux_rewards.fingerprint import fingerprint
from flux_rewards.training.evaluate_tables import cell, share, text_table
from flux_rewards.training.preferences import content_of, prompt_key
from flux_rewards.training.preferences_data import Key, key_of
from flux_rewards.training.preferences_messages import texts_of
from flux_rewards.validation import whole_number

if TYPE_CHECKING:
    from flux_rewards.training.preferences import PreferencePair

__all__ = ["LengthBias", "Measure", "PreferenceCheck", "check_preferences", "length_of", "lengths_of"]

Measure = Callable[[str], Any]
"""From a text to its length, or a tokenizer."""


@dataclass(frozen=True)
class LengthBias:
    """Lengths of chosen answers against rejected ones: a model may learn nothing but this.

    Attributes:
        unit: ``"characters"`` or ``"tokens"``.
        pairs: Pairs of texts, which have a length.
        longer: Pairs whose chosen answer is the longer one.
        shorter: Pairs whose chosen answer is the shorter one.
        mean_chosen: Mean length.
        mean_rejected: Mean length.
        cohens_d: Difference of the means in pooled standard deviations (Cohen 1988): 0.2 is small, 0.5 medium, 0.8
            large. None where there are fewer than two pairs, or no spread.
    """

    unit: str
    pairs: int
    longer: int
    shorter: int
    mean_chosen: float
    mean_rejected: float
    cohens_d: float | None

    @property
    def share_longer(self) -> float | None:
        """Of the pairs that differ in length, the share whose chosen answer is the longer one; 0.5 is no bias."""
        return self.longer / (self.longer + self.shorter) if self.longer + self.shorter else None


@dataclass(frozen=True)
class PreferenceCheck:
    """What `check_preferences` found. Positions count from 0. ``print`` shows it as a table.

    Attributes:
        pairs: How many were looked at.
        prompts: Different prompts among them, of those that are known.
        without_prompt: Positions of pairs whose prompt is not known: a split cannot keep their prompts apart.
        identical: Positions of pairs whose two answers are the same.
        duplicates: Positions of pairs that repeat an earlier one.
        contradictions: (i, j) where pair j prefers what pair i rejects, to the same prompt.
        length: The bias of lengths; None where no answer is a text.
        too_long: Positions of pairs of which prompt and an answer together are longer than `max_length`.
        max_length: The limit that was asked about, in the unit of `length`; None for none.
        classes: Key to count, by the key that was asked for; empty without one.
    """

    pairs: int
    prompts: int
    without_prompt: tuple[int, ...] = ()
    identical: tuple[int, ...] = ()
    duplicates: tuple[int, ...] = ()
    contradictions: tuple[tuple[int, int], ...] = ()
    length: LengthBias | None = None
    too_long: tuple[int, ...] = ()
    max_length: int | None = None
    classes: Mapping[str, int] = field(default_factory=dict)

    @property
    def problems(self) -> dict[str, int]:
        """What was found to be wrong, by name: the number of pairs. Empty where all is well."""
        counts = {
            "identical": len(self.identical),
            "duplicates": len(self.duplicates),
            "contradictions": len(self.contradictions),
            "too_long": len(self.too_long),
            "without_prompt": len(self.without_prompt),
        }
        return {name: count for name, count in counts.items() if count}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; positions as lists."""
        bias = self.length
        return {
            "pairs": self.pairs,
            "prompts": self.prompts,
            "without_prompt": list(self.without_prompt),
            "identical": list(self.identical),
            "duplicates": list(self.duplicates),
            "contradictions": [list(both) for both in self.contradictions],
            "too_long": list(self.too_long),
            "max_length": self.max_length,
            "length": None if bias is None else {**vars(bias), "share_longer": bias.share_longer},
            "classes": dict(self.classes),
        }

    def __str__(self) -> str:
        rows = [
            ["pairs", str(self.pairs)],
            ["prompts", str(self.prompts) if self.prompts or not self.without_prompt else "unknown"],
            ["without a prompt", share(len(self.without_prompt), self.pairs)],
            ["identical answers", share(len(self.identical), self.pairs)],
            ["duplicates", share(len(self.duplicates), self.pairs)],
            ["contradictions", str(len(self.contradictions))],
        ]
        if self.max_length is not None and self.length is not None:
            rows.append([f"longer than {self.max_length} {self.length.unit}", share(len(self.too_long), self.pairs)])
        if self.length is not None:
            bias = self.length
            rows += [
                ["chosen is longer", share(bias.longer, bias.pairs)],
                ["chosen is shorter", share(bias.shorter, bias.pairs)],
                [f"mean {bias.unit}, chosen", cell(bias.mean_chosen, 1)],
                [f"mean {bias.unit}, rejected", cell(bias.mean_rejected, 1)],
                ["Cohen's d of lengths", cell(bias.cohens_d)],
            ]
        rows += [[f"  {name}", share(count, self.pairs)] for name, count in self.classes.items()]
        return text_table(["check", "found"], rows)


def check_preferences(
    pairs: Sequence[PreferencePair],
    *,
    by: Key | None = None,
    max_length: int | None = None,
    tokenizer: Measure | None = None,
) -> PreferenceCheck:
    """Look for duplicates, identical answers, contradictions, a bias of lengths, odd classes and pairs too long.

    Args:
        pairs: The pairs.
        by: Count pairs by this key, such as ``"metadata.subset"``.
        max_length: Find pairs of which prompt and one answer together are longer. In tokens with a `tokenizer`, else
            in characters. A chat template's own tokens are not counted.
        tokenizer: A tokenizer of transformers, or a function from a text to its length.

    Does not say which side of a contradiction is right, and finds no answers that merely resemble each other.

    Raises:
        ConfigError: `max_length` is no positive number, or `tokenizer` gives no length.

    Examples:
        >>> from flux_rewards.training.preferences import PreferencePair
        >>> found = check_preferences([PreferencePair("q", "yes!", "no"), PreferencePair("q", "no", "yes!")])
        >>> found.contradictions, found.length.share_longer, found.problems
        (((0, 1),), 0.5, {'contradictions': 1})
    """
    if max_length is not None:
        whole_number(max_length, "max_length", "", low=1)
    seen: dict[tuple[bytes, bytes, bytes], int] = {}
    identical: list[int] = []
    duplicates: list[int] = []
    contradictions: list[tuple[int, int]] = []
    prompts = list(map(prompt_key, pairs))
    for position, (pair, prompt) in enumerate(zip(pairs, prompts, strict=True)):
        chosen, rejected = (fingerprint(content_of(answer)) for answer in (pair.chosen, pair.rejected))
        if chosen == rejected:
            identical.append(position)
        elif (prompt, rejected, chosen) in seen:
            contradictions.append((seen[prompt, rejected, chosen], position))
        if (prompt, chosen, rejected) in seen:
            duplicates.append(position)
        seen.setdefault((prompt, chosen, rejected), position)
    lengths = lengths_of(pairs, tokenizer)
    return PreferenceCheck(
        pairs=len(pairs),
        prompts=len({prompt for pair, prompt in zip(pairs, prompts, strict=True) if pair.says_what_was_asked}),
        without_prompt=tuple(position for position, pair in enumerate(pairs) if not pair.says_what_was_asked),
        identical=tuple(identical),
        duplicates=tuple(duplicates),
        contradictions=tuple(contradictions),
        length=_bias(lengths, "characters" if tokenizer is None else "tokens"),
        too_long=() if max_length is None else _too_long(pairs, lengths, max_length, tokenizer),
        max_length=max_length,
        classes={} if by is None else _classes(pairs, by),
    )


def length_of(text: str, tokenizer: Measure | None = None) -> int:
    """The length of a text: in characters, or as a tokenizer or a function says.

    Raises:
        ConfigError: It says no length.

    Examples:
        >>> length_of("two words"), length_of("two words", lambda text: len(text.split()))
        (9, 2)
    """
    if tokenizer is None:
        return len(text)
    found = tokenizer(text)
    if hasattr(found, "__getitem__") and "input_ids" in found:
        return len(found["input_ids"])
    if isinstance(found, bool) or not isinstance(found, (int, np.integer)):
        raise ConfigError(f"tokenizer must be a tokenizer or a function to a length, found {brief(found)}")
    return int(found)


def _text(answer: Any) -> str | None:
    if isinstance(answer, Sample):
        answer = answer.response
    if answer is None or isinstance(answer, str):
        return answer
    return "\n".join(text for _, text in texts_of(answer))


def lengths_of(pairs: Sequence[PreferencePair], tokenizer: Measure | None = None) -> dict[int, tuple[int, int]]:
    """Lengths of (chosen, rejected) by the pair's position, for pairs of texts or messages.

    Examples:
        >>> from flux_rewards.training.preferences import PreferencePair
        >>> lengths_of([PreferencePair("q", "four", "to")])
        {0: (4, 2)}
    """
    found: dict[int, tuple[int, int]] = {}
    for position, pair in enumerate(pairs):
        chosen, rejected = _text(pair.chosen), _text(pair.rejected)
        if chosen is not None and rejected is not None:
            found[position] = (length_of(chosen, tokenizer), length_of(rejected, tokenizer))
    return found


def _bias(lengths: Mapping[int, tuple[int, int]], unit: str) -> LengthBias | None:
    if not lengths:
        return None
    chosen, rejected = np.array(list(lengths.values()), dtype=np.float64).T
    effect = None
    if len(chosen) > 1:
        pooled = float(np.sqrt((chosen.var(ddof=1) + rejected.var(ddof=1)) / 2))
        effect = float((chosen.mean() - rejected.mean()) / pooled) if pooled > 0 else None
    return LengthBias(
        unit,
        len(chosen),
        int((chosen > rejected).sum()),
        int((chosen < rejected).sum()),
        float(chosen.mean()),
        float(rejected.mean()),
        effect,
    )


def _too_long(
    pairs: Sequence[PreferencePair],
    lengths: Mapping[int, tuple[int, int]],
    max_length: int,
    tokenizer: Measure | None,
) -> tuple[int, ...]:
    found: list[int] = []
    for position, (chosen, rejected) in lengths.items():
        prompt = _text(pairs[position].prompt)
        if (length_of(prompt, tokenizer) if prompt else 0) + max(chosen, rejected) > max_length:
            found.append(position)
    return tuple(found)


def _classes(pairs: Sequence[PreferencePair], by: Key) -> dict[str, int]:
    counts = Counter(str(key_of(pair, by, position)) for position, pair in enumerate(pairs))
    return dict(counts.most_common())
