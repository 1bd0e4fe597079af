"""GenerativeScore: how likely a causal language model finds an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flux_rewards.data import FIELDS, RewardOutput, Sample
from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.models.control_tokens import control_tokens_of
from flux_rewards.models.text_format import CHAT, EncodedText, TextFormat, lone_text
from flux_rewards.models.text_models import CAUSAL, TextModel
from flux_rewards.rewards.learned.direction import check_left_to_right
from flux_rewards.rewards.learned.head import lone_token
from flux_rewards.rewards.learned.text_model_reward import TextModelReward
from flux_rewards.validation import checked_text, one_of, texts

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from flux_rewards.base import RewardOptions

__all__ = ["GenerativeScore"]

_PLACE = re.compile(r"\{(prompt|response|reference)\}")
_QUESTION = "{question}"


@dataclass(frozen=True)
class _Asked:
    text: EncodedText
    answer: list[int]

    def __len__(self) -> int:
        return len(self.text)


class GenerativeScore(TextModelReward):
    r"""How likely a causal language model finds an answer to a question; one forward pass, nothing is generated.

    The log-likelihood of the answer's tokens ``t_1 .. t_n``: ``sum log p(t_i | question, t_1 .. t_i-1)``, in nats.

    | what | settings |
    |---|---|
    | of the reference, after the prompt | none |
    | of the reference, after reasoning | ``question="{prompt}\n\n{response}\n\nSo the answer is:"`` |
    | of the response | ``answer="{response}"`` |
    | of "Yes" against "No" | ``question="Is this polite? {response}", answer="Yes", alternatives=["No"]``, \
``output="probability"`` |

    Args:
        model_name_or_path: A causal model in transformers' format with its tokenizer: hub id or directory.
        question: What the model is asked: ``{prompt}``, ``{response}`` and ``{reference}`` stand for the sample's
            fields, other braces are text. Where it is ``"{prompt}"`` alone, a conversation is taken whole.
        answer: Whose likelihood it is, at the beginning of the model's turn; with the same places.
        output: ``"mean_log_likelihood"`` (per token, which does not favour short answers), ``"log_likelihood"`` or
            ``"probability"`` (``exp`` of the latter).
        alternatives: Answers beside `answer` that share the probability: the softmax of their logits alone, as in
            `VQAScore`. Each one token, as `answer`.
        template: ``"chat"``: the question is a message of the user, put by the model's chat template; or a text with
            ``{question}``, such as ``"{question}"`` for a model that was not trained to chat.
        chat_options: For the chat template. A model that thinks before it answers (Qwen3) must be told not to
            (``{"enable_thinking": False}``), or its answer is asked for where a thought would begin.
        model_revision: See `TextModelReward`.
        max_length: See `TextModelReward`.
        on_truncation: See `TextModelReward`.
        max_batch_tokens: See `TextModelReward`; less than there by default, as every token of an answer makes logits
            over the vocabulary.
        device: See `ModelReward`.
        dtype: In which weights are held; logits and likelihoods are float32 in any case.
        **options: Of every reward; see `RewardFunction`.

    A question that is too long loses its beginning, and says so in the metadata (``truncated``); an answer that alone
    is too long fails. Metadata: ``tokens``, how many the answer has. Control tokens in the fields, such as
    ``<|im_end|>``, are text.

    Raises:
        ConfigError: An argument cannot be used; at the first call: no chat template, or an alternative that is no token
            of its own.
        WeightsError: At the first call: the checkpoint cannot be found, does not fit, or does not read from left to
            right.

    Does not add the end of the turn to the answer.

    Examples:
        >>> GenerativeScore("Qwen/Qwen3-0.6B").required_fields
        ('prompt', 'reference')
        >>> GenerativeScore("Qwen/Qwen3-0.6B", answer="{response}").required_fields
        ('prompt', 'response')
    """

    optional_fields = ()
    kind = CAUSAL
    example_config = {"model_name_or_path": "Qwen/Qwen3-0.6B"}

    def __init__(
        self,
        model_name_or_path: str,
        *,
        question: str = "{prompt}",
        answer: str = "{reference}",
        output: str = "mean_log_likelihood",
        alternatives: Sequence[str] | None = None,
        template: str = CHAT,
        chat_options: Mapping[str, Any] | None = None,
        model_revision: str | None = None,
        max_length: int | None = None,
        on_truncation: str = "report",
        max_batch_tokens: int = 4096,
        device: str | None = None,
        dtype: str = "bfloat16",
        **options: Unpack[RewardOptions],
    ) -> None:
        self.bounds = (0.0, 1.0) if output == "probability" else None  # before the base rescales them
        super().__init__(
            model_name_or_path,
            model_revision=model_revision,
            max_length=max_length,
            on_truncation=on_truncation,
            max_batch_tokens=max_batch_tokens,
            device=device,
            dtype=dtype,
            **options,
        )
        self.question = checked_text(question, "question", self.name)
        self.answer = checked_text(answer, "answer", self.name)
        self.output = one_of(output, "output", self.name, ("mean_log_likelihood", "log_likelihood", "probability"))
        if alternatives is not None and not texts(alternatives, "alternatives", self.name):
            raise ConfigError("alternatives is empty; leave it out for the whole vocabulary", reward=self.name)
        self.alternatives = alternatives
        given: Any = template
        if given != CHAT and _QUESTION not in str(given):
            raise ConfigError(
                f"template must be 'chat' or have '{_QUESTION}', found {brief(template)}", reward=self.name
            )
        self.template = template
        self.chat_options = chat_options
        asked = _PLACE.findall(question + answer)
        self.required_fields = tuple(field for field in FIELDS if field in asked)
        self._format = TextFormat(
            CHAT if template == CHAT else template.replace(_QUESTION, "{response}"),
            chat_options={**(chat_options or {}), "add_generation_prompt": True},
        )

    def open_model(self) -> TextModel:
        """The model; its chat template and the alternatives are looked up."""
        model = super().open_model()
        check_left_to_right(model)  # else a token is seen when it is predicted
        try:
            self._format.check(model.tokenizer)
        except ConfigError as error:
            raise ConfigError(f"{model.label}: {error}", reward=self.name) from None
        self._limit = self.limit(model)
        rule = "with alternatives each answer must be one token"
        self._others = [lone_token(model, text, rule, self.name) for text in self.alternatives or ()]
        return model

    def encode(self, model: TextModel, sample: Sample) -> _Asked:
        """Question and answer of one sample."""
        tokenizer = model.tokenizer
        told, changed = control_tokens_of(tokenizer).apart(self._filled(self.answer, sample))
        answer: list[int] = tokenizer(told, add_special_tokens=False, verbose=False)["input_ids"]
        if not answer:
            raise InputError("the answer whose likelihood is asked for has no tokens", field=self._answer_field)
        if self.alternatives is not None and (len(answer) > 1 or answer[0] in self._others):
            raise InputError(
                f"with alternatives the answer is one token, and none of theirs; found {brief(told)}",
                field=self._answer_field,
            )
        format_ = self._format
        if self._limit is not None:
            room = self._limit - len(answer)
            if room < 4:
                raise InputError(
                    f"the answer has {len(answer)} tokens, and the model reads {self._limit}; raise max_length",
                    field=self._answer_field,
                )
            format_ = TextFormat(format_.template, room, "left", format_.chat_options)
        whole = self.question == "{prompt}" and not isinstance(sample.prompt, str) and format_.template == CHAT
        question: Any = sample.prompt if whole else self._filled(self.question, sample)
        if not whole and format_.template == CHAT:
            question = [{"role": "user", "content": question}]
        found = self.checked(format_.encode(tokenizer, None, question, open_end=True))
        ids = [*found.token_ids, *answer]
        return _Asked(EncodedText(ids, None, found.truncated, found.set_apart + changed), answer)

    @property
    def _answer_field(self) -> str:
        return next(iter(_PLACE.findall(self.answer)), "prompt")

    def _filled(self, template: str, sample: Sample) -> str:
        def one(place: re.Match[str]) -> str:
            if place[1] == "prompt":
                return lone_text(sample.prompt)
            if place[1] == "response":
                return sample.response_text
            reference = sample.reference
            if isinstance(reference, bool) or not isinstance(reference, (str, int, float)):
                raise InputError(f"expected a text or a number, found {brief(reference)}", field="reference")
            return str(reference)

        return _PLACE.sub(one, template)

    def score(self, rows: Sequence[_Asked], model: TextModel) -> list[RewardOutput]:
        """The likelihood of each answer."""

        def of_row(row: int, logits: torch.Tensor) -> torch.Tensor:
            answer = rows[row].answer
            own = logits[range(len(answer)), answer].double()
            among = logits[:, [*answer, *self._others]] if self._others else logits
            return (own - among.double().logsumexp(dim=-1)).sum()

        # What stands before a token decides it.
        positions = [range(len(row) - len(row.answer) - 1, len(row) - 1) for row in rows]
        found = model.logits_at([row.text for row in rows], positions, of_row, max_tokens=self.max_batch_tokens)
        scored: list[RewardOutput] = []
        for row, value in zip(rows, found, strict=True):
            total = min(float(value), 0.0)  # rounding
            score = {
                "mean_log_likelihood": total / len(row.answer),
                "log_likelihood": total,
                "probability": float(value.exp().clamp(max=1.0)),
            }[self.output]
            scored.append(RewardOutput(score, metadata={"tokens": len(row.answer), **self.noted(row.text)}))
        return scored
