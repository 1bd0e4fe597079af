"""One preference: two answers to a prompt, and which of them is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from flux_rewards.data import FIELDS, MEDIA_FIELDS, Sample
from flux_rewards.errors import InputError, brief, close_match
from flux_rewards.fingerprint import fingerprint, same
from flux_rewards.training.preferences_messages import check_conversation, is_conversation, texts_of

if TYPE_CHECKING:
    from flux_rewards.data import Messages

__all__ = ["PreferencePair", "content_of", "prompt_key"]

_SHARED = tuple(name for name in FIELDS if name not in ("prompt", "response", "metadata"))


@dataclass(frozen=True, eq=False, repr=False)
class PreferencePair:
    """Two answers to one prompt, of which the first is preferred. Frozen.

    Attributes:
        prompt: Text, or chat messages; None where it is not known. Where the answers are samples with a prompt, theirs.
        chosen: The better answer: text, chat messages, or a `Sample` for images, videos and all else that a text
            cannot hold.
        rejected: The other one, of the same kind.
        margin: By how much the scores should differ at least, >= 0, in the units of the reward that is trained; None
            for no demand.
        metadata: Anything else; it goes into the metadata of both samples.
        shared: Fields of `Sample` that both answers have, such as ``{"reference": "4"}`` or ``condition_images``.

    Raises:
        InputError: A field that is empty or of the wrong kind, with its name.

    Identical answers are possible: that is for `PreferenceData.check` to find.

    Examples:
        >>> pair = PreferencePair("2 + 2?", "4", "5", shared={"reference": "4"})
        >>> pair.chosen_sample
        Sample(prompt='2 + 2?', response='4', reference='4')
    """

    prompt: str | Messages | None
    chosen: str | Messages | Sample
    rejected: str | Messages | Sample
    margin: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("metadata", "shared"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise InputError(f"expected a mapping, found {brief(value)}", field=name)
        for name in self.shared:
            if name not in _SHARED:
                raise InputError(
                    f"{name!r} is no field that two answers share{close_match(str(name), _SHARED)}; "
                    f"they are {', '.join(_SHARED)}. Anything else goes into metadata",
                    field="shared",
                )
        if self.prompt is not None:
            _check_text_or_messages(self.prompt, "prompt")
        kinds = [_check_answer(getattr(self, name), name) for name in ("chosen", "rejected")]
        if kinds[0] != kinds[1]:
            raise InputError(
                f"chosen is {kinds[0]} and rejected is {kinds[1]}; write both in one way", field="rejected"
            )
        if isinstance(self.chosen, Sample) and isinstance(self.rejected, Sample):
            object.__setattr__(self, "prompt", _common_prompt(self.prompt, self.chosen, self.rejected))
        _check_margin(self.margin)

    __hash__ = None  # type: ignore[assignment]  # metadata and pixels are not hashable

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PreferencePair):
            return NotImplemented
        return all(same(getattr(self, entry.name), getattr(other, entry.name)) for entry in fields(self))

    def __repr__(self) -> str:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        shown = [f"{name}={brief(value)}" for name, value in values.items() if value is not None and value != {}]
        return f"PreferencePair({', '.join(shown)})"

    @property
    def chosen_sample(self) -> Sample:
        """The better answer as a sample that any reward can score."""
        return self._sample(self.chosen)

    @property
    def rejected_sample(self) -> Sample:
        """The other answer as a sample that any reward can score."""
        return self._sample(self.rejected)

    @property
    def is_text(self) -> bool:
        """Whether both answers are text or messages, with no media."""
        samples = (self.chosen_sample, self.rejected_sample)
        return all(
            sample.response is not None and all(getattr(sample, name) is None for name in MEDIA_FIELDS)
            for sample in samples
        )

    @property
    def says_what_was_asked(self) -> bool:
        """Whether it has a prompt, or images or videos that stand for one."""
        sample = self.chosen_sample
        return any(value is not None for value in (self.prompt, sample.condition_images, sample.condition_videos))

    def _sample(self, answer: str | Messages | Sample) -> Sample:
        if not isinstance(answer, Sample):
            return Sample(self.prompt, answer, metadata=self.metadata, **self.shared)
        given = {name: value for name, value in self.shared.items() if getattr(answer, name) is None}
        metadata = {**self.metadata, **answer.metadata}
        return replace(answer, prompt=self.prompt, metadata=metadata, **given)


def prompt_key(pair: PreferencePair) -> bytes:
    """A digest of what was asked for, to keep pairs of one prompt together.

    Case, the width of blanks, system messages, and whether a lone question is text or a message make no difference:
    pairs that differ in these alone would leak from one part of a split into the other. Condition images and videos
    make one. Pairs without a prompt have one key where their two answers are the same, in either order.

    Examples:
        >>> asked = [{"role": "user", "content": "2 +  2?"}]
        >>> prompt_key(PreferencePair("2 + 2?", "4", "5")) == prompt_key(PreferencePair(asked, "four", "five"))
        True
    """
    sample = pair.chosen_sample
    media = [sample.condition_images, sample.condition_videos]
    if pair.prompt is None:
        answers = sorted(fingerprint(content_of(answer)) for answer in (pair.chosen, pair.rejected))
        return fingerprint(["answers", *answers, *media])
    if isinstance(pair.prompt, str):
        return fingerprint([_folded(pair.prompt), *media])
    spoken = [(role, _folded(text)) for role, text in texts_of(pair.prompt) if role not in ("system", "developer")]
    parts = [
        part
        for message in pair.prompt
        if is_conversation(message.get("content"))
        for part in message["content"]
        if part.get("type", "text") != "text"
    ]
    if len(spoken) == 1 and not parts:
        return fingerprint([spoken[0][1], *media])
    return fingerprint([spoken, parts, *media])


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def content_of(answer: Any) -> Any:
    """What an answer says or shows, without what is known about it.

    Examples:
        >>> content_of("4"), content_of(Sample(response="4", metadata={"model": "a"}))
        ('4', ['4', None, None, None, None])
    """
    if isinstance(answer, Sample):
        return [answer.response, *(getattr(answer, name) for name in MEDIA_FIELDS)]
    return answer


def _check_text_or_messages(value: Any, name: str) -> str:
    if isinstance(value, str):
        if not value.strip():
            raise InputError("is empty", field=name)
        return "text"
    if is_conversation(value):
        check_conversation(value, name)
        return "messages"
    raise InputError(f"expected text or chat messages, found {brief(value)}", field=name)


def _check_answer(value: Any, name: str) -> str:
    if not isinstance(value, Sample):
        if value is None:
            raise InputError("is missing", field=name)
        kind = _check_text_or_messages(value, name)
        if kind == "messages" and not any(message["role"] == "assistant" for message in value):
            raise InputError("no message is an assistant's, so nothing is answered", field=name)
        return kind
    if value.response is None and value.image is None and value.video is None:
        raise InputError("the sample has no response, image or video", field=name)
    return "a sample"


def _common_prompt(prompt: Any, chosen: Sample, rejected: Sample) -> Any:
    given = [value for value in (prompt, chosen.prompt, rejected.prompt) if value is not None]
    if any(not same(given[0], value) for value in given[1:]):
        raise InputError(
            f"the answers are to different prompts, {brief(given[0])} and "
            f"{brief(next(value for value in given if not same(given[0], value)))}",
            field="prompt",
        )
    if given:
        _check_text_or_messages(given[0], "prompt")
    return given[0] if given else None


def _check_margin(margin: Any) -> None:
    if margin is None:
        return
    if isinstance(margin, bool) or not isinstance(margin, (int, float)):
        raise InputError(f"expected a number, found {brief(margin)}", field="margin")
    if not math.isfinite(margin):
        raise InputError(f"expected a finite number, found {margin}", field="margin")
    if margin < 0:
        raise InputError(f"is {margin}: a negative margin prefers the rejected answer; swap the two", field="margin")
