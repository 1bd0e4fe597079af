"""Several aspects, each rated by a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.chat.content import plain
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError, InputError, brief, close_match
from flux_rewards.rewards.judges.material import NOTICE, message
from flux_rewards.rewards.judges.rating import json_form
from flux_rewards.rewards.judges.sample_judge import SampleJudge
from flux_rewards.rewards.judges.verdicts.objects import entry_of, find_object, folded, score_of
from flux_rewards.rewards.judges.verdicts.scale import Scale
from flux_rewards.rewards.judges.verdicts.spoken import spoken
from flux_rewards.validation import number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.chat.client import Messages
    from flux_rewards.chat.reply import Reply
    from flux_rewards.rewards.judges.judge import JudgeOptions

__all__ = ["Aspect", "RubricJudge", "aspects_of", "mean_of", "read_aspects"]


@dataclass(frozen=True)
class Aspect:
    """One line of a rubric.

    Attributes:
        name: What it is called, in the judge's answer, in `RewardBatch.parts` and in metadata.
        description: What is rated, and what makes it good.
        scale: Its scale.
        weight: Its share in the mean.
        optional: Whether the judge may say that it does not apply.
    """

    name: str
    description: str
    scale: Scale
    weight: float = 1.0
    optional: bool = False


def aspects_of(given: Any, score_range: Any, scaling: Any, reward: str) -> list[Aspect]:
    """Aspects from names and descriptions, or from mappings with ``name``, ``description`` and what differs.

    Raises:
        ConfigError: It is neither, a name comes twice, or no weight is positive.

    Examples:
        >>> given = {"clear": "Is it clear?", "true": {"description": "?", "weight": 2}}
        >>> [(aspect.name, aspect.weight) for aspect in aspects_of(given, (1, 5), "unit", "")]
        [('clear', 1.0), ('true', 2.0)]
    """
    if isinstance(given, Mapping):
        given = [
            {"name": name, **(what if isinstance(what, Mapping) else {"description": what})}
            for name, what in given.items()
        ]
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence) or not given:
        raise ConfigError(
            f"aspects must be a mapping of names to descriptions, or a list of mappings, found {brief(given)}",
            reward=reward,
        )
    found = [_aspect(entry, score_range, scaling, reward) for entry in given]
    names = [folded(aspect.name) for aspect in found]
    twice = [aspect.name for aspect in found if names.count(folded(aspect.name)) > 1]
    if twice:
        raise ConfigError(f"aspects has {twice[0]!r} twice", reward=reward)
    if sum(aspect.weight for aspect in found) <= 0:
        raise ConfigError("aspects need a positive weight", reward=reward)
    return found


def _aspect(entry: Any, score_range: Any, scaling: Any, reward: str) -> Aspect:
    known = ("name", "description", "score_range", "weight", "optional")
    if not isinstance(entry, Mapping):
        raise ConfigError(f"an aspect is a mapping with {', '.join(known)}, found {brief(entry)}", reward=reward)
    for key in entry:
        if key not in known:
            raise ConfigError(
                f"an aspect has {', '.join(known)}, not {key!r}{close_match(str(key), known)}", reward=reward
            )
    for key in ("name", "description"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise ConfigError(f"the {key} of an aspect must be a text, found {brief(entry.get(key))}", reward=reward)
    if not isinstance(entry.get("optional", False), bool):
        raise ConfigError(f"optional must be True or False, found {brief(entry['optional'])}", reward=reward)
    return Aspect(
        entry["name"].strip(),
        entry["description"].strip(),
        Scale.of(entry.get("score_range", score_range), scaling, reward, f"the score_range of {entry['name']!r}"),
        number(entry.get("weight", 1.0), f"the weight of {entry['name']!r}", reward, low=0.0),
        entry.get("optional", False),
    )


def mean_of(aspects: Sequence[Aspect], scores: Mapping[str, float | None]) -> RewardOutput:
    """The weighted mean over the aspects that apply, each on its scale; the aspects as parts.

    Examples:
        >>> mean_of(aspects_of({"a": "?", "b": "?"}, (1, 5), "unit", ""), {"a": 5, "b": None}).reward
        1.0
    """
    parts = {
        aspect.name: None if (score := scores[aspect.name]) is None else aspect.scale.scaled(score)
        for aspect in aspects
    }
    weighed = [(aspect.weight, part) for aspect in aspects if (part := parts[aspect.name]) is not None]
    total = sum(weight for weight, _ in weighed)
    value = sum(weight * part for weight, part in weighed) / total if total > 0 else None
    return RewardOutput(value, parts=parts)  # type: ignore[arg-type]


class RubricJudge(SampleJudge):
    """The weighted mean of several aspects, each rated by a judge in one reply; each aspect is a part of the result.

    Args:
        vlm_model: The model's name at the endpoint.
        aspects: A mapping of names to descriptions; or a list of mappings with ``name``, ``description`` and, where
            they differ, ``score_range``, ``weight`` (1 by default) and ``optional`` (whether "N/A" is allowed). None
            where each sample brings its own.
        fields: What is shown; see `Judge`.
        score_range: (worst, best), of aspects that have none of their own.
        scaling: What becomes of each score before the mean; see `RatingJudge`.
        aspects_key: Where a sample's `metadata` has its own aspects, in place of `aspects`; which then need not be.
        **options: Of every judge; see `Judge`.

    The answer is JSON, to which the endpoint is held by ``response_format``. An aspect that is missing from it is a
    `JudgeError`; one that does not apply is left out of the mean, and NaN in its part. Where none applies, the reward
    does not. Metadata, beside that of every judge: ``scores``, the numbers as given.

    Raises:
        ConfigError: There are no aspects, or one cannot be used.

    Examples:
        >>> writing = {"description": "Is the writing in it right?", "optional": True, "weight": 0.5}
        >>> aspects = {"faithful": "Does it show all that was asked for?", "text": writing}
        >>> RubricJudge("judge", aspects, fields=["prompt", "image"]).required_fields
        ('prompt', 'image')
    """

    optional_fields: Sequence[str] | None = ()
    example_config: ClassVar[Mapping[str, Any]] = {**SampleJudge.example_config, "aspects": {"clear": "Is it clear?"}}

    def __init__(
        self,
        vlm_model: str,
        aspects: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        fields: Sequence[str] = ("prompt", "response"),
        *,
        score_range: tuple[float, float] = (1, 5),
        scaling: str = "unit",
        aspects_key: str | None = None,
        **options: Unpack[JudgeOptions],
    ) -> None:
        label = options.get("name") or type(self).__name__
        self._default = Scale.of(score_range, scaling, label)
        if aspects is None and aspects_key is None:
            raise ConfigError("aspects say what is rated; give them, or aspects_key", reward=label)
        self._aspects = None if aspects is None else aspects_of(aspects, score_range, scaling, label)
        if aspects_key is None or scaling == "unit":
            limits = [aspect.scale.bounds for aspect in self._aspects or ()] or [self._default.bounds]
            self.bounds = min(low for low, _ in limits), max(high for _, high in limits)
        super().__init__(vlm_model, fields=fields, **options)
        self.aspects = aspects
        self.aspects_key = aspects_key
        if aspects_key is not None:
            self.optional_fields = ("metadata",)

    def messages(self, sample: Sample) -> Messages:
        """The aspects, what is shown, and how to answer."""
        aspects = self._aspects_for(sample)
        return [message(_task(aspects), *self.shown(sample), _how_to_answer(aspects))]

    def form(self, sample: Sample) -> dict[str, Any]:
        """JSON with a key for each aspect is asked for."""
        kinds = {
            aspect.name: ["number", "null"] if aspect.optional else "number" for aspect in self._aspects_for(sample)
        }
        reasoning = {_reasons(self._aspects_for(sample)): {"type": "string"}}
        properties = {**reasoning, **{name: {"type": kind} for name, kind in kinds.items()}}
        return {"response_format": json_form(properties)}

    def read(self, reply: Reply, sample: Sample) -> RewardOutput:
        """The mean, and the aspects as parts."""
        aspects = self._aspects_for(sample)
        scores = read_aspects(spoken(reply), aspects)
        row = mean_of(aspects, scores)
        row.metadata = {"scores": scores}
        return row

    def _aspects_for(self, sample: Sample) -> Sequence[Aspect]:
        own = None if self.aspects_key is None else sample.metadata.get(self.aspects_key)
        if own is None and self._aspects is not None:
            return self._aspects
        try:
            return aspects_of(own, (self._default.low, self._default.high), self._default.scaling, self.name)
        except ConfigError as error:
            message = f"expected aspects at the key {self.aspects_key!r}: {error.args[0]}"
        raise InputError(message, field="metadata")


def _task(aspects: Sequence[Aspect]) -> str:
    lines = "\n".join(
        f"- {plain(aspect.name)} ({aspect.scale}): {plain(aspect.description)}"
        + (" null where it does not apply." if aspect.optional else "")
        for aspect in aspects
    )
    return (
        "You are a careful and impartial judge. Rate what is shown below in each of these aspects, independently of "
        f"the others. In each the first number of the scale is worst, the last best.\n\n{lines}\n\n{NOTICE}"
    )


def _reasons(aspects: Sequence[Aspect]) -> str:
    """The key of the reasons: another one than any aspect's."""
    taken = {folded(aspect.name) for aspect in aspects}
    return next(name for name in ("reasoning", "explanation", "thoughts", "because") if name not in taken)


def _how_to_answer(aspects: Sequence[Aspect]) -> str:
    keys = ", ".join(f'"{plain(aspect.name)}": <number, {aspect.scale}>' for aspect in aspects)
    return f'Answer with JSON of this form, with every key: {{"{_reasons(aspects)}": "<in short>", {keys}}}'


def read_aspects(text: str, aspects: Sequence[Aspect]) -> dict[str, float | None]:
    """The scores of the JSON in a text, as given; None for an aspect that does not apply.

    Raises:
        JudgeError: An aspect is missing or cannot be read.

    Examples:
        >>> read_aspects('{"Is-Clear": 4}', aspects_of({"is_clear": "?"}, (1, 5), "raw", ""))
        {'is_clear': 4.0}
    """
    found = find_object(text, [aspect.name for aspect in aspects])
    return {
        aspect.name: score_of(entry_of(found, aspect.name), aspect.scale, aspect.name, allow_na=aspect.optional)
        for aspect in aspects
    }
