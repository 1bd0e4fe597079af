"""The bases of rewards with a language model that reads prompt and response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.errors import ConfigError, InputError
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.reward_model_file import RewardModelFile
from flux_rewards.models.text_format import CHAT, EncodedText, TextFormat
from flux_rewards.models.text_models import SEQUENCE, TextModel, open_text_model
from flux_rewards.rewards.model_reward import ModelOptions, ModelReward
from flux_rewards.validation import one_of, whole_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.data import RewardOutput, Sample

__all__ = ["SequenceReward", "TextModelOptions", "TextModelReward"]


class TextModelOptions(ModelOptions, total=False):
    """Keyword arguments that every reward with a language model takes beside its own; see `TextModelReward`."""

    model_revision: str | None
    max_length: int | None
    on_truncation: str
    max_batch_tokens: int


class TextModelReward(ModelReward, abstract=True):
    """A reward with a language model, run over texts in batches of similar length.

    The samples of a call are sorted by length and run in batches of at most `max_batch_tokens`; `batch_size` is how
    many are sorted at a time. In float32 neither changes a score by more than rounding (1e-5).

    Metadata: ``truncated``, how many tokens a text lost, and ``control_tokens``, how many of the tokenizer's control
    tokens in it were made plain text, where there were any.

    A subclass overrides `encode` and `score`.

    Args:
        model_name_or_path: A checkpoint in transformers' format with its tokenizer, or an adapter (LoRA) in peft's,
            which is merged into its base model: hub id or directory. Code that comes with a checkpoint is not run.
        model_revision: Branch, tag or commit on the hub.
        max_length: Tokens that are read at most; None for what the checkpoint was trained with, or can read.
        on_truncation: What becomes of a longer text: ``"report"``, it is cut, and its metadata say by how much; or
            ``"error"``, the sample fails.
        max_batch_tokens: That the model sees at once, padding included. Decides memory and speed, and no score.
        **options: `device`, `dtype` (`ModelReward`), and those of every reward (`RewardFunction`).

    Raises:
        ConfigError: An argument cannot be used.
    """

    required_fields: Sequence[str] = ("prompt", "response")
    optional_fields: Sequence[str] | None = ("metadata",)
    batch_size = 256
    kind: str = SEQUENCE
    neutral_parameters: ClassVar[Sequence[str]] = (*ModelReward.neutral_parameters, "max_batch_tokens")

    def __init__(
        self,
        model_name_or_path: str,
        *,
        model_revision: str | None = None,
        max_length: int | None = None,
        on_truncation: str = "report",
        max_batch_tokens: int = 16384,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(**options)
        self.model_name_or_path = model_name_or_path
        self.model_revision = model_revision
        self.max_length = None if max_length is None else whole_number(max_length, "max_length", self.name, low=4)
        self.on_truncation = one_of(on_truncation, "on_truncation", self.name, ("report", "error"))
        self.max_batch_tokens = whole_number(max_batch_tokens, "max_batch_tokens", self.name, low=1)

    def checkpoints(self) -> Sequence[Checkpoint]:
        """The model with its tokenizer. The base of an adapter is named by it, and fetched with it."""
        return (Checkpoint(self.model_name_or_path, revision=self.model_revision),)

    def open_model(self) -> TextModel:
        """The model, shared with all who name the same."""
        (checkpoint,) = self.checkpoints()
        return open_text_model(self.kind, checkpoint, device=self.device, dtype=self.dtype)

    def limit(self, model: TextModel, trained: int | None = None) -> int | None:
        """How many tokens are read: as asked for, as trained with, or as the model can."""
        wanted = self.max_length or trained
        if model.longest is not None and wanted is not None and wanted > model.longest:
            raise ConfigError(
                f"max_length is {wanted}, and {model.label} reads {model.longest} tokens", reward=self.name
            )
        return wanted or model.longest

    def encode(self, model: TextModel, sample: Sample) -> Any:
        """What `score` takes of one sample; None where the reward does not apply. `model.one_at_a_time` is held.

        Raises:
            InputError: It cannot be read.
        """
        raise NotImplementedError

    def score(self, rows: Sequence[Any], model: TextModel) -> Sequence[RewardOutput]:
        """Scores of what `encode` made, in order."""
        raise NotImplementedError

    def checked(self, found: EncodedText) -> EncodedText:
        """The text, if it can be scored.

        Raises:
            InputError: It has no tokens, or was cut and must not be.
        """
        if not len(found):
            raise InputError("there is nothing to read: prompt and response have no tokens", field="response")
        if found.truncated and self.on_truncation == "error":
            raise InputError(
                f"the text has {found.truncated} tokens more than the model reads ({len(found)}); raise max_length, "
                "shorten it, or set on_truncation='report'",
                field="response",
            )
        return found

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One score a sample; one that cannot be read fails alone."""
        model: TextModel = self.model
        rows: list[Any] = []
        with model.one_at_a_time:
            for sample in samples:
                try:
                    rows.append(self.encode(model, sample))
                except InputError as error:
                    rows.append(error)
        readable = [row for row, found in enumerate(rows) if not (found is None or isinstance(found, InputError))]
        if readable:
            scored = self.score([rows[row] for row in readable], model)
            for row, output in zip(readable, scored, strict=True):
                rows[row] = output
        return rows

    @staticmethod
    def noted(found: EncodedText) -> dict[str, Any]:
        """What is worth a word about a text, for the metadata."""
        counts = {"truncated": found.truncated, "control_tokens": found.set_apart}
        return {what: count for what, count in counts.items() if count}


class SequenceReward(TextModelReward, abstract=True):
    """A reward with a sequence classifier, which reads texts in the format that it was trained with.

    Args:
        model_name_or_path: See `TextModelReward`.
        format: How prompt and response become tokens; None for what the checkpoint says, else its chat template.
        cut: Which side of a text that is too long is cut, whatever the format; None for what the checkpoint says, else
            the format's own.
        **options: See `TextModelReward`.

    Attributes:
        uses_token_ids: Whether the response's tokens are those of the sample.

    Raises:
        ConfigError: An argument cannot be used; at the first call: the checkpoint was trained with another format, or
            has no chat template.
    """

    uses_token_ids: bool = False

    def __init__(
        self,
        model_name_or_path: str,
        format: TextFormat | None,  # noqa: A002  # the field's word
        cut: str | None = None,
        **options: Unpack[TextModelOptions],
    ) -> None:
        super().__init__(model_name_or_path, **options)
        self._given = format
        self.cut = cut if cut is None else one_of(cut, "cut", self.name, ("left", "right"))
        if format is None:  # the checkpoint's file says whether it reads the prompt; then `encode` asks for it
            self.required_fields, self.optional_fields = ("response",), ("prompt", "metadata")
        elif not format.uses_prompt:
            self.required_fields = ("response",)

    def open_model(self) -> TextModel:
        """The model; how it reads texts is settled here."""
        model = super().open_model()
        (checkpoint,) = self.checkpoints()
        self._file = RewardModelFile.of(checkpoint)
        trained = None if self._file is None else self._file.format
        chosen = self._given or trained or TextFormat()
        if trained is not None:
            same = {"max_length": None, "cut": "left"}  # of these, scoring may have its own
            if replace(chosen, **same) != replace(trained, **same):  # type: ignore[arg-type]
                raise ConfigError(
                    f"{model.label} was trained with {trained}, and is asked to read {chosen}; leave template out",
                    reward=self.name,
                )
        try:
            chosen.check(model.tokenizer)
        except ConfigError as error:
            raise ConfigError(f"{model.label}: {error}", reward=self.name) from None
        own = chosen if trained is None else trained
        self._format = replace(chosen, max_length=self.limit(model, own.max_length), cut=self.cut or own.cut)
        return model

    def encode(self, model: TextModel, sample: Sample) -> EncodedText:
        """The tokens of one sample."""
        prompt = sample.prompt if self._format.uses_prompt else None
        if self._format.uses_prompt and prompt is None:
            raise InputError(
                f"the model reads {self._format.template!r} with a prompt, and the sample has none", field="prompt"
            )
        tools = sample.metadata.get("tools") if self._format.template == CHAT else None
        ids = sample.token_ids if self.uses_token_ids else None
        found = self._format.encode(model.tokenizer, prompt, sample.response or "", tools=tools, response_ids=ids)
        return self.checked(found)
