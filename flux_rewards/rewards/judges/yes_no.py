"""How probable it is that a judge says yes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.data import RewardOutput
from flux_rewards.errors import ConfigError
from flux_rewards.rewards.judges.material import NOTICE, TEXTS, message
from flux_rewards.rewards.judges.sample_judge import SampleJudge
from flux_rewards.rewards.judges.verdicts.probabilities import probabilities_of, shares
from flux_rewards.validation import checked_text, number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.chat.client import Messages
    from flux_rewards.chat.reply import Reply
    from flux_rewards.data import Sample
    from flux_rewards.rewards.judges.judge import JudgeOptions

__all__ = ["YesNoJudge"]


class YesNoJudge(SampleJudge):
    """The probability that a judge answers "Yes" rather than "No", in [0, 1], from the first token of its reply.

    ``P(Yes) / (P(Yes) + P(No))`` of the log-probabilities of the 20 likeliest first tokens; nothing is sampled, so the
    score is fine-grained and repeatable. With the default question, and an image, it is VQAScore over HTTP.

    Args:
        vlm_model: The model's name at the endpoint.
        question: Asked about what is shown. ``{prompt}`` and ``{reference}`` stand for the sample's own; without them
            all samples are asked the same. It should ask for one of the two answers. None where each sample brings its
            own.
        fields: What is shown beside the question; see `Judge`.
        question_key: Where a sample's `metadata` has its own question, in place of `question`.
        positive: The answer whose probability it is; one token.
        negative: The other one.
        merge_variants: `` yes``, ``YES`` and so on count as ``Yes``.
        min_mass: The least probability of the two together: below it the model would have said something else, and the
            score would be noise. Then it is a `JudgeError`.
        **options: Of every judge; see `Judge`. One token is asked for, so `max_tokens` is 1.

    Metadata, beside that of every judge: ``mass``, the probability of the two answers together.

    Raises:
        ConfigError: The question or an answer is no text, or the answers are the same.

    Source: Lin et al., "Evaluating Text-to-Visual Generation with Image-to-Text Generation" (2024, arXiv 2404.01291)
    for the question; Flow-Factory's ``vllm_evaluate`` for the ratio.

    Does not work with endpoints that send no log-probabilities: it is an error there, not a score. An answer beyond
    the 20 likeliest tokens counts as 0.

    Examples:
        >>> judge = YesNoJudge("Qwen2.5-VL-7B-Instruct", api_base_url="http://localhost:8000/v1")
        >>> judge.required_fields, judge.bounds
        (('image', 'prompt'), (0.0, 1.0))
        >>> YesNoJudge("judge", "Is the answer polite? Answer Yes or No.", fields=["response"]).required_fields
        ('response',)
    """

    bounds = (0.0, 1.0)
    optional_fields = ()
    example_config: ClassVar = {**SampleJudge.example_config}

    def __init__(
        self,
        vlm_model: str,
        question: str | None = 'Does this figure show "{prompt}"? Please answer Yes or No.',
        fields: Sequence[str] = ("image",),
        *,
        question_key: str | None = None,
        positive: str = "Yes",
        negative: str = "No",
        merge_variants: bool = True,
        min_mass: float = 0.5,
        **options: Unpack[JudgeOptions],
    ) -> None:
        options.setdefault("max_tokens", 1)
        super().__init__(vlm_model, fields=fields, **options)
        self.check_criteria(question, question_key, "question")
        checked_text(positive, "positive", self.name)
        checked_text(negative, "negative", self.name)
        for answer in (positive, negative):
            if len(answer.split()) > 1:
                raise ConfigError(f"an answer must be one token, found {answer!r}", reward=self.name)
        if positive.strip().casefold() == negative.strip().casefold():
            raise ConfigError(f"positive and negative are both {positive!r}", reward=self.name)
        self.question = question
        self.question_key = question_key
        self.positive = positive
        self.negative = negative
        self.merge_variants = merge_variants
        self.min_mass = number(min_mass, "min_mass", self.name, low=0.0, high=1.0)

    def messages(self, sample: Sample) -> Messages:
        """What is shown, and then the question."""
        notice = [NOTICE] if any(field in TEXTS for field in self.fields) else []
        return [message(*notice, *self.shown(sample), self.criteria_text(sample, self.question, self.question_key))]

    def form(self, sample: Sample) -> dict[str, Any]:  # noqa: ARG002  # the same for all
        """The log-probabilities of the first token are asked for."""
        return {"logprobs": True, "top_logprobs": 20}

    def read(self, reply: Reply, sample: Sample) -> RewardOutput:  # noqa: ARG002  # the same for all
        """The share of the positive answer."""
        answers = [self.positive, self.negative]
        positive, _ = shares(reply, answers, merge_variants=self.merge_variants, min_mass=self.min_mass)
        mass = min(1.0, sum(probabilities_of(reply, answers, merge_variants=self.merge_variants)))
        return RewardOutput(positive, metadata={"mass": mass})
