"""ClassifierReward and SentimentReward: the probabilities of labels of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flux_rewards.data import RewardOutput
from flux_rewards.errors import ConfigError
from flux_rewards.models.text_format import TextFormat
from flux_rewards.rewards.learned.head import OUTPUTS, excluding, label_position, label_scores, weights_of
from flux_rewards.rewards.learned.text_model_reward import SequenceReward, TextModelOptions
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.data import Sample
    from flux_rewards.models.text_format import EncodedText
    from flux_rewards.models.text_models import TextModel

__all__ = ["ClassifierReward", "SentimentReward"]


class ClassifierReward(SequenceReward):
    """What a text classifier says of the response: the weighted sum of the outputs of some labels.

    Args:
        model_name_or_path: A sequence classifier in transformers' format with its tokenizer: hub id or directory.
        labels: The label whose output it is, by name in whatever case or by number; or ``{label: weight}``, such as
            ``{"toxic": -1.0}``.
        output: ``"probability"`` (softmax over the labels; sigmoid where there is one only, or they don't exclude one
            another), ``"logit"`` or ``"log_odds"``.
        template: What the model reads; see `TextFormat`. The response alone by default.
        cut: Which side of a text that is too long is cut; None for what the model's own file says, else the end
            (``"right"``), as transformers' pipeline does.
        **options: `model_revision`, `max_length`, `on_truncation`, `max_batch_tokens` (`TextModelReward`), `device`,
            `dtype` (`ModelReward`), and those of every reward (`RewardFunction`).

    Parts: the output of each label, where there are several. Metadata: ``label``, the likeliest one; ``truncated`` and
    ``control_tokens`` as for `TextModelReward`. Bounds follow from the weights for ``"probability"``.

    Raises:
        ConfigError: An argument cannot be used; at the first call: a label that the model has not.
        WeightsError: At the first call: the checkpoint cannot be found, does not fit, or has no head.

    Source: with one label, the number of transformers' ``pipeline("text-classification", top_k=None)``.

    Does not choose a label by its meaning.

    Examples:
        >>> ClassifierReward("unitary/toxic-bert", {"toxic": -1.0, "insult": -0.5}).bounds
        (-1.5, 0.0)
    """

    example_config = {"model_name_or_path": "unitary/toxic-bert", "labels": {"toxic": -1.0}}

    def __init__(
        self,
        model_name_or_path: str,
        labels: str | int | Mapping[str, float],
        *,
        output: str = "probability",
        template: str = "{response}",
        cut: str | None = None,
        **options: Unpack[TextModelOptions],
    ) -> None:
        weights = weights_of(labels, self.name)
        if output == "probability":  # before the base rescales them
            self.bounds = (sum(min(w, 0.0) for w in weights.values()), sum(max(w, 0.0) for w in weights.values()))
        form = TextFormat(template, cut="right")
        super().__init__(model_name_or_path, form, cut, **options)
        self.labels = labels
        self.output = one_of(output, "output", self.name, OUTPUTS)
        self.template = template
        self._weights = weights

    def open_model(self) -> TextModel:
        """The model; its labels are looked up."""
        model = super().open_model()
        self._positions = {label: self.position(model, label) for label in self._weights}
        if len(set(self._positions.values())) < len(self._positions):
            raise ConfigError(f"labels {list(self._weights)} name one label of {model.label} twice", reward=self.name)
        return model

    def encode(self, model: TextModel, sample: Sample) -> EncodedText:
        """The tokens of the text that is judged: of a conversation, the last message of the assistant."""
        if not isinstance(sample.response, str):
            sample = replace(sample, response=sample.response_text)
        return super().encode(model, sample)

    def position(self, model: TextModel, label: str | int) -> int:
        """Where a label stands."""
        return label_position(model, label, self.name)

    def score(self, rows: Sequence[EncodedText], model: TextModel) -> list[RewardOutput]:
        """The weighted sum for each text."""
        logits = model.logits(rows, max_tokens=self.max_batch_tokens)
        of_label = {
            str(label): label_scores(logits, position, self.output, model).tolist()
            for label, position in self._positions.items()
        }
        likeliest = logits.argmax(dim=1).tolist()
        scored: list[RewardOutput] = []
        for row, text in enumerate(rows):
            parts = {label: scores[row] for label, scores in of_label.items()}
            total = sum(weight * parts[str(label)] for label, weight in self._weights.items())
            metadata = self.noted(text)
            if excluding(model, logits.shape[1]):
                metadata["label"] = model.labels[likeliest[row]]
            scored.append(RewardOutput(total, metadata=metadata, parts=parts if len(parts) > 1 else {}))
        return scored


class SentimentReward(ClassifierReward):
    """How positive the response sounds to a sentiment classifier: the probability of its positive label.

    Args:
        model_name_or_path: A sentiment classifier in transformers' format: hub id or directory.
        label: The positive label; None for the one called ``positive`` or ``pos``, in whatever case.
        output: ``"probability"``, ``"logit"`` (as TRL's sentiment example rewards) or ``"log_odds"``.
        template: What the model reads; see `TextFormat`. Set it to ``"{prompt}{response}"`` for a continuation.
        cut: Which side of a text that is too long is cut.
        **options: As for `ClassifierReward`.

    Raises:
        ConfigError: An argument cannot be used; at the first call: no label of that name.
        WeightsError: At the first call: the checkpoint cannot be found, does not fit, or has no head.

    Source: the sentiment example of TRL, https://github.com/huggingface/trl.

    Does not know irony; a reward of tone alone is soon maximised by praise.

    Examples:
        >>> SentimentReward().bounds
        (0.0, 1.0)
    """

    example_config = {}

    def __init__(
        self,
        model_name_or_path: str = "lvwerra/distilbert-imdb",
        *,
        label: str | int | None = None,
        output: str = "probability",
        template: str = "{response}",
        cut: str | None = None,
        **options: Unpack[TextModelOptions],
    ) -> None:
        positive = "positive" if label is None else label
        super().__init__(model_name_or_path, positive, output=output, template=template, cut=cut, **options)
        self.label = label

    def position(self, model: TextModel, label: str | int) -> int:
        """Where the positive label stands."""
        if self.label is None and "positive" not in {name.casefold() for name in model.labels.values()}:
            label = "pos"
        return super().position(model, label)
