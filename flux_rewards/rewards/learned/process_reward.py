"""ProcessReward: what a process reward model says of every step of a response, in one pass."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError, InputError, WeightsError, brief
from flux_rewards.models.text_format import CHAT
from flux_rewards.models.text_models import CAUSAL, SEQUENCE, TOKEN, TextModel, open_text_model
from flux_rewards.rewards.learned.direction import check_left_to_right
from flux_rewards.rewards.learned.head import label_position, label_scores, lone_token
from flux_rewards.rewards.learned.step_texts import STEPS, TEXT, TURNS, EncodedSteps, StepFormat
from flux_rewards.rewards.learned.text_model_reward import TextModelOptions, TextModelReward
from flux_rewards.rewards.tokens.alignment import checked_offsets
from flux_rewards.rewards.tokens.steps import steps_of
from flux_rewards.validation import checked_text, one_of

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["ProcessReward"]

_AGGREGATES: dict[str, Callable[[list[float]], float]] = {
    "min": min,
    "mean": lambda scores: math.fsum(scores) / len(scores),
    "last": lambda scores: scores[-1],
    "product": math.prod,
}
_KINDS = {"TokenClassification": TOKEN, "SequenceClassification": SEQUENCE, "CausalLM": CAUSAL}


class _Steps:
    """The steps of one sample: their tokens for the model, and where they are in the response."""

    def __init__(self, sample: Sample, spans: Sequence[tuple[int, int]], encoded: EncodedSteps) -> None:
        self.encoded = encoded
        self.count = len(spans)
        self.tokens: NDArray[np.int64] | None = None
        self.ends: list[int] | None = None
        if sample.token_ids is not None and sample.token_offsets is not None:
            self.tokens = checked_offsets(sample)
            self.ends = [_last_token(self.tokens, start, end) for start, end in spans]
        self.dense = self.ends is not None or sample.token_ids is None

    def token_rewards(self, scores: Sequence[float]) -> Sequence[float] | None:
        """The scores at the tokens where steps end; one a step where the sample has no tokens."""
        if self.tokens is None or self.ends is None:
            return scores if self.dense else None
        values = np.zeros(len(self.tokens))
        np.add.at(values, self.ends, scores)
        return values.tolist()


class ProcessReward(TextModelReward):
    r"""The probability that each step of a response is right, by a process reward model (PRM); one pass a response.

    What the model is follows from its configuration: a token classifier (as TRL trains PRMs), a sequence classifier,
    whose head is then asked at the end of every step, or a causal model, asked for `good` against `bad`. It must read
    from left to right, so that a step's score does not depend on the steps after it: one pass gives what a pass for
    every prefix would. A model that does not (BERT) is refused.

    | model | settings |
    |---|---|
    | TRL's PRM trainer | none (``step_end`` is its ``step_separator``) |
    | Math-Shepherd | ``template="{prompt} ", step_end=" ки", step_joint="\n", tokenized="text"`` |
    | RLHFlow's Llama3.1-8B-PRM | ``template="turns"`` |

    Args:
        model_name_or_path: In transformers' format with its tokenizer: hub id or directory.
        separator: The text between the steps of a response, as it is (no pattern).
        metadata_key: Where ``Sample.metadata`` holds the steps as a list of texts, in the order in which they stand in
            the response; None for the separator.
        step_end: What the model reads after each step; the score is read at its last token.
        step_joint: What it reads between `step_end` and the next step.
        tokenized: What the tokenizer is given at once, as it was in training: ``"steps"``, prompt, steps and `step_end`
            each by itself (TRL); or ``"text"``, the whole. The same for most steps with a byte-level tokenizer (Llama
            3, Qwen); other tokens, and scores, with SentencePiece (Llama 2, Mistral), which begins each text anew.
        template: What it reads before the first: ``"{prompt}"``, in whatever text; ``"chat"``, its chat template; or
            ``"turns"``: each step is a message of the user that is answered by `good`, and the score is read where the
            answer begins.
        good: The token for a right step, of a causal model.
        bad: The token for a wrong one.
        label: The label for a right step, of a classifier: by name or number. A lone output is read by its sigmoid.
        aggregate: What the reward is of the scores: ``"min"``, ``"mean"``, ``"last"`` or ``"product"``.
        chat_options: For the chat template.
        **options: `model_revision`, `max_length`, `on_truncation`, `max_batch_tokens` (`TextModelReward`), `device`,
            `dtype` (`ModelReward`), and those of every reward (`RewardFunction`).

    `token_rewards`: each step's score at its last token and 0 elsewhere where the sample has `token_ids` and
    `token_offsets` (added up where two steps end at one token); one score a step where it has no tokens. Metadata:
    ``step_rewards``, and ``step_ends``, the tokens; ``truncated`` and ``control_tokens`` as for `TextModelReward`. The
    prompt loses its beginning where the whole is too long. Does not apply (None) to a response without steps.

    Raises:
        ConfigError: An argument cannot be used; at the first call: no chat template, no such label, or `good` or `bad`
            is not one token.
        InputError: The steps in the metadata are not those of the response, or alone are too long for the model.
        WeightsError: At the first call: the checkpoint cannot be found, does not fit, has no head, or has one for whole
            texts only; or the model does not read from left to right.

    Source: Lightman et al. 2023 (arXiv 2305.20050); Math-Shepherd (arXiv 2312.08935); RLHFlow's
    ``math-rm/prm_evaluate.py``, https://github.com/RLHFlow/RLHF-Reward-Modeling; TRL's PRM trainer.

    Does not run code that comes with a checkpoint, as Qwen2.5-Math-PRM's.

    Examples:
        >>> ProcessReward("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", template="turns", aggregate="min").bounds
        (0.0, 1.0)
    """

    required_fields = ("prompt", "response")
    optional_fields = ("token_ids", "token_offsets", "metadata")
    bounds = (0.0, 1.0)
    example_config = {"model_name_or_path": "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "template": "turns"}

    def __init__(
        self,
        model_name_or_path: str,
        *,
        separator: str = "\n\n",
        metadata_key: str | None = None,
        step_end: str = "\n",
        step_joint: str = "",
        tokenized: str = STEPS,
        template: str = "{prompt}",
        good: str = "+",
        bad: str = "-",
        label: str | int = 1,
        aggregate: str = "min",
        chat_options: Mapping[str, Any] | None = None,
        **options: Unpack[TextModelOptions],
    ) -> None:
        super().__init__(model_name_or_path, **options)
        for parameter, value in {"separator": separator, "step_end": step_end}.items():
            given: Any = value
            if not isinstance(given, str) or not given:
                raise ConfigError(f"{parameter} must be a text, found {brief(value)}", reward=self.name)
        self.separator = separator
        self.metadata_key = metadata_key
        self.step_end = step_end
        unknown: Any = step_joint
        if not isinstance(unknown, str):
            raise ConfigError(f"step_joint must be a text, found {brief(step_joint)}", reward=self.name)
        self.step_joint = step_joint
        self.tokenized = one_of(tokenized, "tokenized", self.name, (STEPS, TEXT))
        self.template = checked_text(template, "template", self.name)
        if template not in (CHAT, TURNS) and "{prompt}" not in template:
            raise ConfigError(
                f"template must be 'chat', 'turns' or have '{{prompt}}', found {template!r}", reward=self.name
            )
        self.good = checked_text(good, "good", self.name)
        self.bad = checked_text(bad, "bad", self.name)
        self.label = label
        self.aggregate = one_of(aggregate, "aggregate", self.name, tuple(_AGGREGATES))
        self.chat_options = chat_options
        self._format = StepFormat(template, step_end, good, chat_options or {}, step_joint, tokenized)

    def open_model(self) -> TextModel:
        """The model, of whatever kind; its label or tokens are looked up."""
        (checkpoint,) = self.checkpoints()
        model = open_text_model(_kind(checkpoint), checkpoint, device=self.device, dtype=self.dtype)
        if model.kind == SEQUENCE:
            _ = model.token_head  # an encoder's is told apart before it is tried
        check_left_to_right(model)
        try:
            self._format.check(model.tokenizer)
        except ConfigError as error:
            raise ConfigError(f"{model.label}: {error}", reward=self.name) from None
        self._limit = self.limit(model)
        if model.kind == CAUSAL:
            rule = "good and bad are one token each"
            self._tokens = [lone_token(model, text, rule, self.name) for text in (self.good, self.bad)]
        else:
            self._position = 0 if len(model.labels) == 1 else label_position(model, self.label, self.name)
        return model

    def encode(self, model: TextModel, sample: Sample) -> _Steps | None:
        """The steps of one sample, or None where there are none."""
        text = sample.response_text
        spans = (
            list(steps_of(text, self.separator))
            if self.metadata_key is None
            else self._noted(sample, text, self.metadata_key)
        )
        if not spans:
            return None
        steps = [text[start:end] for start, end in spans]
        found = self._format.encode(model.tokenizer, sample.prompt, steps, self._limit)
        self.checked(found.text)
        return _Steps(sample, spans, found)

    def _noted(self, sample: Sample, text: str, key: str) -> list[tuple[int, int]]:
        """Where the steps in the metadata stand in the response."""
        noted = sample.metadata.get(key)
        if not isinstance(noted, (list, tuple)) or not all(isinstance(step, str) for step in noted):
            raise InputError(f"expected a list of texts in metadata[{key!r}], found {brief(noted)}", field="metadata")
        spans: list[tuple[int, int]] = []
        done = 0
        for place, step in enumerate(map(str.strip, noted)):
            start = text.find(step, done)
            if not step or start < 0:
                raise InputError(
                    f"step {place + 1} in metadata[{key!r}], {brief(step)}, does not stand in the "
                    "response behind the one before",
                    field="metadata",
                )
            done = start + len(step)
            spans.append((start, done))
        return spans

    def score(self, rows: Sequence[_Steps], model: TextModel) -> list[RewardOutput]:
        """Scores of the steps, and their aggregate."""

        def of_row(_row: int, logits: torch.Tensor) -> torch.Tensor:
            if model.kind == CAUSAL:
                return logits[:, self._tokens].double().softmax(dim=-1)[:, 0]
            return label_scores(logits, self._position, "probability", model)

        texts = [row.encoded.text for row in rows]
        places = [row.encoded.places for row in rows]
        found = model.logits_at(texts, places, of_row, max_tokens=self.max_batch_tokens)
        scored: list[RewardOutput] = []
        for row, values in zip(rows, found, strict=True):
            scores: list[float] = values.tolist()
            metadata = {"step_rewards": scores, **self.noted(row.encoded.text)}
            if row.ends is not None:
                metadata["step_ends"] = row.ends
            scored.append(RewardOutput(_AGGREGATES[self.aggregate](scores), row.token_rewards(scores), metadata))
        return scored


def _kind(checkpoint: Checkpoint) -> str:
    """Which head a checkpoint has, by the class that its configuration names."""
    file = checkpoint.part("config.json").path()
    try:
        names = json.loads(file.read_text(encoding="utf-8"))["architectures"]
        found = [kind for name in names for ending, kind in _KINDS.items() if name.endswith(ending)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{file} does not say which class the model is: {type(error).__name__}: {error}") from error
    if len(found) != 1:
        raise WeightsError(f"{checkpoint.label} is a {', '.join(names)}; expected one that ends in {', '.join(_KINDS)}")
    return found[0]


def _last_token(tokens: NDArray[np.int64], start: int, end: int) -> int:
    """The last token that shares a character with a span."""
    sharing = np.flatnonzero(np.maximum(tokens[:, 0], start) < np.minimum(tokens[:, 1], end))
    if not len(sharing):
        raise InputError(
            f"the step at characters {start} to {end} has no token to hold its score; give the text of the tokens",
            field="token_offsets",
        )
    return int(sharing[-1])
