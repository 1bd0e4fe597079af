"""A number that a judge gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError
from flux_rewards.rewards.judges.material import NOTICE, message
from flux_rewards.rewards.judges.sample_judge import SampleJudge
from flux_rewards.rewards.judges.verdicts.labelled import read_rating
from flux_rewards.rewards.judges.verdicts.objects import entry_of, find_object, score_of
from flux_rewards.rewards.judges.verdicts.probabilities import probabilities_of, shares
from flux_rewards.rewards.judges.verdicts.scale import Scale
from flux_rewards.rewards.judges.verdicts.spoken import spoken
from flux_rewards.validation import checked_text, number, one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.chat.client import Messages
    from flux_rewards.chat.reply import Reply
    from flux_rewards.rewards.judges.judge import JudgeOptions

__all__ = ["RatingJudge", "json_form", "read_score"]


class RatingJudge(SampleJudge):
    """The number that a judge gives on a scale; by default moved to [0, 1].

    Three ways to get it. ``answer="text"``: the judge thinks aloud and ends with ``Score: 8``. ``"json"``: it answers
    in JSON, to which the endpoint holds it by ``response_format``. ``"logprobs"``: it answers with one digit, and the
    score is the expectation ``sum(d * P(d)) / sum(P(d))`` over the digits of the scale, from the log-probabilities of
    its first token: fine-grained and repeatable, without reasoning.

    Args:
        vlm_model: The model's name at the endpoint.
        criteria: What is rated, and what makes it good; ``{prompt}`` and ``{reference}`` stand for the sample's own.
            None where each sample brings its own.
        fields: What is shown; see `Judge`.
        answer: ``"text"``, ``"json"`` or ``"logprobs"``.
        score_range: (worst, best). With ``"logprobs"`` whole numbers from 0 to 9.
        scaling: ``"unit"``: ``(score - low) / (high - low)``, as in most judges for text; ``"/high"``: as in flow_grpo,
            ``score / high``; ``"raw"``: the number itself.
        label: What stands before the number in a text.
        allow_na: Whether the judge may say "N/A": then the reward does not apply. Not with ``"logprobs"``.
        criteria_key: Where a sample's `metadata` has its own criteria, in place of `criteria`; which then need not be.
        min_mass: With ``"logprobs"``, the least probability of all digits together, as in `YesNoJudge`.
        **options: Of every judge; see `Judge`.

    Metadata, beside that of every judge: ``scores``, with the number as given.

    Raises:
        ConfigError: There are no criteria, or the range does not fit the answer.

    What is read is what was asked for, in the forms that judges really write (``**Score:** 8/10``, ``Score: [8]``, a
    "Final score" above others); a number elsewhere in the reply is not taken for the score, and several that differ,
    a range, or one beyond the scale are a `JudgeError`.

    Examples:
        >>> judge = RatingJudge("judge", "Is it correct? The solution is {reference}.", answer="logprobs",
        ...                     score_range=(0, 9))
        >>> judge.required_fields, judge.bounds
        (('prompt', 'response', 'reference'), (0.0, 1.0))
    """

    optional_fields: Sequence[str] | None = ()
    example_config: ClassVar[Mapping[str, Any]] = {
        **SampleJudge.example_config,
        "criteria": "Is it right, clear and brief?",
    }

    def __init__(
        self,
        vlm_model: str,
        criteria: str | None = None,
        fields: Sequence[str] = ("prompt", "response"),
        *,
        answer: str = "text",
        score_range: tuple[float, float] = (1, 10),
        scaling: str = "unit",
        label: str = "Score",
        allow_na: bool = False,
        criteria_key: str | None = None,
        min_mass: float = 0.5,
        **options: Unpack[JudgeOptions],
    ) -> None:
        label_of = options.get("name") or type(self).__name__
        self.answer = one_of(answer, "answer", label_of, ("text", "json", "logprobs"))
        self._scale = Scale.of(score_range, scaling, label_of)
        self.bounds = self._scale.bounds
        if answer == "logprobs":
            options.setdefault("max_tokens", 1)
        super().__init__(vlm_model, fields=fields, **options)
        self.check_criteria(criteria, criteria_key)
        checked_text(label, "label", self.name)
        if answer == "logprobs" and self._scale.whole_numbers is None:
            raise ConfigError(
                f"score_range must be whole numbers from 0 to 9 for answer='logprobs', found {score_range}",
                reward=self.name,
            )
        if answer == "logprobs" and allow_na:
            raise ConfigError("allow_na does not go with answer='logprobs', which reads digits", reward=self.name)
        self.criteria = criteria
        self.label = label
        self.allow_na = allow_na
        self.criteria_key = criteria_key
        self.min_mass = number(min_mass, "min_mass", self.name, low=0.0, high=1.0)

    def messages(self, sample: Sample) -> Messages:
        """The task, what is shown, and how to answer."""
        return [message(self._task(sample), *self.shown(sample), self._how_to_answer())]

    def _task(self, sample: Sample) -> str:
        return (
            f"You are a careful and impartial judge. Rate what is shown below on a scale of {self._scale}, where "
            f"{self._scale.low:g} is worst and {self._scale.high:g} is best, by these criteria:\n\n"
            f"{self.criteria_text(sample, self.criteria, self.criteria_key)}\n\n{NOTICE}"
        )

    def _how_to_answer(self) -> str:
        not_applicable = ', or "N/A" where the criteria do not apply' if self.allow_na else ""
        if self.answer == "logprobs":
            return f"Answer with one digit, {self._scale}, and nothing else."
        if self.answer == "json":
            number_or_null = "number" if not self.allow_na else "number, or null where the criteria do not apply"
            return f'Answer with JSON of this form: {{"reasoning": "<in short>", "score": <{number_or_null}>}}'
        return (
            f"Say in short what speaks for it and what against. Then end with one line of this form, and nothing "
            f"after it:\n{self.label}: <a number of {self._scale}{not_applicable}>"
        )

    def form(self, sample: Sample) -> dict[str, Any]:  # noqa: ARG002  # the same for all
        """Log-probabilities, or JSON, are asked for."""
        if self.answer == "logprobs":
            return {"logprobs": True, "top_logprobs": 20}
        if self.answer == "json":
            kind = ["number", "null"] if self.allow_na else "number"
            return {"response_format": json_form({"reasoning": {"type": "string"}, "score": {"type": kind}})}
        return {}

    def read(self, reply: Reply, sample: Sample) -> RewardOutput:  # noqa: ARG002  # the same for all
        """The score, on its scale."""
        metadata: dict[str, Any] = {}
        if self.answer == "logprobs":
            digits = self._scale.whole_numbers or ()
            answers = [str(digit) for digit in digits]
            weights = shares(reply, answers, min_mass=self.min_mass)
            score: float | None = sum(digit * weight for digit, weight in zip(digits, weights, strict=True))
            metadata["mass"] = min(1.0, sum(probabilities_of(reply, answers)))
        elif self.answer == "json":
            score = read_score(spoken(reply), self._scale, allow_na=self.allow_na)
        else:
            score = read_rating(spoken(reply), self._scale, self.label, allow_na=self.allow_na)
        metadata["scores"] = {"score": score}
        return RewardOutput(None if score is None else self._scale.scaled(score), metadata=metadata)  # type: ignore[arg-type]


def read_score(text: str, scale: Scale, *, allow_na: bool = False) -> float | None:
    """The number at the key "score" of the JSON in a text; None for one that does not apply.

    Raises:
        JudgeError: There is none, or it is not on the scale.

    Examples:
        >>> read_score('{"reasoning": "2 of 3", "score": 7}', Scale(1, 10))
        7.0
    """
    found = find_object(text, ["score"])
    return score_of(entry_of(found, "score"), scale, "score", allow_na=allow_na)


def json_form(properties: Mapping[str, Any], name: str = "verdict") -> dict[str, Any]:
    """The ``response_format`` that holds an endpoint to a JSON object with these keys.

    Examples:
        >>> json_form({"score": {"type": "number"}})["json_schema"]["schema"]["required"]
        ['score']
    """
    schema = {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}
